"""The LightningModule that trains any network as a classifier."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ncflow.checks import require
from ncflow.models.decay import COUPLING, share_decay
from ncflow.models.network import find_classifier
from ncflow.models.normalization import directions, retract_after_each_step


class Classifier(LightningModule):
    """Train a network on (inputs, labels) batches.

    Args:
        network: Any module from inputs (B, ...) to logits (B, C). ``last_layer`` weight decay also looks for its
            attributes ``classifier`` and ``last_norm`` (see :class:`ncflow.models.network.Network`).
        loss: From logits (B, C) and labels (B,) to a scalar, the mean over the batch.
        optimizer: From parameter groups to the optimiser; the groups carry ``weight_decay``.
        scheduler: From the optimiser to its schedule, stepped once an epoch, or to None.
        weight_decay: lambda >= 0, the penalty being lambda/2 of the squared norms.
        weight_decay_scope: ``all``, or ``last_layer`` for the classifier and the BN before it alone, the
            layer-peeled setting (Pan, Cao, eq. 2).
        weight_decay_coupling: Share of lambda, 0..1, that enters the gradient; the rest shrinks the weights beside the
            step (see :func:`ncflow.models.decay.share_decay`). None for the optimiser's own way.

    Attributes:
        nc0_at: From finished epochs to the norm of the sum of the classifier's rows, where the optimiser alone decides
            it (see :mod:`ncflow.theory.nc0`); None where it does not, or where nobody said.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler | None] | None = None,
        weight_decay: float = 0.0,
        weight_decay_scope: str = "all",
        weight_decay_coupling: float | None = None,
    ) -> None:
        super().__init__()
        require(weight_decay >= 0, "weight_decay", "at least 0", weight_decay)
        in_range = weight_decay_coupling is None or 0 <= weight_decay_coupling <= 1
        require(in_range, "weight_decay_coupling", "null or between 0 and 1", weight_decay_coupling)
        self.network = network
        self.loss = loss
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.weight_decay, self.weight_decay_scope = weight_decay, weight_decay_scope
        self.weight_decay_coupling = weight_decay_coupling
        self.nc0_at: Callable[[int], float] | None = None
        self.loss_sum = torch.zeros(())

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a text or None in the place of a plain value goes past ``nn.Module``'s bookkeeping.

        Such a value has no need of it, and Lightning notes the running hook some 40 times a step: the bookkeeping would
        cost 7 % of a small model's step (width 32), 2 % at width 300.
        """
        if name in self.__dict__ and (value is None or isinstance(value, str)):
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C)."""
        return self.network(inputs)

    def on_train_epoch_start(self) -> None:
        """Start the sum of this epoch's losses."""
        self.loss_sum = torch.zeros((), device=self.device)

    def training_step(self, batch: tuple[Tensor, Tensor] | tuple[Tensor, Tensor, float], batch_index: int) -> Tensor:
        """The loss of a minibatch; summed up on the device, so that no step waits for a logger.

        A batch of three has the weight of this rank's share (see :class:`ncflow.data.batches.Share`), which makes the
        gradient averaged over ranks that of the whole batch.
        """
        inputs, labels, *weight = batch
        logits = self.network(inputs)
        loss = self.loss(logits, labels) if len(labels) else logits.sum()  # a mean over no sample would be NaN
        if weight:
            loss = loss * weight[0]
        self.loss_sum.add_(loss.detach())  # in place: setting an attribute of a module costs more than the sum
        return loss

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Every trained parameter in exactly one group, decayed or not."""
        return parameter_groups(self.network, self.weight_decay, self.weight_decay_scope, self.weight_decay_coupling)

    def configure_optimizers(self) -> Any:
        """The optimiser over :meth:`parameter_groups` and its schedule."""
        optimizer = share_decay(self.make_optimizer(self.parameter_groups()))
        retract_after_each_step(self.network, optimizer)
        scheduler = None if self.make_scheduler is None else self.make_scheduler(optimizer)
        return optimizer if scheduler is None else {"optimizer": optimizer, "lr_scheduler": scheduler}


def parameter_groups(
    network: nn.Module, weight_decay: float, scope: str, coupling: float | None = None
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: the decayed ones first, then the others.

    Membership is by module, not by name, and what no group claims is in the second one: nothing is left out. The
    directions of normalised weight matrices are never decayed (see models/normalization.py).

    Args:
        network: The network.
        weight_decay: lambda of the decayed group.
        scope: ``all`` or ``last_layer``.
        coupling: As ``weight_decay_coupling`` of :class:`Classifier`.
    """
    require(scope in ("all", "last_layer"), "weight_decay_scope", "one of 'all', 'last_layer'", scope)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    decayed = {id(parameter) for parameter in trained}
    if scope == "last_layer":
        # Free features without BN take the place of gamma (see models/unconstrained.py).
        scales = [getattr(network, name, None) for name in ("last_norm", "peeled_features")]
        heads = [find_classifier(network)[1], *(module for module in scales if module is not None)]
        decayed = {id(parameter) for module in heads for parameter in module.parameters()}
    decayed -= {id(parameter) for parameter in directions(network)}
    groups = [
        {"params": [p for p in trained if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) not in decayed], "weight_decay": 0.0},
    ]
    if coupling is not None:
        groups = [{**group, COUPLING: coupling} for group in groups]
    return [group for group in groups if group["params"]]
