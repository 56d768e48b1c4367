"""Columns of a run's description that are more than a value: what its numbers depend on, where they come from."""

from collections.abc import Sequence

NOT_IDENTITY = (
    "runs_dir",
    "figures",
    "logger",
    "checkpoint",
    "measure.batch_size",
    "measure.again",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.sync_batchnorm",
    "trainer.threads",
    "trainer.channels_last",
    "trainer.profiler",
    "data.data_dir",
    "data.download",
    "measure.ood.data_dir",
    "measure.ood.download",
)
"""Options that change where or how fast a run is computed, or where it is written, but not its numbers."""

SPLITS = ("train/", "test/")
"""Columns of final measures begin so."""

SOURCE = "source/"
"""Before the name of a user's package or module: a digest of its sources."""

PROVENANCE = ("code/", "version/", SOURCE)
"""Columns that begin so say what a run's numbers may depend on beside its config."""

REMEASURED = "remeasured."
"""Columns that begin so say how a run was measured again that had been trained before."""

AGAIN = f"{REMEASURED}run_id"
"""The run whose training a run is that was measured again."""

DATA_DIGEST = "data.digest"
"""Beside a run's config: of what is in the file of its data, 12 hex digits."""


def is_left_out(option: str, left_out: Sequence[str] = NOT_IDENTITY) -> bool:
    """Whether an option, by its dotted name, does not count for what a run is."""
    return any(option == name or option.startswith(f"{name}.") for name in left_out)
