"""``ncflow-measure MODEL --data DATA``: neural collapse of a model that was trained elsewhere, or of our own runs."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncflow.checks import ArgumentError, error_line, require
from ncflow.results import Report, Status
from ncflow.results.report import line_of

if TYPE_CHECKING:
    import torch

    from ncflow.training.afterwards import Options

_SHOWN = ("loss", "accuracy", "intra_min", "inter_max", "nc1", "nc3_cosine_min", "nc4_agreement", "classes_present")
_MODELS = """\
MODEL is one of
  module:function                             it returns an nn.Module; the current folder is importable
  weights.pt, .pth, .ckpt, .safetensors       with --constructor module:function; several are one training
  script.pt                                   TorchScript: its last layer; all layers with --constructor
  torchvision:resnet18, timm:NAME             with --weights FILE; nothing is ever downloaded
  hf:FOLDER                                   a folder of Hugging Face, or a name in its cache
  runs/EXPERIMENT, runs/EXPERIMENT/RUN        our own runs: their kept checkpoints are measured again, without --data
DATA is a folder with a folder of images for each class, an .npz with X and y, module:function that returns a loader
or loaders by split, or without MODEL an .npz with features and labels (and weight and bias of the classifier).
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ncflow-measure",
        description="Measure the neural collapse of a trained model into a run folder like any other.",
        epilog=_MODELS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help="see below; a pattern in quotes is several files")
    parser.add_argument(
        "--out", type=Path, help="folder of the run's folder, by default measured in the folder of runs"
    )
    parser.add_argument("--name", help="of the run; it tells two apart that differ in what a function reads")
    parser.add_argument("--device", default="cpu", help="where the model is: cpu or cuda")
    model = parser.add_argument_group("the model")
    model.add_argument("--constructor", help="module:function that builds it, or the class of a LightningModule")
    model.add_argument("--weights", type=Path, nargs="+", default=(), metavar="FILE", help="where MODEL is a name")
    model.add_argument("--entry", help="under which name a file has the state dict")
    model.add_argument("--prefix", help="with what the names of the model's weights begin in a file")
    model.add_argument("--num-classes", type=int, help="of a model of torchvision or timm")
    model.add_argument("--epochs", type=int, nargs="+", help="finished epochs of each file, in their order")
    data = parser.add_argument_group("the data")
    data.add_argument("--data", help="see below")
    data.add_argument("--split", help="which of several splits, or what the one is called (train)")
    data.add_argument("--batch-size", type=int, default=256, help="samples at a time (%(default)s)")
    data.add_argument("--limit", type=int, help="most samples of each class and split, drawn once")
    data.add_argument("--workers", type=int, default=0, help="processes that read images (%(default)s)")
    data.add_argument("--resize", type=int, help="shorter side of images")
    data.add_argument("--crop", type=int, help="side of the square that is kept of them (--resize)")
    data.add_argument("--mean", type=float, nargs="+", help="of each channel in 0..1; one number makes images grey")
    data.add_argument("--std", type=float, nargs="+", help="likewise")
    data.add_argument("--transform", help="module:function from a PIL image to the model's input, in their place")
    for name, words in (("features", "(N, d)"), ("labels", "(N,)"), ("weight", "(C, d)"), ("bias", "(C,)")):
        data.add_argument(f"--{name}", type=Path, metavar="FILE.npy", help=f"{words}, extracted already, without MODEL")
    how = parser.add_argument_group("what is measured")
    how.add_argument("--layers", nargs="+", help="last (default), all, or names as in named_modules()")
    how.add_argument("--groups", nargs="+", help="more measures: uniformity, few_shot, probe, ...")
    how.add_argument("--ood", metavar="DATA", help="a second data set, for the group ood")
    how.add_argument("--classifier", help="name of the classifier, by default the last nn.Linear")
    how.add_argument("--norm", help="name of the BN right before it, for gamma_norm")
    how.add_argument("--weight-decay", type=float, help="lambda, for regularized_loss and the limits")
    how.add_argument("--batch", help="module:function from a batch to (inputs, labels)")
    how.add_argument("--output", help="module:function from what the model returns to its logits")
    how.add_argument("--ignore-index", type=int, help="label of samples to leave out")
    how.add_argument("--next-token", action="store_true", help="batches are tokens, labels the next ones")
    how.add_argument("--min-count", type=int, help="leave out classes with fewer samples")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``ncflow-measure``."""
    parsed = _parser().parse_args(arguments)
    try:
        with _here(), _warnings_on_the_console():
            reports = _measure(parsed)
    except (ArgumentError, ValueError, OSError) as error:
        print(f"ncflow-measure: error: {error_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    codes = {Status.REFUSED: 2, Status.FAILED: 1}
    code = max(codes.get(Status(report.status), 0) for report in reports)
    if code:
        raise SystemExit(code)


@contextmanager
def _here() -> Iterator[None]:
    """Let the modules of the current folder be imported."""
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path.remove(os.getcwd())


@contextmanager
def _warnings_on_the_console() -> Iterator[None]:
    """Print what a reader of the numbers must know on stderr; the run's log has that and more."""
    log, handler = logging.getLogger("ncflow"), logging.StreamHandler()
    level = log.level
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("ncflow-measure: %(message)s"))
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _measure(parsed: argparse.Namespace) -> list[Report]:
    for name in ("batch_size", "limit", "min_count", "num_classes"):
        value = getattr(parsed, name)
        require(value is None or value >= 1, name.replace("_", "-"), "at least 1", value)
    require(parsed.weight_decay is None or parsed.weight_decay >= 0, "weight-decay", "at least 0", parsed.weight_decay)
    out = parsed.out or Path(os.environ.get("NCFLOW_RUNS_DIR", "runs")) / "measured"
    if parsed.models and all(Path(model).is_dir() for model in parsed.models):
        return _remeasure(parsed, out)
    return [_told(_extracted(parsed, out) if not parsed.models else _foreign(parsed, out))]


def _remeasure(parsed: argparse.Namespace, out: Path) -> list[Report]:
    _allow(parsed, {"models", "out", "device", "layers", "groups"}, "for runs of ours, which have it in their config")
    from ncflow.training.remeasured import kept_runs, remeasure

    reports = []
    for kept in kept_runs(*map(Path, parsed.models)):
        if isinstance(kept, ArgumentError):
            report = Report(Status.FAILED, "", str(kept))
        else:
            try:
                report = remeasure(kept, out, _layers(parsed), parsed.groups, _device(parsed))
            except ValueError as error:  # of a config that asks for what is not there any more
                report = Report(Status.FAILED, str(kept.folder), error_line(error))
        reports.append(_told(report))
    return reports


def _allow(parsed: argparse.Namespace, allowed: set[str], otherwise: str) -> None:
    """Refuse options that would do nothing."""
    defaults = vars(_parser().parse_args([]))
    for name, value in vars(parsed).items():
        if name not in allowed and value != defaults[name]:
            raise ArgumentError(f"{name.replace('_', '-')} must be left out {otherwise}, found {value!r}")


def _foreign(parsed: argparse.Namespace, out: Path) -> Report:
    from ncflow.measuring.foreign import models, sources
    from ncflow.training.afterwards import measure_foreign

    require(parsed.data is not None, "data", "given", None)
    for name in ("features", "labels", "weight", "bias"):
        require(getattr(parsed, name) is None, name, "left out with a MODEL", getattr(parsed, name))
    asked = models.Asked(
        parsed.models,
        **{
            name: getattr(parsed, name)
            for name in ("constructor", "weights", "entry", "prefix", "num_classes", "classifier", "epochs")
        },
    )
    model = models.find(asked)
    images = sources.Images(parsed.resize, parsed.crop, parsed.mean, parsed.std, parsed.transform)
    own = None
    if parsed.models[0].startswith("torchvision:") and images == sources.Images():
        own = sources.weights_transform(parsed.models[0], parsed.weights[0])
    source = sources.read(parsed.data, images, parsed.batch_size, parsed.limit, parsed.split, parsed.workers, own)
    ood = None
    if parsed.ood is not None:
        ood = sources.read(parsed.ood, images, parsed.batch_size, workers=parsed.workers, own_transform=own)
    return measure_foreign(model, source, _options(parsed), out, parsed.name, ood)


def _extracted(parsed: argparse.Namespace, out: Path) -> Report:
    from ncflow.measuring.foreign.extracted import read_extracted
    from ncflow.results.files import file_digest
    from ncflow.training.afterwards import measure_extracted

    arrays = ("features", "labels", "weight", "bias")
    heeded = {"out", "name", "data", "split", "batch_size", "limit", "min_count", "weight_decay", "device", *arrays}
    _allow(parsed, heeded, "for features, which need no model")
    files = {name: getattr(parsed, name) for name in arrays}
    files = {name: path for name, path in files.items() if path is not None}
    require(bool(files) or parsed.data is not None, "MODEL", "given, or --features, or --data with features", None)
    require(not files or parsed.data is None, "data", "left out with --features", parsed.data)
    files = files or {"data": Path(parsed.data)}
    extracted = read_extracted(files, parsed.limit)
    name = parsed.name or next(iter(files.values())).stem
    digests = {kind: file_digest(path) for kind, path in files.items()}
    options = _options(parsed)
    return measure_extracted(extracted, digests, parsed.split or "train", options, parsed.batch_size, out, name)


def _options(parsed: argparse.Namespace) -> "Options":
    from ncflow.measuring.adapters import Adapters, next_token
    from ncflow.measuring.foreign.named import code_digest, named
    from ncflow.training.afterwards import Options

    require(not (parsed.next_token and parsed.batch), "batch", "left out with --next-token", parsed.batch)
    batch: Any = next_token if parsed.next_token else parsed.batch and named("batch", parsed.batch)
    output = parsed.output and named("output", parsed.output)
    names = ("groups", "classifier", "norm", "ignore_index", "next_token", "min_count", "limit")
    how = {f"measure.{name}": getattr(parsed, name) for name in names} | {"weight_decay": parsed.weight_decay}
    for name, function in (("batch", parsed.batch and batch), ("output", output)):
        if function:
            how[f"measure.{name}"] = f"{getattr(parsed, name)} {code_digest(function)}"
    layers = _layers(parsed) or "last"
    return Options(
        layers=layers,
        classifier=parsed.classifier,
        norm=parsed.norm,
        weight_decay=parsed.weight_decay,
        min_count=parsed.min_count,
        groups=parsed.groups or (),
        adapters=Adapters(batch or None, output or None, parsed.ignore_index),
        described={
            "measure.layers": layers,
            **{name: value for name, value in how.items() if value is not None and value is not False},
        },
        device=_device(parsed),
        limit=parsed.limit,
    )


def _layers(parsed: argparse.Namespace) -> Any:
    return parsed.layers[0] if parsed.layers is not None and len(parsed.layers) == 1 else parsed.layers


def _device(parsed: argparse.Namespace) -> "torch.device":
    import torch

    try:
        device = torch.device(parsed.device)
    except RuntimeError:
        device = torch.device("meta")
    known = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_available())
    require(known, "device", "cpu, or cuda where there is a GPU", parsed.device)
    return device


def _told(report: Report) -> Report:
    """Say what became of a run: its folder, and some measures of its last state."""
    if report.status in (Status.FAILED, Status.REFUSED):
        print(
            f"ncflow-measure: {'failed' if report.status == Status.FAILED else 'error'}: {report.error}",
            file=sys.stderr,
        )
        return report
    if report.status != Status.DONE:
        print(line_of(report))
        return report
    for split in dict.fromkeys(key.partition("/")[0] for key in report.values if key.count("/") == 1):
        shown = _shown(report.values, split)
        if shown:
            print(f"{split}: {shown}")
    print(report.folder)
    return report


def _shown(values: Mapping[str, Any], split: str) -> str:
    own = {name: values.get(f"{split}/{name}") for name in _SHOWN}
    return ", ".join(f"{name} {value:.4g}" for name, value in own.items() if isinstance(value, int | float))


if __name__ == "__main__":
    main()
