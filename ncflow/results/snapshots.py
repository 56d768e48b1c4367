"""Features that a run kept for pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ncflow.results.files import SNAPSHOTS
from ncflow.results.readable import UnreadableError, leave_out

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
    """Snapshots of a run in the order of their epochs; none where the run kept none.

    A file that cannot be read is left out and named in a warning of the logger ``ncflow.results``.
    """
    found = []
    for file in sorted((Path(folder) / SNAPSHOTS).glob("epoch_*.npz")):
        try:
            found.append(_read(file))
        except Exception as error:  # what a damaged archive raises in NumPy, zipfile and zlib shares no class
            leave_out(file, error)
    return found


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
