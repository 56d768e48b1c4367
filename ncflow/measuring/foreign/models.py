"""Somebody's model from a file or a name, each state of its training a checkpoint; nothing is ever downloaded."""

import glob
import hashlib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ncflow.checks import ArgumentError, require
from ncflow.measuring.foreign.libraries import LIBRARIES, as_module, of_hub, of_library
from ncflow.measuring.foreign.named import called, code_digest, files_digest, is_name, named
from ncflow.measuring.foreign.scripted import Scripted
from ncflow.measuring.foreign.weights import Weights, is_script, load_into, load_script, read_weights
from ncflow.results.files import file_digest

_EPOCH = re.compile(r"epoch[=_-]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """What a user says of a model.

    Attributes:
        models: Files of weights, of several states of one training; or ``module:function``, ``torchvision:NAME``,
            ``timm:NAME``, ``hf:FOLDER``, the last ones of several states as well.
        constructor: ``module:function`` that builds the model of a file of weights, or the class of a
            LightningModule, which is built with the hyperparameters that its checkpoint has.
        weights: Files of weights, where the model is a name.
        entry: As for :func:`ncflow.measuring.foreign.weights.read_weights`.
        prefix: As for :func:`ncflow.measuring.foreign.weights.load_into`.
        num_classes: C, of a model of torchvision or timm; None for its own.
        classifier: Name of the classifier, of a TorchScript file.
        epochs: Finished epochs of each state, in the order in which they are given; None for what the files say.
    """

    models: Sequence[str]
    constructor: str | None = None
    weights: Sequence[Path] = ()
    entry: str | None = None
    prefix: str | None = None
    num_classes: int | None = None
    classifier: str | None = None
    epochs: Sequence[int] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """One state of a model.

    Attributes:
        name: What it is called, for people.
        digest: Of its weights' file.
        load: Builds the model in that state, on the CPU.
        epoch: Finished epochs, None if they are not known.
    """

    name: str
    digest: str
    load: Callable[[], nn.Module] = field(repr=False)
    epoch: int | None = None


@dataclass(frozen=True)
class Foreign:
    """A model that was trained elsewhere.

    Attributes:
        name: What it is called.
        described: What changes its numbers beside the weights.
        checkpoints: Its states, in the order of their epochs.
    """

    name: str
    described: dict[str, Any]
    checkpoints: list[Checkpoint]


def find(asked: Asked) -> Foreign:
    """The model that a user means; its files are there, and their epochs are known.

    Raises:
        ArgumentError: If it is not known what is meant, something is missing, or the epochs are not known.
    """
    models = _matched(asked.models)
    require(len(models) > 0, "MODEL", "given, unless features are", None)
    kinds = {_kind(model) for model in models}
    require(len(kinds) == 1, "MODEL", "one model, or files of several states of one", " ".join(models))
    kind, one = kinds.pop(), models[0]
    if kind not in ("torchvision", "timm"):
        _refuse(asked, "num_classes", "with a model of torchvision or timm")
    if kind == "hf" or (kind == "name" and not asked.weights) or (kind == "file" and asked.constructor is None):
        for option in ("entry", "prefix"):
            _refuse(asked, option, "with a file of weights and a constructor")
    if kind == "file":
        _refuse(asked, "weights", "with a name as MODEL, here the file itself is that")
        files = [Path(model) for model in models]
        return _scripts(files, asked) if asked.constructor is None else _built(asked.constructor, files, asked)
    _refuse(asked, "constructor", "with a file of weights, here MODEL says what to build")
    if kind == "hf":
        _refuse(asked, "weights", "with another MODEL, a folder of Hugging Face has its own")
        states = [_of_hub(model) for model in models]
        return Foreign(states[0].name, {"kind": kind}, _in_order(states, asked))
    require(len(models) == 1, "MODEL", "one name, its states being --weights", " ".join(models))
    if kind == "name":
        return _built(one, asked.weights, asked) if asked.weights else _as_it_is(one, asked)
    require(len(asked.weights) > 0, "weights", f"given for {one}, as nothing is downloaded", None)
    of_library(one, asked.num_classes)
    described = {"kind": one, "num_classes": asked.num_classes, **_where(asked)}
    states = _of_files(asked.weights, asked, lambda weights: of_library(one, asked.num_classes))
    return Foreign(_short(one), described, states)


def _scripts(files: Sequence[Path], asked: Asked) -> Foreign:
    way_out = "given, module:function that builds the model, as a file of weights does not say what it is"
    require(all(map(is_script, files)), "constructor", way_out, None)

    def load(file: Path) -> Callable[[], nn.Module]:
        return lambda: Scripted(load_script(file), asked.classifier)

    states = [Checkpoint(file.name, file_digest(file), load(file)) for file in files]
    return Foreign(files[0].stem, {"kind": "TorchScript"}, _in_order(states, asked))


def _built(constructor: str, files: Sequence[Path], asked: Asked) -> Foreign:
    found = named("constructor", constructor)
    described = {"constructor": constructor, "code": code_digest(found), **_where(asked)}
    states = _of_files(files, asked, lambda weights: _constructed(constructor, weights))
    return Foreign(_short(constructor), described, states)


def _as_it_is(name: str, asked: Asked) -> Foreign:
    """What a function returns, with the weights that it gives it."""
    described = {"constructor": name, "code": code_digest(named("MODEL", name))}
    model = as_module(name, called("MODEL", name))
    return Foreign(_short(name), described, _in_order([Checkpoint(name, _state_digest(model), lambda: model)], asked))


def _of_hub(name: str) -> Checkpoint:
    folder = Path(name.removeprefix("hf:"))
    if folder.is_dir():
        files = [file for file in folder.iterdir() if file.suffix in (".json", ".safetensors", ".bin")]
        digest = files_digest(folder, files)
    else:
        digest = _state_digest(of_hub(name))
    return Checkpoint(folder.name, digest, lambda: of_hub(name))


def _matched(models: Sequence[str]) -> list[str]:
    """With what a pattern in quotes matches in its place."""
    found: list[str] = []
    for model in models:
        several = sorted(glob.glob(model)) if any(c in model for c in "*?[") and not Path(model).exists() else [model]
        require(bool(several), "MODEL", "a pattern of existing files", model)
        found += several
    return found


def _kind(model: str) -> str:
    library, _, name = model.partition(":")
    if library in LIBRARIES and name:
        return library
    if Path(model).is_file():
        return "file"
    require(
        is_name(model),
        "MODEL",
        f"an existing file, module:function or {', '.join(f'{x}:...' for x in LIBRARIES)}",
        model,
    )
    return "name"


def _refuse(asked: Asked, option: str, when: str) -> None:
    if getattr(asked, option):
        raise ArgumentError(f"{option} must be given {when}, found {getattr(asked, option)!r}")


def _where(asked: Asked) -> dict[str, Any]:
    """Which of the weights in a file are meant."""
    return {"entry": asked.entry, "prefix": asked.prefix}


def _short(name: str) -> str:
    return name.rpartition(":")[2]


def _of_files(files: Sequence[Path], asked: Asked, build: Callable[[Weights], nn.Module]) -> list[Checkpoint]:
    def load(file: Path) -> Callable[[], nn.Module]:
        def loaded() -> nn.Module:
            weights = read_weights(file, asked.entry)
            model = build(weights)
            load_into(model, weights, asked.prefix)
            return model

        return loaded

    found = []
    for file in files:
        epoch = read_weights(file, asked.entry).epoch
        found.append(Checkpoint(file.name, file_digest(file), load(file), epoch))
    return _in_order(found, asked)


def _constructed(constructor: str, weights: Weights) -> nn.Module:
    found = named("constructor", constructor)
    options: dict[str, Any] = {}
    if inspect.isclass(found) and hasattr(found, "load_from_checkpoint"):  # a LightningModule
        taken = inspect.signature(found).parameters
        every = any(p.kind is p.VAR_KEYWORD for p in taken.values())
        options = {name: value for name, value in weights.options.items() if every or name in taken}
    return as_module(constructor, called("constructor", constructor, **options))


def _state_digest(model: nn.Module) -> str:
    """SHA-256 of all that a model has in its state dict."""
    whole = hashlib.sha256()
    for name, value in model.state_dict().items():
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        whole.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _in_order(found: list[Checkpoint], asked: Asked) -> list[Checkpoint]:
    """With their epochs, and in the order of these."""
    if asked.epochs is not None:
        require(
            len(asked.epochs) == len(found), "epochs", f"as many as there are states, {len(found)}", [*asked.epochs]
        )
        require(min(asked.epochs) >= 0, "epochs", "at least 0", [*asked.epochs])
    known = [c.epoch for c in found] if asked.epochs is None else list(asked.epochs)
    if any(epoch is None for epoch in known):
        known = [_in_name(c.name, alone=len(found) == 1) for c in found]
    unknown = [c.name for c, epoch in zip(found, known, strict=True) if epoch is None]
    require(not unknown, "epochs", "given where a file's name has not one number", ", ".join(unknown[:3]))
    require(len(set(known)) == len(known), "epochs", "different ones", known)
    dated = [Checkpoint(c.name, c.digest, c.load, epoch) for c, epoch in zip(found, known, strict=True)]
    return sorted(dated, key=lambda c: c.epoch or 0)


def _in_name(name: str, alone: bool) -> int | None:
    """The number behind ``epoch`` in a file's name, or else the only one; of one file alone the former, or 0."""
    stem = name.rpartition(".")[0] or name
    numbers = _EPOCH.findall(stem) or ([] if alone else re.findall(r"\d+", stem))
    return int(numbers[0]) if len(numbers) == 1 else 0 if alone else None
