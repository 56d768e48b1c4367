"""Features that a run kept for pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ncflow.results.fields import read_columns
from ncflow.results.files import HISTORY, SNAPSHOTS
from ncflow.results.history import EVERY_COLUMN
from ncflow.results.readable import UnreadableError, leave_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Snapshot(NamedTuple):
    """Last-layer features of some training samples at an epoch, as ``SnapshotFeatures`` keeps them."""

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
    """Snapshots of a run in the order of their epochs; none where the run kept none.

    Those of epochs that its history does not have are of an attempt that was interrupted, and left out. So is a file
    that cannot be read, which is named in a warning of the logger ``ncflow.results``.
    """
    found, last = [], _last_epoch(Path(folder) / HISTORY)
    for file in sorted((Path(folder) / SNAPSHOTS).glob("epoch_*.npz")):
        try:
            snapshot = _read(file)
            if last is None or snapshot.epoch <= last:
                found.append(snapshot)
        except Exception as error:  # what a damaged archive raises in NumPy, zipfile and zlib shares no class
            leave_out(file, error)
    return found


def _last_epoch(history: Path) -> int | None:
    """The last epoch of a history, None if there is none that can be read."""
    try:
        epochs = read_columns(history, EVERY_COLUMN, ("epoch",), ("epoch",))["epoch"]
    except (UnreadableError, OSError):
        return None
    return int(epochs.max()) if len(epochs) else None


def _read(file: Path) -> Snapshot:
    import numpy as np

    if not file.is_file():
        raise UnreadableError("is no file")
    if not file.stem.rpartition("_")[2].isdecimal():
        raise UnreadableError("names no epoch")
    with np.load(file, allow_pickle=False) as arrays:
        missing = [name for name in Snapshot._fields[1:] if name not in arrays]
        if missing:
            raise UnreadableError(f"lacks {', '.join(missing)}")
        snapshot = Snapshot(snapshot_epoch(file), *(arrays[name] for name in Snapshot._fields[1:]))
    shapes = [array.shape for array in snapshot[1:]]
    if [len(shape) for shape in shapes] != [2, 1, 2, 1, 2, 2]:
        raise UnreadableError("has arrays of other dimensions")
    (n, d), (classes, _) = snapshot.features.shape, snapshot.means.shape
    if shapes[:5] != [(n, d), (n,), (classes, d), (d,), (classes, d)] or len(snapshot.inputs) != n:
        raise UnreadableError("has arrays that do not fit each other")
    labels = snapshot.labels
    kinds = "".join(array.dtype.kind for array in snapshot[1:])
    if kinds != "fiffff" or (n and not 0 <= labels.min() <= labels.max() < classes):
        raise UnreadableError("has values that are no features and labels")
    return snapshot
