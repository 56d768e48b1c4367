"""Whether a run's NC0 is known before training, and if so what it will be."""

from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from ncflow.measuring.losses import is_of_differences
from ncflow.models import Classifier
from ncflow.models.decay import decay_of
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
    if type(optimizer) is not SGD or precision == "16-mixed":
        return None
    head = find_classifier(classifier.network)[1]
    weight = head._parameters.get("weight")
    group = next((g for g in optimizer.param_groups if any(p is weight for p in g["params"])), None)
    if group is None or weight is None:
        return None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        if not is_of_differences(classifier.loss, head.out_features):
            return None
    before = float(torch.linalg.vector_norm(weight.detach().double().sum(0)))
    decay, coupling = decay_of(group, own=1.0)
    options = {name: group[name] for name in ("momentum", "dampening", "nesterov")}

    @cache
    def multiples() -> list[float]:
        rates = _rates(classifier, group.get("initial_lr", group["lr"]), epochs)
        return sum_of_rows(rates, steps, decay=decay, coupling=coupling, **options)

    return lambda epoch: before * abs(multiples()[epoch])


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
