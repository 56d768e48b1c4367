"""What a run leaves on disk: file names, atomic writes, and a whole sweep as one table."""

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

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

MEASURES = (
    "loss",
    "accuracy",
    "interpolated",
    "intra_min",
    "intra_mean",
    "intra_quantile",
    "inter_max",
    "inter_mean",
    "inter_quantile",
    "nc1",
    "nc1_trace_ratio",
    "cdnv",
    "nc1_rank",
    "nc2_equinorm_means",
    "nc2_equinorm_weights",
    "nc2_equiangular_means",
    "nc2_equiangular_weights",
    "nc2_etf_error",
    "nc3_cosine_min",
    "nc3_cosine_mean",
    "nc3_distance",
    "nc3_etf_error",
    "nc4_agreement",
    "ncc_accuracy",
    "feature_rms_norm",
    "weight_norm",
    "gamma_norm",
    "feature_rank",
    "classes_present",
    "nonfinite_samples",
    "regularized_loss",
    "loss_gap",
    "regularized_loss_gap",
    "margin_min",
    "margin_mean",
    "margin_std",
    "rho",
    "rho_folded",
    "normalized_margin_min",
    "normalized_margin_mean",
    "normalized_margin_std",
    "normalized_margin_square",
    "quasi_gap",
    "quasi_spread",
    "quasi_residual_means",
    "quasi_residual_norms",
)
COLUMNS = ("epoch", "split", "layer", *MEASURES)

# q000, q025, ..., q1000, named in thousandths: every 2.5 % from the smallest margin to the largest.
MARGIN_QUANTILES = tuple(f"q{thousandths:03d}" for thousandths in range(0, 1001, 25))
MARGIN_COLUMNS = ("epoch", "step", "rho", "samples", *MARGIN_QUANTILES)

LAST_LAYER = "last"  # the classifier's input, under ``layer``
DONE, DIVERGED, FAILED, RUNNING, INTERRUPTED = "done", "diverged", "failed", "running", "interrupted"
PENDING = "pending"
_OF_THE_JOB = ("job", "log")  # in job.json beside the config


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


def lock(folder: Path) -> FileLock:
    """Lock of a run's folder, to be acquired with ``timeout=0``; the system frees it when its process dies."""
    return FileLock(folder / LOCK)


def is_locked(folder: Path) -> bool:
    """Whether a living process is at work in the folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        with lock(folder).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a folder that we may read but not write, or one without flock
        return False


class History:
    """The growing ``history.csv`` of a run, or another table that grows as it does.

    Args:
        path: The file; it is created with the first row.
        columns: Its columns.
        counter: The column of whole numbers by which a row is before or after a checkpoint.
    """

    def __init__(self, path: Path, columns: Sequence[str] = COLUMNS, counter: str = "epoch") -> None:
        self.path, self.columns, self.counter = path, columns, counter

    def restart_after(self, last: int | None) -> None:
        """Keep the rows up to an epoch, or another count, and drop later ones and a torn last line; None drops all.

        Kept values are rewritten letter by letter, under this version's columns.
        """
        if not self.path.exists():
            return
        lines = self.path.read_text().splitlines(keepends=True)
        if last is None or not lines:
            self.path.unlink()
            return
        header = lines[0].rstrip("\n").split(",")
        whole = [line for line in lines[1:] if line.endswith("\n") and line.count(",") == len(header) - 1]
        rows = [dict(zip(header, line.rstrip("\n").split(","), strict=True)) for line in whole]
        rows = [row for row in rows if int(row[self.counter]) <= last]
        kept = [",".join(row.get(column, "") for column in self.columns) for row in rows]
        write_atomically(self.path, "".join(f"{line}\n" for line in [",".join(self.columns), *kept]))

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; a measure that a row does not have is left empty. Floats keep every digit."""
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n", extrasaction="raise")
            if new:
                writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())


def final_measures(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Measures of the final rows under the names of ``result.json``: ``train/intra_min``, ``train/<layer>/...``."""
    named: dict[str, float] = {}
    for row in rows:
        prefix = row["split"] if row["layer"] == LAST_LAYER else f"{row['split']}/{row['layer']}"
        named |= {f"{prefix}/{name}": row[name] for name in MEASURES if name in row}
    return named


def run_folders(*folders: Path | str) -> list[Path]:
    """Folders of runs, submitted ones included, at or below the given ones, in order of their paths, each once.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    found: dict[Path, None] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}")
        for parent, _, files in os.walk(folder):
            if not {RESULT, RUN, JOB}.isdisjoint(files):
                found[Path(parent)] = None
    return sorted(found)


def status_of(folder: Path) -> tuple[str, dict[str, Any]]:
    """A run's status and what it left: its result where it is done, else what it started or was submitted with."""
    result = _result(folder)
    locked = result is None and is_locked(folder)
    if result is None and not locked:
        result = _result(folder)  # it may have ended between the two looks
    if result is not None:
        return result["status"], result
    started, submitted = read_json(folder / RUN), read_json(folder / JOB)
    if locked:
        return RUNNING, started or submitted or {}
    if started is None and submitted is not None:
        return PENDING, submitted
    started = started or {}
    return (FAILED if started.get("status") == FAILED else INTERRUPTED), started


def _result(folder: Path) -> dict[str, Any] | None:
    """What a run wrote at its end, None before and where the file is another program's."""
    result = read_json(folder / RESULT)
    return result if result is not None and isinstance(result.get("status"), str) else None


def load_runs(*folders: Path | str) -> "pd.DataFrame":
    """A row a run: config columns under their dotted names, final measures, ``status``, ``folder``.

    Args:
        folders: Folders that hold runs at any depth.

    Returns:
        Finished, diverged, failed, interrupted, running and pending runs; what a run does not have is missing.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    import pandas as pd

    rows = []
    for folder in run_folders(*folders):
        status, values = status_of(folder)
        config = {name: value for name, value in values.items() if name not in _OF_THE_JOB}
        rows.append({**config, "status": status, "folder": str(folder)})
    return pd.DataFrame(rows)


def load_history(*folders: Path | str) -> "pd.DataFrame":
    """A row per run, epoch, split and layer: ``run_id``, ``folder`` and the columns of ``history.csv``.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    return _load_tables(HISTORY, COLUMNS, folders)


def load_margins(*folders: Path | str) -> "pd.DataFrame":
    """A row per run and measurement: ``run_id``, ``folder`` and the columns of ``margins.csv``.

    Raises:
        FileNotFoundError: If a folder does not exist.
    """
    return _load_tables(MARGINS, MARGIN_COLUMNS, folders)


def _load_tables(name: str, columns: Sequence[str], folders: Iterable[Path | str]) -> "pd.DataFrame":
    import pandas as pd

    parts = []
    for folder in run_folders(*folders):
        if (folder / name).exists():
            part = pd.read_csv(folder / name, on_bad_lines="skip", float_precision="round_trip")
            identity = status_of(folder)[1].get("run_id")
            parts.append(part.assign(run_id=identity, folder=str(folder)))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*columns, "run_id", "folder"])


class Snapshot(NamedTuple):
    """Last-layer features of some training samples at an epoch (see :class:`ncflow.snapshots.SnapshotFeatures`)."""

    epoch: int
    features: "NDArray[np.float32]"  # (n, d)
    labels: "NDArray[np.int64]"  # (n,)
    means: "NDArray[np.float32]"  # (C, d), over all samples
    center: "NDArray[np.float32]"  # (d,), over all samples
    weight: "NDArray[np.float32]"  # (C, d)
    inputs: "NDArray[np.float32]"  # (n, D) where D <= 3, else (n, 0)


def snapshot_epoch(file: Path) -> int:
    """Epoch of a snapshot's file."""
    return int(file.stem.rpartition("_")[2])


def load_snapshots(folder: Path | str) -> list[Snapshot]:
    """Snapshots of a run in the order of their epochs; none where the run kept none."""
    import numpy as np

    found = []
    for file in sorted((Path(folder) / SNAPSHOTS).glob("epoch_*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            found.append(Snapshot(snapshot_epoch(file), *(arrays[name] for name in Snapshot._fields[1:])))
    return found
