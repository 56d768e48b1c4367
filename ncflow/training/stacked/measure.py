"""Measure the last layer of all cells at once: on a GPU the cells one by one would leave it idle.

The sums over the data, which cost the time, are made side by side where the cells are; the rest, small and in float64,
is made on the CPU by what measures a run alone.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncflow.data.batches import Split
from ncflow.measuring.features import LAST, frozen
from ncflow.measuring.split import Outputs, conclude
from ncflow.metrics.collapse import choice_measures, collapse_measures
from ncflow.metrics.margins import margins, predictions
from ncflow.metrics.quasi_interpolation import output_sums
from ncflow.metrics.statistics import EPSILON, ROUNDING, FirstSums, Geometry, SecondSums, geometry
from ncflow.models.network import find_classifier
from ncflow.training.stacked.modules import StackedNetwork, cell_losses


class CellsMeasurer:
    """Measures of the last layer of every cell, as :func:`ncflow.measuring.split.measure_split` has them.

    Args:
        network: The stacked network.
        loss: From logits (B, C) and labels (B,) of a cell to its mean loss.
        weight_decay: Of each cell.
        delta: Level of the quantiles.
        self_pairs: Whether intra counts the pairs i = j.
    """

    def __init__(
        self,
        network: StackedNetwork,
        loss: Callable[[Tensor, Tensor], Tensor],
        weight_decay: Sequence[float],
        delta: float,
        self_pairs: bool,
    ) -> None:
        self.network, self.loss, self.weight_decay = network, loss, weight_decay
        self.delta, self.self_pairs = delta, self_pairs
        # On the CPU, where the small numbers are made: a transfer for each tensor rather than for each cell.
        self.twin = StackedNetwork([copy.deepcopy(cell).cpu() for cell in network.networks])

    def measure(self, batches: Iterable[Split]) -> list[dict[str, float] | None]:
        """Measure all cells on a split.

        Args:
            batches: Inputs (K, B, ...) and labels (K, B), each sample once.

        Returns:
            Measures by name; None for a cell in which a class is absent or a feature not finite, to be measured alone.
        """
        self.twin.load_state_dict(self.network.state_dict())
        with frozen(self.network):
            kept = list(self._read(batches))
            sums = _first(kept)
            around = [geometry(one, "samples") for one in _cells_of(sums)]
            regular = [bool(one.present.all()) and one.finite and one.whitening[0] for one in around]
            if not any(regular):
                return [None] * len(around)
            example = around[regular.index(True)]
            second = _second(kept, [one if fits else example for one, fits in zip(around, regular, strict=True)])
            said = self._outputs(kept)
        of_samples = torch.cat([_by_cell(margins, logits, labels) for _, labels, logits in kept], 1).cpu()
        given = zip(_cells_of(sums), around, _cells_of(second), said, of_samples, strict=True)
        return [self._conclude(cell, *one) if regular[cell] else None for cell, one in enumerate(given)]

    def _read(self, batches: Iterable[Split]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Features (K, B, d), labels (K, B) and logits (K, B, C) of each batch."""
        seen: list[Tensor] = []
        handle = self.network.chain[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        dtype = next(self.network.parameters()).dtype
        try:
            for batch in batches:
                inputs = batch.inputs.to(dtype) if batch.inputs.is_floating_point() else batch.inputs
                logits = self.network(inputs)
                yield seen.pop(), batch.labels, logits
        finally:
            handle.remove()

    def _outputs(self, kept: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[Outputs]:
        found = [Outputs(self.loss, torch.device("cpu")) for _ in self.network.networks]
        signs = found[0].signs
        sums: list[Tensor] = []
        quasi: list[Tensor] = []
        for _, labels, logits in kept:
            count, exact = labels.shape[1], logits.double()
            correct = (_by_cell(predictions, logits) == labels).sum(1)
            losses = [cell_losses(loss, exact, labels) * count for loss in (self.loss, nn.CrossEntropyLoss())]
            sums.append(torch.stack([*losses, correct, torch.full_like(correct, count)], 1).double())
            if signs is not None:
                quasi.append(torch.stack([output_sums(*one, signs) for one in zip(exact, labels, strict=True)]))
        for name, parts in (("sums", sums), ("quasi", quasi)):
            for one, row in zip(found, torch.stack(parts).sum(0).cpu(), strict=True) if parts else ():
                setattr(one, name, row)
        return found

    def _conclude(
        self, cell: int, first: FirstSums, around: Geometry, second: SecondSums, outputs: Outputs, of_samples: Tensor
    ) -> dict[str, float]:
        network = self.twin.networks[cell]
        _, head = find_classifier(network)
        with torch.no_grad():
            values = {
                **collapse_measures(
                    around, second, first.squares, first.nonfinite, head.weight, self.delta, self.self_pairs
                ),
                **choice_measures(of_samples, second.nearest_is_predicted, first.squares, len(of_samples)),
            }
        return conclude(network, head, {LAST: values}, around.centred, outputs, None, self.weight_decay[cell])[LAST]


def _cells_of(stacked: Any) -> Iterator[Any]:
    """The sums of each cell, on the CPU, from those with a leading axis of cells."""
    parts = {name: value.cpu() for name, value in vars(stacked).items()}
    for cell in range(len(next(iter(parts.values())))):
        yield type(stacked)(**{name: value[cell] for name, value in parts.items()})


def _membership(labels: Tensor, num_classes: int) -> Tensor:
    """(K, C, B) of 0 and 1, in float64."""
    return F.one_hot(labels, num_classes).double().transpose(1, 2)


def _first(kept: Sequence[tuple[Tensor, Tensor, Tensor]]) -> FirstSums:
    """The sums of :class:`FirstSums` with a leading axis of cells."""
    parts = []
    for features, labels, logits in kept:
        exact, member = features.double(), _membership(labels, logits.shape[2])
        squares = torch.linalg.vector_norm(exact, dim=2).square()
        nonfinite = (~squares.isfinite()).sum(1).double()
        parts.append((member @ exact, member.sum(2), squares.sum(1), nonfinite))
    return FirstSums(*(torch.stack(part).sum(0) for part in zip(*parts, strict=True)))


def _second(kept: Sequence[tuple[Tensor, Tensor, Tensor]], around: Sequence[Geometry]) -> SecondSums:
    """The sums of :class:`SecondSums`, step by step as there, with a leading axis of cells; every class is present."""
    device = kept[0][0].device
    means, centres, centred, whitening, distances, counts = (
        torch.stack(values).to(device)
        for values in zip(
            *((g.means, g.centre, g.centred, g.whitening[1], g.distances, g.counts) for g in around), strict=True
        )
    )
    weights = 1 / (counts.shape[1] * counts)
    tolerance = ROUNDING * EPSILON * torch.linalg.vector_norm(centres, dim=1)[:, None]
    parts = []
    for features, labels, logits in kept:
        exact, member = features.double(), _membership(labels, logits.shape[2])
        residuals = exact - _rows(means, labels)
        squares = torch.linalg.vector_norm(residuals, dim=2).square()
        products = residuals @ centred.transpose(1, 2)
        relative = torch.linalg.vector_norm(products @ whitening, dim=2).square() * weights.gather(1, labels)
        nearest = (_rows(distances, labels) - 2 * products).argmin(2)
        from_centre = exact - centres[:, None]
        norms = torch.linalg.vector_norm(from_centre, dim=2)
        at_centre = norms <= tolerance
        directions = from_centre / norms.masked_fill(at_centre, torch.inf)[:, :, None]
        parts.append(
            (
                member @ directions,
                (member * ~at_centre[:, None]).sum(2),
                (member * squares[:, None]).sum(2),
                relative.sum(1),
                (nearest == labels).sum(1).double(),
                (nearest == _by_cell(predictions, logits)).sum(1).double(),
                torch.full_like(relative[:, 0], labels.shape[1]),
            )
        )
    return SecondSums(*(torch.stack(part).sum(0) for part in zip(*parts, strict=True)))


def _rows(table: Tensor, labels: Tensor) -> Tensor:
    """Row ``labels[k, b]`` of each cell's table (K, C, m), (K, B, m)."""
    return table.gather(1, labels[:, :, None].expand(-1, -1, table.shape[2]))


def _by_cell(function: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """What a function says of each sample, (K, B), from values (K, B, ...) that it takes as (B, ...)."""
    return function(*(value.flatten(0, 1) for value in values)).view(values[0].shape[:2])
