"""Who is told of a run beside its files: the loggers that its config asks for."""

import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from ncflow.config.identity import describe_for_wandb
from ncflow.config.schema import ConfigError
from ncflow.results import RunFolder
from ncflow.runtime import processes
from ncflow.runtime.run_loggers import MLflowRunLogger, TensorBoardRunLogger, missing_package
from ncflow.runtime.wandb_logger import wandb_logger
from ncflow.runtime.wandb_runs import under_agent


def check_logger(cfg: DictConfig) -> None:
    """Refuse a logger that there is not.

    Raises:
        ConfigError: If its package is missing; and for a sweep under a ``wandb agent``, whose runs would all be the one
            that the agent asks for.
    """
    sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if cfg.logger.name == "wandb" and under_agent() and sweep:
        raise ConfigError("hydra.mode must be RUN under a wandb agent, found MULTIRUN")
    missing = missing_package(cfg.logger.name)
    if missing is not None:
        raise ConfigError(missing)


def make_loggers(cfg: DictConfig, folder: RunFolder) -> list[Any]:
    """Lightning's loggers of a run; none if its own files are enough.

    Raises:
        ConfigError: As of :func:`check_logger`.
    """
    check_logger(cfg)
    if processes.rank() > 0:
        return []
    if cfg.logger.name == "tensorboard":
        return [TensorBoardRunLogger(folder.path, folder.described)]
    if cfg.logger.name == "mlflow":
        own = f"sqlite:///{Path(str(cfg.runs_dir)).absolute() / 'mlflow.db'}"
        place = cfg.logger.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or own
        return [MLflowRunLogger(folder.path, folder.described, place)]
    if cfg.logger.name != "wandb":
        return []
    alerts = bool(cfg.logger.get("alerts"))  # a config that was written before there were any has none
    described = describe_for_wandb(cfg, folder.described)
    return [wandb_logger(folder.path, described, cfg.logger.project, cfg.logger.entity, alerts)]
