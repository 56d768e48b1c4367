"""Choosing classes and corrupting labels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ncflow.checks import require
from ncflow.seeding import generator


def choose_classes(classes: int | Sequence[int], available: int) -> list[int]:
    """Turn the option ``classes`` into a list of original labels.

    Args:
        classes: A number k (the first k classes) or the labels themselves, each once.
        available: Number of classes in the data; labels are 0..available-1.

    Raises:
        ArgumentError: If more classes are asked for than there are, or one that is not there, or one twice.
    """
    if isinstance(classes, int):
        require(2 <= classes <= available, "classes", f"between 2 and {available}, what the data has", classes)
        return list(range(classes))
    wanted = list(classes)
    rule = f"at least two different labels in 0..{available - 1}"
    valid = all(0 <= label < available for label in wanted) and len(set(wanted)) == len(wanted) >= 2
    require(valid, "classes", rule, wanted)
    return wanted


def randomize_labels(labels: Tensor, share: float, num_classes: int, seed: int) -> Tensor:
    """Draw the labels of a share of the samples anew, uniformly over all classes.

    Exactly ``round(share * N)`` samples are drawn anew; one in C of them keeps its label by chance.

    Args:
        labels: Shape (N,), int64.
        share: In 0..1.
        num_classes: C.
        seed: The run's seed; the same seed corrupts the same samples in the same way.
    """
    rng = generator(seed, "labels")
    chosen = torch.randperm(len(labels), generator=rng)[: round(share * len(labels))]
    corrupted = labels.clone()
    corrupted[chosen] = torch.randint(num_classes, (len(chosen),), generator=rng)
    return corrupted
