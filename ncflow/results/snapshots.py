"""Features that a run kept for pictures."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ncflow.results.files import SNAPSHOTS

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
    """Snapshots of a run in the order of their epochs; none where the run kept none."""
    import numpy as np

    found = []
    for file in sorted((Path(folder) / SNAPSHOTS).glob("epoch_*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            found.append(Snapshot(snapshot_epoch(file), *(arrays[name] for name in Snapshot._fields[1:])))
    return found
