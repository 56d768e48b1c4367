"""Whether a run's NC0 is known before training, and if so what it will be."""

from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from ncflow.models import Classifier
from ncflow.models.network import find_classifier
from ncflow.theory.nc0 import sum_of_rows


def nc0_law(
    classifier: Classifier, optimizer: Optimizer, epochs: int, steps: int, precision: str
) -> Callable[[int], float] | None:
    """From finished epochs to |1^T W|, of a run as it is before training; None where no law is known.

    It is for SGD, on a loss that stays the same if one number is added to all logits, and a classifier that is trained
    as it is: under ``weight`` normalisation the gradient is projected. With ``16-mixed`` steps may be left out.

    Args:
        classifier: The module, untrained.
        optimizer: As it configures it.
        epochs: Of the run.
        steps: Of the optimiser, an epoch.
        precision: Of the trainer.
    """
    head = find_classifier(classifier.network)[1]
    weight = head._parameters.get("weight")
    group = next((g for g in optimizer.param_groups if any(p is weight for p in g["params"])), None)
    if type(optimizer) is not SGD or group is None or weight is None or precision == "16-mixed":
        return None
    if not _is_the_same_with_shifted_logits(classifier.loss, head.out_features):
        return None
    before = float(torch.linalg.vector_norm(weight.detach().double().sum(0)))
    decay = group["weight_decay"] + group.get("coupled", 0.0) + group.get("decoupled", 0.0)
    coupling = group["coupled"] / decay if "coupled" in group else 1.0  # SGD's own way
    options = {name: group[name] for name in ("momentum", "dampening", "nesterov")}

    @cache
    def multiples() -> list[float]:
        return sum_of_rows(
            _rates(classifier, group.get("initial_lr", group["lr"]), epochs),
            steps,
            decay=decay,
            coupling=coupling,
            **options,
        )

    return lambda epoch: before * abs(multiples()[epoch])


def _is_the_same_with_shifted_logits(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], outputs: int) -> bool:
    """So that its gradient in the logits sums to 0 over classes; by its values, whatever its name is."""
    if outputs < 2:
        return False
    logits = 3 * torch.arange(4 * outputs, dtype=torch.float64).sin().view(4, outputs)
    labels = torch.tensor([0, outputs - 1, 1, 0])
    shifts = torch.tensor([[0.7], [-1.3], [0.4], [2.0]], dtype=torch.float64)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return bool(torch.isclose(loss(logits, labels), loss(logits + shifts, labels), rtol=1e-9, atol=1e-12))


def _rates(classifier: Classifier, rate: float, epochs: int) -> list[float]:
    """The learning rate of each epoch, by the run's own schedule."""
    twin = SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = None if classifier.make_scheduler is None else classifier.make_scheduler(twin)
    found = []
    for _ in range(epochs):
        found.append(float(twin.param_groups[0]["lr"]))
        twin.step()  # PyTorch warns where the schedule goes on without
        if scheduler is not None:
            scheduler.step()
    return found
