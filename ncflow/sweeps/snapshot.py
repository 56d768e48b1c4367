"""The code of a sweep that is submitted: a copy of it, which the jobs run whatever happens to the code meanwhile."""

import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import ncflow
from ncflow.config.schema import ConfigError
from ncflow.results.files import write_json
from ncflow.runtime.code import TOLD, code_of, digest, is_library, local_code, sources

_PLUGINS = Path("ncflow") / "sweeps" / "plugin"  # as below the folder of the package
_MOST_FILES, _LARGEST_FILE = 5000, 2**20


def code_to_run() -> dict[str, Path]:
    """What a job should find as it is now: ncflow, and what was imported and is not installed."""
    return local_code() | {"ncflow": Path(ncflow.__file__).parent}


def take(code: Mapping[str, Path], folder: Path) -> Path:
    """Copy code into a folder that is named by what is in it; one that is there already is used again.

    Of packages, caches, hidden files and files of more than 1 MiB are left out.

    Args:
        code: As :func:`code_to_run` gives it.
        folder: The folder above.

    Raises:
        ConfigError: If there is too much of it, or a copy is not what its name says.
        OSError: If it cannot be copied.
    """
    files = {name: [path for path in sources(place) if _is_small(path)] for name, place in code.items()}
    for name, found in files.items():
        if len(found) > _MOST_FILES:
            rule = f"false where a package of the sweep's code has more than {_MOST_FILES} files"
            raise ConfigError(f"hydra.launcher.snapshot must be {rule}, found {len(found)} in {code[name]}")
    digests = {name: digest(place) for name, place in sorted(code.items())}
    copy = folder / hashlib.sha256(repr(digests).encode()).hexdigest()[:12]
    if not copy.exists():
        made = copy.with_name(f".{copy.name}.{os.getpid()}")
        made.mkdir(parents=True)
        for name, found in files.items():
            for path in found:
                target = made / path.relative_to(code[name].parent)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        states = {name: code_of(name) for name in code}
        write_json(made / TOLD, {name: list(state) for name, state in states.items() if state is not None})
        try:
            made.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(made)
    changed = [name for name in digests if digest(_below(copy, code[name])) != digests[name]]
    if changed:
        raise ConfigError(f"{_below(copy, code[changed[0]])} must be what the jobs of its sweep run, found it changed")
    return copy


def lines_to_run(copy: Path) -> list[str]:
    """Lines of a shell that let a job run a copy of :func:`take`, and find the rest where this process does."""
    own = [entry or os.getcwd() for entry in sys.path]
    rest = [entry for entry in own if Path(entry).is_dir() and not is_library(Path(entry).absolute())]
    places = [copy, copy / _PLUGINS, *dict.fromkeys(str(Path(entry).absolute()) for entry in rest)]
    path = shlex.quote(os.pathsep.join(map(str, places)))
    # The folder in which a job works comes first in what it imports from, unless it is told not to.
    return [f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1"]


def check_unchanged(code: Mapping[str, tuple[Path, str]]) -> None:
    """Refuse code that is not what it was.

    Args:
        code: Places and their digests.

    Raises:
        ConfigError: Naming the place.
    """
    for place, known in code.values():
        if not place.exists() or digest(place) != known:
            way = "submit again, or with hydra.launcher.snapshot=true"
            raise ConfigError(f"{place} must be the code that was submitted, found it changed: {way}")


def _below(copy: Path, place: Path) -> Path:
    return copy / place.name


def _is_small(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= _LARGEST_FILE
