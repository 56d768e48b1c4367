"""The one place that turns a config group into an object, its options checked first."""

import importlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ncflow.checks import ArgumentError, error_line
from ncflow.config.schema import ConfigError, Rule

# Options of PyTorch's optimisers and losses that do nothing here, or fail in training alone, and what to use instead.
_LEFT_OUT = {
    "optimizer": {
        "params": "the model has them",
        "weight_decay": "the run's own weight_decay is what sets it",
        "differentiable": "no step is differentiated",
        "capturable": "no step is captured",
    },
    "loss": dict.fromkeys(("reduction", "reduce", "size_average", "ignore_index"), "it is the mean over a minibatch"),
}
# Options that the configs list as null, so that a run without them keeps its id: the target's default, if it has them.
_NULL_IS_DEFAULT = {"loss": ("label_smoothing",)}
_TYPES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Path: "a path",
}
_OBJECT = "of type"
_BOUNDS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}
_NO_BOUND = 2**31 - 1  # not worth a word
BUILD_ERRORS = (ValueError, TypeError, OSError, ArithmeticError, MemoryError, RuntimeError)
"""What a constructor raises for options that it refuses, or that are too large to be allocated."""


def build(cfg: DictConfig, group: str, **given: Any) -> Any:
    """Call the ``_target_`` of a config group with its options and the ``given`` arguments.

    Args:
        cfg: The run's config.
        group: Name of the group, for example ``"model"``, dotted if it is within another.
        given: Arguments that come from the program rather than from the config. Those that the target does not
            take are left out, so that a target asks for what it needs by naming it.

    Raises:
        ConfigError: For an unknown option, a wrong type, or a value that the target refuses with ValueError.
    """
    chosen = OmegaConf.select(cfg, group)
    node = OmegaConf.to_container(chosen, resolve=True) if OmegaConf.is_config(chosen) else chosen
    if not isinstance(node, dict):
        raise ConfigError(f"{group} must be a group of options, found {node!r}")
    options = {str(key): value for key, value in node.items() if key not in ("name", "_target_")}
    for name in _NULL_IS_DEFAULT.get(group, ()):
        if options.get(name, "") is None:
            del options[name]
    target = locate(group, node.get("_target_"))
    parameters = _parameters(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if target.__module__.startswith("torch."):
        for name, instead in _LEFT_OUT.get(group, {}).items():
            if name in options:
                raise ConfigError(f"{group}.{name} must be left out: {instead}")
    accepted = {name: value for name, value in given.items() if name in parameters or open_ended}
    for name in options:
        if name in given or (name not in parameters and not open_ended):
            known = ", ".join(n for n in parameters if n not in given)
            raise ConfigError(f"{group}.{name} must be one of the options of {target.__name__}: {known}")
    check_types(group, target, options)
    try:
        return target(**options, **accepted)
    except BUILD_ERRORS as error:
        raise ConfigError(_one_line(group, error)) from error


def locate(group: str, path: Any) -> Callable[..., Any]:
    """Import the object that ``_target_`` names."""
    module, _, name = str(path).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"{group}._target_ must be an importable object, found {path!r} ({error})") from error
    if not callable(found):
        raise ConfigError(f"{group}._target_ must be a class or a function, found {path!r}")
    return found


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters of a function or class, their hints evaluated.

    A class whose ``__init__`` takes ``**common``, but no ``*``, is read as handing it to the next ``__init__`` of its
    MRO: that one's parameters follow its own, and so on up to the first that takes neither. A target without such an
    end stays open ended.
    """
    if not inspect.isclass(target):
        return _evaluated(inspect.signature(target), target)
    inits = [init for owner in target.__mro__ if inspect.isfunction(init := vars(owner).get("__init__"))]
    passing = list(takewhile(lambda init: _open_kinds(init) == {inspect.Parameter.VAR_KEYWORD}, inits))
    chain = inits[: len(passing) + 1]
    if not passing or _open_kinds(chain[-1]):
        return _evaluated(inspect.signature(target), target.__init__)
    merged: dict[str, inspect.Parameter] = {}
    for init in chain:
        _, *own = _evaluated(inspect.signature(init), init).values()  # without self
        merged |= {p.name: p for p in own if p.name not in merged and p.kind is not p.VAR_KEYWORD}
    return merged


def _open_kinds(function: Callable[..., Any]) -> set[Any]:
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.kind for p in inspect.signature(function).parameters.values()}.intersection(open_ended)


def _evaluated(signature: inspect.Signature, hinted: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        hints = typing.get_type_hints(hinted, include_extras=True)
    except NameError:  # another library's hints that exist for its type checker alone
        hints = {}
    return {name: p.replace(annotation=hints.get(name, p.empty)) for name, p in signature.parameters.items()}


def _one_line(group: str, error: Exception) -> str:
    text = error_line(error)
    return f"{group}.{text}" if isinstance(error, ArgumentError) else f"{group}: {text}"


_found_right: set[tuple[Callable[..., Any], str, str]] = set()  # the cells of a sweep differ in little


def check_types(group: str, target: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Check options of a group against the type hints of what takes them.

    Args:
        group: Name of the group, empty for the fields of the run itself.
        target: Function or class whose parameters are named as the options.
        options: Those that are given; one without a hint may be anything.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    written = {name: json.dumps(value, default=repr) for name, value in options.items()}
    new = [name for name, text in written.items() if (target, name, text) not in _found_right]
    if not new:
        return
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    hints = {name: p.annotation for name, p in _parameters(target).items() if p.annotation is not p.empty}
    for name in new:
        value = options[name]
        if name not in hints:
            continue
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))
            # The JSON mode is strict about numbers, flags and strings, and takes a list for a tuple.
            adapter.validate_json(written[name], strict=True)
        except ValidationError as error:
            rule = _rule(hints[name], error.errors()[0])
            raise ConfigError(f"{group}.{name}".lstrip(".") + f" must be {rule}, found {value!r}") from error
        except PydanticUserError:
            continue
    _found_right.update((target, name, text) for name, text in written.items())


def _rule(hint: Any, broken: Mapping[str, Any]) -> str:
    """What a hint asks for, in words; ``broken`` is the error of pydantic."""
    more, words = _metadata(hint)
    if words and broken["type"] != "less_than_equal":
        return words[0]
    if more and not broken["type"].endswith("_type"):
        text = broken["msg"].removeprefix("Input should be ")
        return text.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    return _describe(hint)


def _metadata(hint: Any) -> tuple[list[Any], list[str]]:
    """What ``Annotated`` says of a hint or of a part of it, and the words of its rules."""
    more = [item for part in (hint, *typing.get_args(hint)) for item in getattr(part, "__metadata__", ())]
    return more, [item.words for item in more if isinstance(item, Rule) and item.words]


def rules_of(target: Callable[..., Any]) -> dict[str, str]:
    """Type and range of each parameter that has a hint, in words."""
    hints = {name: p.annotation for name, p in _parameters(target).items() if p.annotation is not p.empty}
    return {name: _type_and_range(hint) for name, hint in hints.items()}


def _type_and_range(hint: Any) -> str:
    more, words = _metadata(hint)
    if words:
        is_optional = type(None) in typing.get_args(hint) and "null" not in words[0]
        return f"{words[0]} or null" if is_optional else words[0]
    found = {name: value for item in more for name, value in _bounds(item) if value is not None and value < _NO_BOUND}
    return ", ".join([_describe(hint), *(f"{_BOUNDS[name]} {value:g}" for name, value in found.items())])


def _bounds(item: Any) -> list[tuple[str, Any]]:
    """Bounds that an item of ``Annotated`` sets: a rule's, pydantic's, or one by itself."""
    if isinstance(item, Rule):
        return [(name, item.bounds.get(name)) for name in _BOUNDS]
    return [(name, getattr(part, name, None)) for part in getattr(item, "metadata", [item]) for name in _BOUNDS]


def _describe(hint: Any) -> str:
    """A type hint in words, to be read after "must be"."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _describe(hint.__origin__)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in parts)
    if origin in (typing.Union, types.UnionType):
        words = [_describe(part) for part in parts]
        # What only a program can give, as a tensor for a number, is none of a config's options.
        return " or ".join([word for word in words if not word.startswith(_OBJECT)] or words)
    kind = origin or hint
    if not inspect.isclass(kind):
        return str(hint).removeprefix("typing.")
    if kind is tuple and parts and parts[-1] is not Ellipsis:
        return f"a list of {len(parts)}: " + ", ".join(_describe(part) for part in parts)
    if issubclass(kind, Sequence | set | Mapping) and not issubclass(kind, str):
        each = f" of which each is {_describe(parts[0])}" if parts and not issubclass(kind, Mapping) else ""
        return f"{'a group of options' if issubclass(kind, Mapping) else 'a list'}{each}"
    return _TYPES.get(kind) or f"{_OBJECT} {kind.__name__}"
