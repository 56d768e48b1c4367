"""Which code a process runs: the commit it comes from, what was changed since, and what of it is not installed."""

import hashlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import ncflow
from ncflow.results import read_json
from ncflow.runtime.programs import ask

TOLD = "code.json"
"""In a copy of code that was made for a job, the states of what it is a copy of."""

LARGEST_DIFF = 50_000
_SOURCES = (".py", ".yaml", ".yml")
_SECONDS_TO_ANSWER = 20.0
_LIBRARIES = {"site-packages", "dist-packages"}


class Code(NamedTuple):
    """The state of a package or module.

    Attributes:
        state: The commit it comes from and, if it was changed since, a digest of the difference; without git a digest
            of its sources.
        diff: The difference, empty if there is none or if it has more than :data:`LARGEST_DIFF` characters.
    """

    state: str
    diff: str = ""


def code_of(name: str) -> Code | None:
    """The state of an imported package's or module's code, as it was when this process asked first.

    Args:
        name: Of a top-level package or module.

    Returns:
        None for one that is installed: its version tells what it is.
    """
    place = local_code().get(name)
    return None if place is None else _state(name, place)


def own_digest(name: str) -> str | None:
    """Digest of the sources of a user's package or module, which need not be imported, as they were when first asked.

    Args:
        name: Of a top-level package or module.

    Returns:
        None for ncflow, for one that is installed, whose version tells what it is, and for one that is not found.
    """
    if name == "ncflow":
        return None
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):  # the latter of a module without a spec
        return None
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or ""]
    place = Path(places[0]).absolute() if places else None
    known = place is not None and place.exists() and not is_library(place)
    return _first_digest(place)[:12] if place is not None and known else None


@cache
def _first_digest(place: Path) -> str:
    return digest(place)


def local_code() -> dict[str, Path]:
    """What was imported from elsewhere than the libraries of this environment: package folders and module files.

    Parts of namespace packages, such as plugins, are left out, as is the script that is run.
    """
    found = {}
    for name, module in sorted(sys.modules.copy().items()):
        file = getattr(module, "__file__", None)
        if "." in name or name == "__main__" or not isinstance(file, str) or not file.endswith(".py"):
            continue
        path = Path(file).absolute()
        if not is_library(path):
            found[name] = path.parent if path.name == "__init__.py" else path
    return found


def is_library(path: Path) -> bool:
    """Whether a path is among the libraries of this environment, Python's own included."""
    return not _LIBRARIES.isdisjoint(path.parts) or any(path.is_relative_to(folder) for folder in _libraries())


@cache
def _libraries() -> tuple[Path, ...]:
    return tuple({Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def sources(place: Path) -> Iterator[Path]:
    """The files of a package folder, those of caches and hidden ones left out, or the file of a module, in order."""
    if place.is_file():
        yield place
        return
    for folder, folders, files in os.walk(place):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


@cache
def _state(name: str, place: Path) -> Code:
    told = (read_json(Path(ncflow.__file__).parents[1] / TOLD) or {}).get(name)
    if isinstance(told, list) and len(told) == 2 and all(isinstance(part, str) for part in told):
        return Code(*told)
    return _git_state(place) or Code(f"sha256 {digest(place)[:12]}")


def digest(place: Path) -> str:
    """SHA-256 of the names and contents of the sources of a package folder or module file."""
    found = hashlib.sha256()
    for path in sources(place):
        if path.suffix in _SOURCES:
            content = path.read_bytes()
            relative = path.relative_to(place.parent).as_posix()
            found.update(f"{relative}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


def _git_state(place: Path) -> Code | None:
    """By git; None if it has nothing of this code."""
    # As seen from the folder. What lies below that of a single module may be anything, runs for example.
    folder = place if place.is_dir() else place.parent
    specs = [f":(glob)**/*{suffix}" for suffix in _SOURCES] if place.is_dir() else [":(glob)*.py"]
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None or not _git(folder, "ls-files", "--", *specs):
        return None
    diff = _git(folder, "diff", "HEAD", "--no-color", "--no-ext-diff", "--", *specs)
    new = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *specs)
    if diff is None or new is None:
        return None
    for name in filter(None, new.split("\0")):
        diff += _git(folder, "diff", "--no-color", "--no-ext-diff", "--no-index", "--", os.devnull, name) or ""
    commit = commit.strip()
    if not diff:
        return Code(commit)
    mark = hashlib.sha256(diff.encode(errors="replace")).hexdigest()[:8]
    return Code(f"{commit}, changed {mark}", diff if len(diff) <= LARGEST_DIFF else "")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None if it cannot be asked or does not know. Comparing files, 1 says that they differ."""
    command = ["git", "-C", str(folder), *arguments]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = ask(command, _SECONDS_TO_ANSWER, environment)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 or (done.returncode == 1 and "--no-index" in arguments) else None
