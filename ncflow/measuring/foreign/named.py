"""Objects that a user names as ``module:function``, and what identifies the files behind them."""

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ncflow.checks import ArgumentError, error_line, require
from ncflow.results.files import file_digest

# Whose classes mean the same in each of their versions.
_KNOWN = {"torch", "torchvision", "timm", "transformers", "lightning", "ncflow"}
_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_name(text: str) -> bool:
    """Whether a text has the form ``module:function``."""
    return _NAME.fullmatch(text) is not None


def named(argument: str, name: str) -> Callable[..., Any]:
    """Import what a user named.

    Args:
        argument: The argument that names it, for errors.
        name: ``module:function``, where the function may be a class or lie in one.

    Raises:
        ArgumentError: If there is no such thing, importing it fails, or it cannot be called.
    """
    require(is_name(name), argument, "of the form module:function", name)
    module, _, inside = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in inside.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever a module of others may raise
        why = error_line(error, named=not isinstance(error, ImportError | AttributeError))
        raise ArgumentError(f"{argument} must name something that can be imported ({why}), found {name!r}") from error
    require(callable(found), argument, "the name of a function or class", name)
    return found


def called(argument: str, name: str, *args: Any, **kwargs: Any) -> Any:
    """What a user's function returns.

    Raises:
        ArgumentError: If it fails.
    """
    function = named(argument, name)
    try:
        return function(*args, **kwargs)
    except Exception as error:  # whatever a function of others may raise
        given = ", ".join(kwargs) or "no arguments"
        raise ArgumentError(
            f"{argument} must be a function that can be called with {given}: {name} failed: "
            f"{error_line(error, named=True)}"
        ) from error


def code_digest(found: Any) -> str:
    """SHA-256 of the file in which a function or class was written, "" where there is none."""
    try:
        file = inspect.getsourcefile(inspect.unwrap(found))
    except TypeError:
        file = None
    return file_digest(Path(file)) if file is not None and Path(file).is_file() else ""


def classes_digest(objects: Iterable[Any]) -> str:
    """SHA-256 of the files in which the classes of some objects were written, but for those of well-known libraries."""
    kinds = {type(one) for one in objects}
    own = {code_digest(kind) for kind in kinds if kind.__module__.partition(".")[0] not in _KNOWN}
    return hashlib.sha256("".join(sorted(own)).encode()).hexdigest()


def files_digest(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 of the names, relative to a folder, and the contents of files; their order does not matter."""
    whole = hashlib.sha256()
    for file in sorted(files):
        whole.update(f"{file.relative_to(folder).as_posix()}\0{file_digest(file)}\n".encode())
    return whole.hexdigest()
