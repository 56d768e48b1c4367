"""The network of a finished run, as it was trained."""

from pathlib import Path

import torch
from torch import nn

from ncflow.checks import require
from ncflow.data.base import InMemoryData
from ncflow.training.remeasured import kept_of, states_of


def load_network(folder: Path | str, epoch: int | None = None) -> tuple[nn.Module, InMemoryData]:
    """The network of a run, in evaluation mode and on the CPU, and the data that it was trained on.

    Args:
        folder: The run's own folder.
        epoch: Of whose end, where ``checkpoint.keep_every_n_epochs`` kept it; None for the last.

    Raises:
        ArgumentError: If the folder has no run, or no weights of that epoch.
        ConfigError: If the checkpoint is damaged, or data or model cannot be built any more.
    """
    kept = kept_of(Path(folder))
    chosen = max(kept.files) if epoch is None else epoch
    require(chosen in kept.files, "epoch", f"one whose weights are there ({', '.join(map(str, kept.files))})", epoch)
    data, classifier = states_of(kept.cfg, torch.device("cpu"))
    classifier.load_state_dict(kept.state(chosen)["state_dict"])
    return classifier.network.eval(), data
