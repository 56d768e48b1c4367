"""The cells of a sweep, before any of them runs."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict, read_write


def compose(
    context: HydraContext, sweep: DictConfig, overrides: Sequence[str], number: int | None = None
) -> DictConfig:
    """Config of a cell with Hydra's own part, which ``${hydra:...}`` refers to from then on.

    Args:
        context: As Hydra gives it to its plugins.
        sweep: The config of the sweep.
        overrides: Those of the cell.
        number: Of the cell in the sweep, if it is known.
    """
    cfg = context.config_loader.load_sweep_config(sweep, list(overrides))
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        if number is not None:
            cfg.hydra.job.id = cfg.hydra.job.num = number
        cfg.hydra.runtime.output_dir = str(folder_of(cfg).absolute())
    HydraConfig.instance().set_config(cfg)
    return cfg


def folder_of(cfg: DictConfig) -> Path:
    """Folder of a composed cell."""
    return Path(str(cfg.hydra.sweep.dir)) / str(cfg.hydra.sweep.subdir)
