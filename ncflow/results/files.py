"""File names of a run, atomic writes, and reads that no damaged file can stop."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULT = "result.json"  # written last: it means done
RUN = "run.json"  # written first: the config, and why a run failed
JOB = "job.json"  # written by the SLURM launcher before the job starts: the config, the job and its log
PROGRESS = "progress.json"  # finished epochs, epochs in all, and training seconds so far over all attempts
HISTORY = "history.csv"
MARGINS = "margins.csv"  # quantiles of the training margins, where they were asked for
SNAPSHOTS = "snapshots"  # features of some samples at each measurement, where they were asked for
CHECKPOINT = Path("checkpoints") / "last.ckpt"
LOG = "ncflow.log"
LOCK = ".lock"


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Replace a file so that a reader, or a crash at any moment, sees the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a flat mapping atomically; NaN and infinities become null, which every JSON reader knows."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
    write_atomically(path, json.dumps(plain, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a file, or None where there is no file or no whole one."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
