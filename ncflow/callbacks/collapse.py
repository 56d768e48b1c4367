"""The Lightning callback that measures collapse, on our models and on anybody's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor

from ncflow.callbacks.loaders import SequentialLoader, at_most, given, labels_of
from ncflow.callbacks.reading import AsTrained, averaging, check_strategy
from ncflow.callbacks.schedule import Scheduled, keep, network_of
from ncflow.checks import ArgumentError, require
from ncflow.measuring.adapters import Adapters
from ncflow.measuring.features import LAST
from ncflow.measuring.groups import Groups, check_names, measured_order
from ncflow.measuring.notes import note
from ncflow.measuring.split import check_network, measure_split, rows_of
from ncflow.results import (
    CLASS_COLUMNS,
    EVERY_COLUMN,
    GROUP_MEASURES,
    PAIR_COLUMNS,
    History,
    columns_with,
    final_measures,
)


class NeuralCollapseCallback(Scheduled):
    """Measure neural collapse of any LightningModule classifier before training, at chosen epochs and at the end.

    The model is frozen (evaluation mode, no gradients, float32 where training is in mixed precision), each sample
    counts exactly once, and training draws the same random numbers as without the measurement: the states of PyTorch,
    NumPy and Python, and the loaders' generators, stay. What cannot be kept is a generator that a data set or a
    transform holds itself: pass ``loaders`` of others. The measures of the last layer are logged as
    ``train/intra_min`` and so on, those of another layer as ``train/<layer>/intra_min``.

    What is measured is what ``forward`` does, with batches as the module gets them: the batch-transfer hooks have had
    them. Under distributed training it is the network of the first rank, as in a checkpoint. With a callback that
    averages the weights it is those that are trained. Where an epoch trains on a choice of the samples, one line says
    which are measured.

    What it costs is a forward pass over each split, and about a third of that again for the sums: with the defaults a
    tenth to an eighth of a short training on a CPU (scripts/bench_callback.py). Features are kept for the second pass
    over them, up to ``max_cached_bytes``; a split that has more is read twice.

    Args:
        every_n_epochs: Epochs between measurements, >= 1. Training that ends within an epoch counts it.
        layers: ``"last"`` (the classifier's input), ``"all"`` or a list of module names
            (see :func:`ncflow.measuring.features.resolve_layers`).
        loaders: Batches by split name, as the module's own loaders give them, each sample once and in evaluation form
            (no augmentation). Of a DataLoader each sample is read once, whatever its sampler; anything else has to
            give the same at every pass, and to all processes the same, of which each measures its share. None takes
            the data module's ``measure_dataloaders()`` if it has one, else sequential copies of the trainer's own
            training and validation DataLoaders.
        classifier: Name of the classifier layer; None takes the last ``nn.Linear``. It may be any module that is linear
            in its input or, as a cosine classifier is, in its direction.
        norm: Name of the BN right before the classifier, for ``gamma_norm``; None takes the network's ``last_norm``.
        loss: From logits (N, C) and labels (N,) to their mean loss, sum, or value a sample; of one output, from logits
            (N,) and labels 0. or 1. None takes the module's ``loss`` if that is callable, NaN with a line if that
            takes other arguments; else cross-entropy.
        weight_decay: lambda of ``regularized_loss``, its gap and the limits of inter for unequal classes; None takes
            the module's ``weight_decay`` if that is a number, else they are NaN.
        delta: Level of the quantiles.
        self_pairs: Whether intra counts the pairs i = j.
        batch_size: Batch size for ``measure_dataloaders()``; values depend on it by rounding alone.
        first_epochs: Measure also after each of the first so many epochs, >= 1; None: not.
        max_cached_bytes: Bytes of features kept for each layer, on each rank; a split that has more is read twice. None
            for no limit.
        history: File, or table, to which a row per split and layer is added at each measurement. Training that starts
            anew, rather than from a checkpoint, starts it anew, but never writes over a file that is no such table.
        batch: From a batch to inputs and labels, where it has no usual shape
            (see :class:`ncflow.measuring.adapters.Adapters`).
        output: From what the module returns to its logits, likewise.
        ignore_index: Label of samples to leave out, likewise.
        groups: More measures to make at each measurement, of :data:`ncflow.metrics.groups.GROUPS`: ``uniformity``,
            ``dual_uniformity``, ``ood``, ``few_shot``, ``weight_alignment`` and ``probe``, which trains on the split
            ``train``. Their columns are added to the history's. What each costs is said there.
        ood: Batches of a second data set, as those of ``loaders``, for the group ``ood``. Its labels are not read. None
            takes the data module's ``ood_dataloader()`` if it has one.
        classes: File, or table, to which a row per split, layer and class is added at each measurement, as to
            ``history``.
        pairs: File, or table, for the rows of each pair of up to 100 classes likewise.
        limit: Most samples of a class and split, drawn once, for which the first measurement reads all of them once
            more; None for all. It needs DataLoaders over map-style data sets.

    Attributes:
        rows: The rows of the latest measurement: ``epoch`` (finished epochs), ``split``, ``layer`` and the measures.
    """

    def __init__(
        self,
        every_n_epochs: int = 5,
        layers: str | Sequence[str] = LAST,
        *,
        loaders: Mapping[str, Iterable[Any]] | None = None,
        classifier: str | None = None,
        norm: str | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        weight_decay: float | None = None,
        delta: float = 0.05,
        self_pairs: bool = False,
        batch_size: int = 1000,
        first_epochs: int | None = None,
        max_cached_bytes: int | None = 2**31,
        history: History | Path | str | None = None,
        batch: Callable[[Any], tuple[Any, Tensor]] | None = None,
        output: Callable[[Any], Any] | None = None,
        ignore_index: int | None = None,
        limit: int | None = None,
        groups: Sequence[str] | None = None,
        ood: Iterable[Any] | None = None,
        classes: History | Path | str | None = None,
        pairs: History | Path | str | None = None,
    ) -> None:
        check_names(groups or (), ood is not None or "ood" in (groups or ()))
        if isinstance(history, Path | str):
            history = History(Path(history), columns_with(groups or ()))
        known = EVERY_COLUMN if history is None else history.columns
        missing = [name for group in groups or () for name in GROUP_MEASURES[group] if name not in known]
        require(not missing, "history", "a table with the columns of the groups", f"one without {', '.join(missing)}")
        super().__init__(every_n_epochs, history, loaders, batch_size, first_epochs)
        require(0 < delta < 1, "delta", "in (0, 1)", delta)
        require(weight_decay is None or weight_decay >= 0, "weight_decay", "null or at least 0", weight_decay)
        require(limit is None or limit >= 1, "limit", "None or at least 1", limit)
        self.layers, self.classifier, self.norm = layers, classifier, norm
        self.adapters, self.limit = Adapters(batch, output, ignore_index), limit
        self._drawn: dict[str, SequentialLoader] = {}
        self.loss, self.weight_decay, self.delta, self.self_pairs = loss, weight_decay, delta, self_pairs
        self.max_cached_bytes = max_cached_bytes
        self.groups, self.ood = list(groups or ()), ood
        self.classes = History(Path(classes), CLASS_COLUMNS) if isinstance(classes, Path | str) else classes
        self.pairs = History(Path(pairs), PAIR_COLUMNS) if isinstance(pairs, Path | str) else pairs
        self.rows: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail before training if a layer is missing or weights are spread over ranks; say which ones are read."""
        check_strategy(trainer)
        has_ood = self._ood(trainer) is not None
        check_network(network_of(pl_module), self.layers, self.classifier, self.norm, self.groups, has_ood)
        averages = averaging(trainer)
        if averages is not None:
            note(f"measured are the weights that are trained, not their average, which {averages} has")

    @property
    def tables(self) -> dict[str, History]:
        """Also those of the classes and of their pairs."""
        own = {"classes": self.classes, "pairs": self.pairs}
        return {**super().tables, **{name: table for name, table in own.items() if table is not None}}

    def state_dict(self) -> dict[str, Any]:
        """Also the latest rows: a run that was stopped after its last epoch has its final measures."""
        return {"rows": self.rows, **super().state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also the latest rows."""
        super().load_state_dict(state_dict)
        self.rows = state_dict["rows"]

    def measure(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Measure every split and layer now, log the values and add them to the history."""
        splits = self.splits(trainer)
        groups, by_split, writes = self._groups(trainer), dict[str, list[dict[str, Any]]](), trainer.is_global_zero
        for split in measured_order(self.groups, splits):
            measured = self._measure_split(pl_module, self._limited(pl_module, splits[split]), groups)
            by_split[split] = rows_of(epoch, split, measured, getattr(pl_module, "nc0_at", None))
            for table, values in ((self.classes, groups.classes), (self.pairs, groups.pairs)):
                if table is not None and writes:
                    own = {"epoch": epoch, "split": split}
                    table.append([{**own, "layer": layer, **row} for layer in values for row in values[layer]])
        self.rows = [row for split in splits for row in by_split[split]]
        named = {name: torch.tensor(value) for name, value in final_measures(self.rows).items()}
        trainer.callback_metrics.update(named)
        keep(self.rows, trainer.loggers, self.history if writes else None, epoch, trainer.global_step)

    def _groups(self, trainer: Trainer) -> Groups:
        """Those of one measurement."""
        return Groups(self.groups, self._ood(trainer), self.classes is not None or self.pairs is not None)

    def _ood(self, trainer: Trainer) -> AsTrained | None:
        """The second data set if it is asked for, as it reaches the module."""
        if "ood" not in self.groups:
            return None
        own = getattr(getattr(trainer, "datamodule", None), "ood_dataloader", None)
        loader = own(self.batch_size) if self.ood is None and own is not None else self.ood
        return None if loader is None else AsTrained(given(loader), trainer, "ood")

    def _limited(self, pl_module: LightningModule, loader: AsTrained) -> AsTrained:
        """The loader with at most ``limit`` samples of each class."""
        if self.limit is None:
            return loader
        source = loader.loader
        if not isinstance(source, SequentialLoader):
            raise ArgumentError(
                f"limit must be None where {loader.split!r} is no DataLoader over a map-style data set, "
                f"found {type(source).__name__}"
            )
        drawn = self._drawn.get(loader.split)
        if drawn is None or drawn.origin is not source.origin:
            network = network_of(pl_module)
            drawn = at_most(source, labels_of(network, loader, self.adapters), self.limit)
            self._drawn[loader.split] = drawn
            note(f"{loader.split}: {drawn.order.said}")
        return AsTrained(drawn, loader.trainer, loader.split, loader.index)

    def _measure_split(
        self, pl_module: LightningModule, loader: Iterable[Any], groups: Groups
    ) -> dict[str, dict[str, float]]:
        own_loss, own_decay = getattr(pl_module, "loss", None), getattr(pl_module, "weight_decay", None)
        decay = own_decay if self.weight_decay is None else self.weight_decay
        return measure_split(
            network_of(pl_module),
            loader,
            self.layers,
            classifier=self.classifier,
            norm=self.norm,
            loss=self.loss or (own_loss if callable(own_loss) else F.cross_entropy),
            weight_decay=float(decay) if isinstance(decay, int | float) and decay >= 0 else nan,
            delta=self.delta,
            self_pairs=self.self_pairs,
            max_cached_bytes=self.max_cached_bytes,
            adapters=self.adapters,
            loss_is_found=self.loss is None,
            groups=groups,
        )
