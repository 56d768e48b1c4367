"""File names of a run, atomic writes, and reads that no damaged file can stop."""

import hashlib
import json
import math
import os
import time
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

RESULT = "result.json"  # written last: it means done
RUN = "run.json"  # written first: the config, and why a run failed
JOB = "job.json"  # written by the SLURM launcher before the job starts: the config, the job and its log
PROGRESS = "progress.json"  # finished epochs, epochs in all, and training seconds so far over all attempts
HISTORY = "history.csv"
MARGINS = "margins.csv"  # quantiles of the training margins, if they were asked for
CLASSES = "classes.csv"  # values by class at each measurement, if they were asked for
PAIRS = "pairs.csv"  # values by pair of classes likewise
SNAPSHOTS = "snapshots"  # features of some samples at each measurement, if they were asked for
CHECKPOINT = Path("checkpoints") / "last.ckpt"
KEPT = "checkpoints/epoch=*.ckpt"  # weights alone, after that many epochs, if they were asked for
LOG = "ncflow.log"
OVERRIDES = Path(".hydra") / "overrides.yaml"  # the words of the command that made it
CODE_DIFF = "code.*.diff"  # what was changed in the code since its commit, by the digest that result.json names
LOCK = ".lock"
DIGEST = "sha256/"  # in result.json, before the name of a table: the digest of what the run wrote
TEMPORARY = ".tmp"

_LOOKS_AT_TEMPORARY, _SECONDS_BETWEEN_LOOKS = 10, 0.05


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_archive(file: Path | BinaryIO) -> None:
    """Refuse an archive with a wrong bit: PyTorch writes checksums of its parts, and reads without looking at them.

    Raises:
        ValueError: Naming the part.
    """
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} in it is damaged")


def kept_checkpoint(folder: Path, epoch: int) -> Path:
    """The file of a run's weights after so many epochs."""
    return folder / KEPT.replace("*", f"{epoch:03d}")


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Replace a file so that a reader, or a crash at any moment, sees the old or the new content, never a part.

    The new content has one temporary name for each file, so that what a killed process left there is written over by
    the next one, and no such file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    file = _open_temporary(temporary)
    try:
        with file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open_temporary(path: Path) -> BinaryIO:
    """Open a temporary file for writing, after a moment in which another process may be done with it."""
    for _ in range(_LOOKS_AT_TEMPORARY):
        try:
            return path.open("xb")
        except FileExistsError:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    refuse_irregular(path)
    return path.open("wb")


def refuse_irregular(path: Path) -> None:
    """Refuse to write to what is there and is no file: to open a pipe would wait for somebody who reads it.

    Raises:
        OSError: If it is no file.
    """
    if os.path.lexists(path) and not path.is_file():
        raise OSError(f"{path} must be a file or nothing")


def make_folder(path: Path) -> list[Path]:
    """Make a folder and those above it; return the new ones, from the inside out.

    Raises:
        OSError: If it cannot be made, or is a file. What was made until then is gone again.
    """
    above = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    made: list[Path] = []
    try:
        for folder in reversed(above):
            with suppress(FileExistsError):  # another process was faster
                folder.mkdir()
                made.insert(0, folder)
        path.mkdir(exist_ok=True)
    except OSError:
        remove_empty(made)
        raise
    return made


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that this process made, from the inside out; one that is not empty any more stays."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a flat mapping atomically; NaN and infinities become null, which every JSON reader knows."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
    write_atomically(path, json.dumps(plain, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a file; None if there is no file, or no whole mapping in it.

    Raises:
        OSError: If there is a file that may not be read.
    """
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
