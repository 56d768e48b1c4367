"""Measure a model that was trained elsewhere, afterwards, into a run folder like any other."""

import hashlib
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ncflow.callbacks.loaders import SequentialLoader, at_most, given, labels_of
from ncflow.callbacks.reading import Noted
from ncflow.checks import ArgumentError, error_line, require
from ncflow.measuring.adapters import USUAL, Adapters
from ncflow.measuring.features import LAST
from ncflow.measuring.foreign.extracted import Extracted, without_other_weights
from ncflow.measuring.foreign.models import Foreign
from ncflow.measuring.foreign.named import classes_digest
from ncflow.measuring.foreign.scripted import WAY_OUT, Scripted
from ncflow.measuring.foreign.sources import Source
from ncflow.measuring.groups import Groups, measured_order
from ncflow.measuring.heads import find_head
from ncflow.measuring.split import check_network, measure_split, rows_of
from ncflow.results import HISTORY, MEASURES, History, RunFolder, Status, columns_with, final_measures
from ncflow.results.report import Report
from ncflow.training.entry import enter, settled
from ncflow.training.outcome import hardware, versions

log = logging.getLogger(__name__)

Rows = list[dict[str, Any]]


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
    asked = (layers_of(first[0], options), _classifier(first[0], options), options.norm)
    check_network(first[0], *asked, options.groups, ood is not None)
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


def run_hash(identity: Any) -> str:
    """Eight hex digits that are equal exactly for what gives equal numbers, as plain values say it.

    A version of ncflow with more measures measures anew.
    """
    return hashlib.sha256(json.dumps([identity, MEASURES], sort_keys=True, default=str).encode()).hexdigest()[:8]


def write_run(
    folder: RunFolder,
    states: int,
    rows_at: Callable[[int], Rows],
    notes: Iterable[str],
    device: torch.device,
    groups: Sequence[str] = (),
) -> Report:
    """Fill a run's folder with what is measured; what is finished is left as it is.

    Args:
        folder: The folder.
        states: How many there are.
        rows_at: Measures one, by its place.
        notes: For the run's log.
        device: On which is measured.
        groups: Of measures, whose columns the history has beside the usual.

    Raises:
        OSError: If the folder cannot be made.
    """
    with ExitStack() as held:
        report = enter(folder, None, held)
        if report is not None:
            return report
        with folder.logged():
            for note in notes:
                log.info(note)
            try:
                return _written(folder, states, rows_at, device, groups)
            except Exception as error:  # whatever a model or data of others may raise
                log.debug("%s", traceback.format_exc())
                line = error_line(error, named=not isinstance(error, ArgumentError))
                folder.fail(line)
                return Report(Status.FAILED, str(folder.path), line)


def _written(
    folder: RunFolder, states: int, rows_at: Callable[[int], Rows], device: torch.device, groups: Sequence[str]
) -> Report:
    history, began = History(folder.path / HISTORY, columns_with(groups), owned=True), time.monotonic()
    history.start()
    rows: Rows = []
    for index in range(states):
        rows = rows_at(index)
        for row in rows:
            rule = "of at least 2 classes with a sample"
            require(row["classes_present"] >= 2, "data", rule, f"{row['classes_present']:g} in {row['split']!r}")
        history.append(rows)
    seconds = {"seconds": round(time.monotonic() - began, 3)}
    record = {key: value for key, value in hardware(device).items() if key != "version/trained_with"}
    result = {**folder.described, "status": str(Status.DONE), **final_measures(rows), **seconds, **versions(), **record}
    result |= history.digest()
    folder.finish(result)
    return Report(Status.DONE, str(folder.path), values=result)


def _measured(
    network: nn.Module, loader: Iterable[Any], options: Options, groups: Groups
) -> dict[str, dict[str, float]]:
    measured = measure_split(
        network,
        loader,
        layers_of(network, options),
        classifier=_classifier(network, options),
        norm=options.norm,
        weight_decay=nan if options.weight_decay is None else options.weight_decay,
        delta=options.delta,
        self_pairs=options.self_pairs,
        adapters=options.adapters,
        min_count=options.min_count,
        groups=groups,
    )
    return without_other_weights(measured) if isinstance(network, Scripted) else measured


def _classifier(network: nn.Module, options: Options) -> str | None:
    """Its name; a script was told when it was loaded."""
    return None if isinstance(network, Scripted) else options.classifier


def layers_of(network: nn.Module, options: Options) -> str | Sequence[str]:
    """The layers to measure; of a network that lists none, ``all`` are its parts with weights before the classifier.

    A part that holds all the others, a backbone say, is not meant, but its parts are.
    """
    if isinstance(network, Scripted) and options.layers != LAST:
        raise ArgumentError(f"layers must be 'last' of a TorchScript file, found {options.layers!r}; {WAY_OUT}")
    if options.layers != "all" or getattr(network, "layer_names", None):
        return options.layers
    head, _ = find_head(network, _classifier(network, options))
    parts = _parts(network, "", head)
    while len(parts) == 1:
        ((name, part),) = parts.items()
        inside = _parts(part, f"{name}.", head)
        if not inside:
            break
        parts = inside
    require(
        bool(parts), "layers", "'last' or names of layers, as this model shows no parts before its classifier", "all"
    )
    return [*parts, LAST]


def _parts(module: nn.Module, place: str, head: str) -> dict[str, nn.Module]:
    """What has weights directly below a module and does not hold the classifier, by name; of a list its items."""
    found: dict[str, nn.Module] = {}
    for name, part in module.named_children():
        whole = f"{place}{name}"
        if f"{head}.".startswith(f"{whole}.") or not any(True for _ in part.parameters()):
            continue
        found |= _parts(part, f"{whole}.", head) if isinstance(part, nn.ModuleList | nn.ModuleDict) else {whole: part}
    return found


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
