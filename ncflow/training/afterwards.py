"""Measure a model that was trained elsewhere, afterwards, into a run folder like any other."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ncflow.callbacks.loaders import SequentialLoader, at_most, given, labels_of
from ncflow.callbacks.reading import Noted
from ncflow.checks import ArgumentError
from ncflow.measuring.adapters import USUAL, Adapters
from ncflow.measuring.features import LAST
from ncflow.measuring.foreign.extracted import Extracted, without_other_weights
from ncflow.measuring.foreign.models import Foreign
from ncflow.measuring.foreign.named import classes_digest
from ncflow.measuring.foreign.parts import layers_of
from ncflow.measuring.foreign.scripted import Scripted
from ncflow.measuring.foreign.sources import Source
from ncflow.measuring.groups import Groups, measured_order
from ncflow.measuring.split import check_network, measure_split, rows_of
from ncflow.results import RunFolder
from ncflow.results.report import Report
from ncflow.training.entry import settled
from ncflow.training.states import Rows, run_hash, write_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How to measure; each is as for :func:`ncflow.measuring.split.measure_split`, but for the last two.

    Attributes:
        described: What changes the numbers, under names for a run's description.
        device: Where the model is.
        limit: Most samples of each class and split, drawn once; None for all.
    """

    layers: str | Sequence[str] = LAST
    classifier: str | None = None
    norm: str | None = None
    weight_decay: float | None = None
    delta: float = 0.05
    self_pairs: bool = False
    min_count: int | None = None
    groups: Sequence[str] = ()
    adapters: Adapters = USUAL
    described: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    limit: int | None = None


def measure_foreign(
    model: Foreign, source: Source, options: Options, out: Path, name: str | None = None, ood: Source | None = None
) -> Report:
    """Measure each state of a model on data; each is a row of the history, by split and layer.

    Args:
        model: The model.
        source: The data.
        options: How.
        out: Folder of the run's folder.
        name: Of the run, which tells two apart that differ in what cannot be seen here; None: the model's and data's.
        ood: A second data set for the group ``ood``, its first split; None for none.

    Raises:
        ArgumentError: If the first state cannot be loaded, or has no such layers.
    """
    states = {f"{c.epoch}": c.digest for c in model.checkpoints}
    first = [model.checkpoints[0].load()]  # what is wrong with it is said before there is a folder
    described_model = {**model.described, "classes": classes_digest(first[0].modules())}
    identity = {
        "model": described_model,
        "data": source.described,
        "states": states,
        "splits": [*source.splits],
        "ood": None if ood is None else ood.described,
    }
    described = {"model.name": model.name, "data.name": source.name, "epochs": model.checkpoints[-1].epoch}

    folder = _folder(out, name, identity, described, options)
    report = settled(folder)
    if report is not None:
        return report
    layers, classifier = _layers_and_classifier(first[0], options)
    check_network(first[0], layers, classifier, options.norm, options.groups, ood is not None)
    order = measured_order(options.groups, source.splits)

    def rows_at(index: int) -> Rows:
        checkpoint = model.checkpoints[index]
        assert checkpoint.epoch is not None
        network = (first.pop() if first else checkpoint.load()).to(options.device)
        found: Rows = []
        others = None if ood is None else given(next(iter(ood.splits.values())))
        groups = Groups(options.groups, others)
        for split in order:
            batches = Noted(_limited(network, given(source.splits[split]), source, options), split)
            measured = _measured(network, batches, options, groups)
            found += rows_of(checkpoint.epoch, split, measured)
        return found

    return write_run(folder, len(model.checkpoints), rows_at, source.notes, options.device, options.groups)


def measure_extracted(
    extracted: Extracted,
    digests: Mapping[str, str],
    split: str,
    options: Options,
    batch_size: int,
    out: Path,
    name: str,
) -> Report:
    """Measure features that were extracted already.

    Args:
        extracted: Features, labels, and perhaps W and b.
        digests: Of their files.
        split: Which split they are called.
        options: How; only what needs no model counts.
        batch_size: Samples at a time.
        out: Folder of the run's folder.
        name: Of the run.
    """
    described = {"model.name": "features", "data.name": name, "epochs": 0}
    folder = _folder(out, name, {"features": dict(digests), "split": split}, described, options)

    def rows_at(index: int) -> Rows:
        decay = nan if options.weight_decay is None else options.weight_decay
        measured = extracted.measure(batch_size, options.delta, options.self_pairs, options.min_count, decay)
        return rows_of(0, split, measured)

    notes = [] if options.limit is None else [f"{split}: {extracted.num_samples} of {len(extracted.labels)} samples"]
    return write_run(folder, 1, rows_at, notes, torch.device("cpu"))


def _measured(
    network: nn.Module, loader: Iterable[Any], options: Options, groups: Groups
) -> dict[str, dict[str, float]]:
    layers, classifier = _layers_and_classifier(network, options)
    measured = measure_split(
        network,
        loader,
        layers,
        classifier=classifier,
        norm=options.norm,
        weight_decay=nan if options.weight_decay is None else options.weight_decay,
        delta=options.delta,
        self_pairs=options.self_pairs,
        adapters=options.adapters,
        min_count=options.min_count,
        groups=groups,
    )
    return without_other_weights(measured) if isinstance(network, Scripted) else measured


def _layers_and_classifier(network: nn.Module, options: Options) -> tuple[str | Sequence[str], str | None]:
    """Those to measure, and its name; a script was told that when it was loaded."""
    classifier = None if isinstance(network, Scripted) else options.classifier
    return layers_of(network, options.layers, classifier), classifier


def _limited(network: nn.Module, loader: Iterable[Any], source: Source, options: Options) -> Iterable[Any]:
    """With at most ``limit`` samples of each class, where a loader was not limited as it was made."""
    if options.limit is None or source.is_limited:
        return loader
    if not isinstance(loader, SequentialLoader):
        raise ArgumentError(
            f"limit must be left out where data is no DataLoader with a map-style data set, found {options.limit}"
        )
    drawn = at_most(loader, labels_of(network, loader, options.adapters), options.limit)
    log.info(drawn.order.said)
    return drawn


def _folder(
    out: Path, name: str | None, identity: Mapping[str, Any], described: Mapping[str, Any], options: Options
) -> RunFolder:
    """Named by what it is, and by a hash of what changes the numbers."""
    how = dict(options.described)
    run_id = run_hash([identity, how, name])
    parts = [name] if name is not None else [str(described["model.name"]), str(described["data.name"])]
    slug = "-".join("".join(c if c.isalnum() or c in "._+" else "_" for c in part) for part in parts)
    flat = {"run_id": run_id, "name": slug, "experiment": out.name, "figures": ["measured"], **described, **how}
    return RunFolder(out / f"{slug}-{run_id}", flat)
