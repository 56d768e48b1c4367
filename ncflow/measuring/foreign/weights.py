"""Weights in files of somebody else: read without running code in them, and loaded with every name in its place."""

import logging
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ncflow.checks import ArgumentError, error_line, require
from ncflow.results.files import check_archive

log = logging.getLogger(__name__)

_STATE = "state_dict"
_LIGHTNING = "pytorch-lightning_version"
_MOST_NAMES, _LONGEST = 5, 300
_WAY_OUT = "where you trust it, save model.state_dict() of it and give that file with --constructor"


@dataclass(frozen=True)
class Weights:
    """What a file says of a model.

    Attributes:
        path: The file.
        state: Tensors by name.
        epoch: Finished epochs, of a Lightning checkpoint; None where the file does not say.
        options: ``hyper_parameters`` of a Lightning checkpoint.
    """

    path: Path
    state: Mapping[str, Tensor]
    epoch: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def read_weights(path: Path, entry: str | None = None) -> Weights:
    """Read a state dict, a checkpoint that has one, or the weights of a TorchScript file, on the CPU.

    Args:
        path: A file of PyTorch, which is read with ``weights_only``, or a ``.safetensors``.
        entry: Under which name a checkpoint has the state dict; None takes ``state_dict``, or the only one.

    Raises:
        ArgumentError: If it cannot be read, is damaged, needs code to be run, or it is not known what the weights are.
    """
    require(path.is_file(), "weights", "an existing file", str(path))
    if path.suffix == ".safetensors":
        return Weights(path, _safetensors(path))
    if is_script(path):
        return Weights(path, dict(load_script(path).state_dict()))
    content = _content(path)
    if entry is None and _is_state(content):
        return Weights(path, content)
    states = {str(name): part for name, part in content.items() if _is_state(part)} if _is_mapping(content) else {}
    if entry is not None:
        require(
            entry in states, "entry", f"one of {', '.join(states) or 'the state dicts, of which there is none'}", entry
        )
    elif _STATE not in states and len(states) != 1:
        found = (
            f"{path}, which has {', '.join(states)}: say which with --entry" if states else f"{path}, which has none"
        )
        raise ArgumentError(f"weights must be a file with one state dict, found {found}")
    state = states[entry or (_STATE if _STATE in states else next(iter(states)))]
    if _LIGHTNING not in content:
        return Weights(path, state)
    options = content.get("hyper_parameters")
    return Weights(path, state, _finished_epochs(content), options if _is_mapping(options) else {})


def is_script(path: Path) -> bool:
    """Whether a file is TorchScript."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load_script(path: Path) -> Any:
    """A TorchScript module on the CPU: a program, but one that is run by PyTorch alone and not by Python.

    Raises:
        ArgumentError: If it cannot be read.
    """
    _check_sums(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that TorchScript is deprecated is not ours to say
            return torch.jit.load(str(path), map_location="cpu")
    except Exception as error:  # of a damaged file
        raise _unreadable(path, error) from error


def load_into(model: nn.Module, weights: Weights, prefix: str | None = None) -> None:
    """Give a model its weights: each name that it has, and no other.

    Args:
        model: The model.
        weights: Of a file.
        prefix: Which names are the model's, those that begin with it. None: all of them, or those below the one prefix
            below which the names are exactly the model's, as below ``network.`` in a checkpoint of Lightning.

    Raises:
        ArgumentError: If names are missing or too many, or shapes differ.
    """
    state = dict(_below(weights, prefix) if prefix is not None else _fitting(model, weights))
    try:
        found = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        differ = [" ".join(line.split()) for line in str(error).splitlines()[1:]] or [error_line(error)]
        raise ArgumentError(
            f"weights must have the model's shapes, found {_some(differ, '; ')} in {weights.path}"
        ) from None
    wrong = [(found.missing_keys, "missing"), (found.unexpected_keys, "unexpected")]
    said = "; ".join(f"{word}: {_some(names)}" for names, word in wrong if names)
    require(not said, "weights", "of exactly the model's names", f"{said} in {weights.path}")


def _content(path: Path) -> Any:
    _check_sums(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a file that is no checkpoint raises shares no class
        needed = re.findall(r"GLOBAL (\S+)", str(error))
        if needed:
            raise ArgumentError(
                f"weights must be tensors alone, found {path}, which needs code of {needed[0]} to be run; {_WAY_OUT}"
            ) from None
        raise _unreadable(path, error) from error


def _check_sums(path: Path) -> None:
    """Refuse an archive with a wrong bit."""
    try:
        if zipfile.is_zipfile(path):
            check_archive(path)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ArgumentError:
    why = error_line(error, named=True)[:_LONGEST]
    return ArgumentError(f"weights must be a readable file of PyTorch or safetensors ({why}), found {path}")


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise ArgumentError(f"safetensors must be installed to read {path}: pip install safetensors") from None
    try:
        return load_file(path)
    except Exception as error:  # safetensors' own errors
        raise _unreadable(path, error) from error


def _is_mapping(content: Any) -> bool:
    return isinstance(content, Mapping)


def _is_state(content: Any) -> bool:
    whole = isinstance(content, Mapping) and len(content) > 0
    return whole and all(isinstance(name, str) and isinstance(part, Tensor) for name, part in content.items())


def _finished_epochs(checkpoint: Mapping[str, Any]) -> int | None:
    """Of a checkpoint of Lightning, whose ``epoch`` counts from 0, and is one more once training has ended."""
    try:
        loop = checkpoint["loops"]["fit_loop"]
        current = loop["epoch_progress"]["current"]
        started, processed = int(current["started"]), int(current["processed"])
        ends = started > processed and loop["epoch_loop.batch_progress"]["is_last_batch"]
        return processed + bool(ends)
    except (KeyError, TypeError, ValueError):
        return None


def _below(weights: Weights, prefix: str) -> Mapping[str, Tensor]:
    own = {name.removeprefix(prefix): value for name, value in weights.state.items() if name.startswith(prefix)}
    require(bool(own), "prefix", f"that of some names in {weights.path}", prefix)
    return own


def _fitting(model: nn.Module, weights: Weights) -> Mapping[str, Tensor]:
    names, state = set(model.state_dict()), weights.state
    if set(state) == names or not names:
        return state
    some = min(names)
    prefixes = sorted({name.removesuffix(some) for name in state if name.endswith(f".{some}")})
    fitting = [prefix for prefix in prefixes if set(_below(weights, prefix)) == names]
    if not fitting:
        return state
    require(len(fitting) == 1, "prefix", f"given where several fit ({', '.join(fitting)})", None)
    others = [name for name in state if not name.startswith(fitting[0])]
    if others:
        log.warning("%s: left out are %s, which are not below %s", weights.path.name, _some(others), fitting[0])
    return _below(weights, fitting[0])


def _some(names: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return between.join(names[:_MOST_NAMES]) + more
