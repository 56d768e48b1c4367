"""Checkpoints: written whole or not at all, of one run, and never read with a wrong bit in them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ncflow.checks import error_line
from ncflow.config.schema import ConfigError
from ncflow.results import write_atomically
from ncflow.results.files import check_archive

RUNS = "ncflow/run_ids"
"""Key in a checkpoint: ids of the runs whose state it has."""
OUTCOME = "ncflow/outcome"
"""Key in the checkpoint of a run that was trained with others: how it ended. Nothing can go on from it."""


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any], run_ids: Sequence[str]) -> None:
    """Replace a checkpoint; a crash leaves the old one or the new one whole.

    Args:
        path: The file.
        checkpoint: What is to be kept.
        run_ids: Ids of the runs whose state it is.
    """
    # Through memory: PyTorch's own writer reports a full disk as an internal error.
    buffer = io.BytesIO()
    torch.save({**checkpoint, RUNS: list(run_ids)}, buffer)
    write_atomically(path, buffer.getbuffer())


def read_checkpoint(path: Path, run_ids: Sequence[str]) -> dict[str, Any] | None:
    """A checkpoint that has the state of some runs, on the CPU; None if there is none.

    It is read without running code in it, and refused if a part of it does not have its checksum.

    Args:
        path: The file.
        run_ids: Ids of the runs.

    Raises:
        ConfigError: If the file cannot be read, is damaged, or is of other runs.
    """
    if not path.exists():
        return None
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        content = path.read_bytes()
        check_archive(io.BytesIO(content))
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        owners = checkpoint.get(RUNS)
    except Exception as error:
        raise _refusal(path, f"it cannot be read ({error_line(error, named=True)[:200]})") from error
    if owners is None:
        raise _refusal(path, "it does not say of which run it is")
    if not set(run_ids).issubset(owners):
        raise _refusal(path, f"it is of another run ({', '.join(owners)})")
    return checkpoint


def _refusal(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"the checkpoint is not used: {reason}; delete it to start anew: {path}")


class Checkpoints(TorchCheckpointIO):
    """Lightning's way to the checkpoints of some runs.

    Args:
        run_ids: Their ids.
        saved: What was read already of the checkpoint from which training goes on, None for none.
    """

    def __init__(self, run_ids: Sequence[str], saved: dict[str, Any] | None = None) -> None:
        self._run_ids, self._saved = run_ids, saved

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write."""
        write_checkpoint(Path(path), checkpoint, self._run_ids)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Give what was read already."""
        assert self._saved is not None
        saved, self._saved = self._saved, None  # Lightning keeps what it needs
        return saved
