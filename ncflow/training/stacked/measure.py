"""Measure the last layer of all cells at once: on a GPU the cells one by one would leave it idle.

The sums over the data, which cost the time, are made side by side where the cells are; the rest, small and in float64,
is made on the CPU by what measures a run alone.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ncflow.data.batches import Split
from ncflow.measuring.features import LAST, frozen
from ncflow.measuring.outputs import Outputs
from ncflow.measuring.split import conclude
from ncflow.metrics.class_means import FirstSums, Geometry, geometry
from ncflow.metrics.collapse import choice_measures, collapse_measures
from ncflow.metrics.margins import margins, predictions
from ncflow.metrics.scatter import Around, SecondSums
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
            features, labels, logits = kept[0]
            shape, runs, device = (logits.shape[-1], features.shape[-1]), features.shape[:1], features.device
            first, outputs = FirstSums.zeros(*shape, device, runs), Outputs(self.loss, device, runs, cell_losses)
            for features, labels, logits in kept:
                first.add(features, labels)
                outputs.update(logits, labels)
            sums = list(_of_each(first))
            means = [geometry(one, "samples") for one in sums]
            regular = [bool(one.present.all()) and one.finite and one.is_wide for one in means]
            if not any(regular):
                return [None] * len(means)
            example = means[regular.index(True)]
            fitting = [Around.of(one if fits else example) for one, fits in zip(means, regular, strict=True)]
            second, around = SecondSums.zeros(*shape, device, runs), Around.stack(fitting, device)
            for features, labels, logits in kept:
                second.add(features, labels, predictions(logits), around)
        of_samples = torch.cat([margins(logits, labels) for _, labels, logits in kept], 1).cpu()
        given = zip(sums, means, _of_each(second), outputs.of_each(), of_samples, strict=True)
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

    def _conclude(
        self, cell: int, first: FirstSums, around: Geometry, second: SecondSums, outputs: Outputs, of_samples: Tensor
    ) -> dict[str, float]:
        network = self.twin.networks[cell]
        _, head = find_classifier(network)
        with torch.no_grad():
            values = {
                **collapse_measures(around, first, second, head.weight, self.delta, self.self_pairs),
                **choice_measures(of_samples, second.nearest_is_predicted, first.squares, len(of_samples)),
            }
        given = (around.centred, around.counts, outputs, None, self.weight_decay[cell], self.delta)
        return conclude(network, head, {LAST: values}, *given)[LAST]


def _of_each(sums: Any) -> Iterator[Any]:
    """The sums of each run, on the CPU, of those with a leading axis."""
    parts = {name: value.cpu() for name, value in vars(sums).items()}
    for run in range(len(next(iter(parts.values())))):
        yield type(sums)(**{name: value[run] for name, value in parts.items()})
