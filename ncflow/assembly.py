"""From a config to what a run is made of, checked: data, model, trainer and its checkpoints, logger."""

import inspect
import logging
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Callback, Trainer
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ncflow import processes
from ncflow.checkpoints import Checkpoints
from ncflow.checks import ArgumentError
from ncflow.config import ConfigError, build, check_fields, locate
from ncflow.data.base import InMemoryData
from ncflow.features import resolve_layers
from ncflow.loggers import under_agent, wandb_logger
from ncflow.models import Classifier
from ncflow.seeding import derive_seed

# Of the options in conf/trainer, those that are ours rather than lightning.Trainer's.
_OWN_TRAINER_OPTIONS = ("_target_", "threads", "channels_last")


def prepare(cfg: DictConfig, data: InMemoryData | None = None) -> tuple[InMemoryData, Classifier]:
    """Build data and model, and check everything that can be checked without training.

    Args:
        cfg: The config.
        data: Of :func:`prepare_data` for this config, None to build it.

    Raises:
        ConfigError: One line that names the option, its rule and the value found.
    """
    check_fields(cfg)
    data = prepare_data(cfg) if data is None else data
    assert data.train is not None
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(cfg.seed, "init"))
        network = build(
            cfg, "model", input_shape=data.input_shape, num_classes=data.num_classes, num_samples=len(data.train.labels)
        )
    for group, check in (
        ("data", data.check_network),
        ("measure", partial(resolve_layers, layers=measured_layers(cfg))),
    ):
        try:
            check(network)
        except ArgumentError as error:
            raise ConfigError(f"{group}.{error}") from error
    classifier = Classifier(
        network,
        build(cfg, "loss"),
        partial(_optimizer, cfg),
        partial(_scheduler, cfg),
        cfg.weight_decay,
        cfg.weight_decay_scope,
    )
    classifier.configure_optimizers()  # now, not in the first epoch, is the time to refuse their options
    _trainer_options(cfg)
    if processes.wanted(cfg.trainer) > 1:
        _check_shared(cfg, network)
    return data, classifier


def check(cfg: DictConfig, data: InMemoryData | None = None) -> tuple[InMemoryData, Classifier]:
    """Check all that can be checked before training, and give what :func:`prepare` gives; nothing is written.

    Raises:
        ConfigError: One line that names the option, its rule and the value found.
    """
    prepared = prepare(cfg, data)
    set_up_process(cfg)
    make_trainer(cfg, Path(), [], False, Checkpoints([]))
    check_logger(cfg)
    return prepared


def prepare_data(cfg: DictConfig) -> InMemoryData:
    """Build and load the data of a config.

    Raises:
        ConfigError: One line that names the option, its rule and the value found.
    """
    data = build(cfg, "data", seed=cfg.seed, batch_size=cfg.batch_size)
    try:
        data.setup()
    except ArgumentError as error:
        raise ConfigError(f"data.{error}" if not str(error).startswith("seed") else str(error)) from error
    return data


def _check_shared(cfg: DictConfig, network: nn.Module) -> None:
    """Refuse what would give other numbers on several devices than on one.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    number = processes.wanted(cfg.trainer)
    where = f"where {number} devices share a run"
    if cfg.batch_size is not None and cfg.batch_size < number:
        raise ConfigError(f"batch_size must be at least {number} {where}, found {cfg.batch_size}")
    normalizes = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    synchronized = cfg.trainer.get("sync_batchnorm", False)
    if normalizes and not synchronized:
        reason = "each would normalise by its own part of a batch"
        raise ConfigError(f"trainer.sync_batchnorm must be true for BN {where} ({reason}), found {synchronized!r}")
    if normalizes and cfg.trainer.accelerator == "cpu":
        raise ConfigError(f"trainer.accelerator must be gpu for BN {where}: PyTorch synchronises BN on GPUs alone")
    for name in ("margins", "snapshot_samples"):
        if cfg.measure[name]:
            raise ConfigError(f"measure.{name} must be null {where}, found {cfg.measure[name]!r}")


def measured_layers(cfg: DictConfig) -> Any:
    """The field ``measure.layers``: a word or a list of names."""
    layers = cfg.measure.layers
    return OmegaConf.to_container(layers) if OmegaConf.is_config(layers) else layers


def _optimizer(cfg: DictConfig, groups: list[dict[str, Any]]) -> Any:
    return build(cfg, "optimizer", params=groups)


def _scheduler(cfg: DictConfig, optimizer: torch.optim.Optimizer) -> Any:
    return build(cfg, "scheduler", optimizer=optimizer, epochs=cfg.epochs)


def _trainer_options(cfg: DictConfig) -> dict[str, Any]:
    options = OmegaConf.to_container(cfg.trainer, resolve=True)
    assert isinstance(options, dict)
    named = {str(key): value for key, value in options.items() if key not in _OWN_TRAINER_OPTIONS}
    known = inspect.signature(Trainer).parameters
    for name in named:
        if name not in known:
            raise ConfigError(f"trainer.{name} must be an argument of lightning.Trainer")
    for name in ("devices", "num_nodes"):
        if type(named.get(name)) is not int or named[name] < 1:
            raise ConfigError(f"trainer.{name} must be a whole number of at least 1, found {named.get(name)!r}")
    wanted, launched = processes.wanted(named), processes.launched()
    if launched not in (1, wanted):
        rule = f"{launched}, the number of processes that were started"
        raise ConfigError(f"trainer.devices x trainer.num_nodes must be {rule}, found {wanted}")
    if not isinstance(options.get("channels_last"), bool):
        raise ConfigError(f"trainer.channels_last must be true or false, found {options.get('channels_last')!r}")
    threads = cfg.trainer.threads
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ConfigError(f"trainer.threads must be a whole number of at least 1, found {threads!r}")
    return named


def make_trainer(
    cfg: DictConfig, folder: Path, callbacks: list[Callback], logger: Any, checkpoints: Checkpoints
) -> Trainer:
    """The Trainer of a config.

    Args:
        cfg: The config.
        folder: Where training takes place.
        callbacks: Those of the run.
        logger: Of :func:`make_logger`.
        checkpoints: Those of the runs that it trains.

    Raises:
        ConfigError: For an option that Lightning refuses.
    """
    given = {
        "max_epochs": cfg.epochs,
        "default_root_dir": folder,
        "logger": logger,
        "callbacks": callbacks,
        "plugins": [checkpoints],
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10**9,
    }
    try:
        return locate("trainer", cfg.trainer._target_)(**{**_trainer_options(cfg), **given})
    except Exception as error:  # Lightning raises many kinds for options that it refuses
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error


def check_logger(cfg: DictConfig) -> None:
    """Refuse a logger that there is not.

    Raises:
        ConfigError: For an unknown ``logger.name``, and for a sweep under a ``wandb agent``: all of its runs would be
            the one that the agent asks for.
    """
    kind = cfg.logger.name
    if kind not in ("csv", "none", "wandb"):
        raise ConfigError(f"logger.name must be one of 'csv', 'none', 'wandb', found {kind!r}")
    sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if kind == "wandb" and under_agent() and sweep:
        raise ConfigError("hydra.mode must be RUN under a wandb agent, found MULTIRUN")


def make_logger(cfg: DictConfig, folder: Path, described: Mapping[str, Any]) -> Any:
    """Lightning's logger of a run; False where its own files are enough.

    Raises:
        ConfigError: As of :func:`check_logger`.
    """
    check_logger(cfg)
    if cfg.logger.name != "wandb" or processes.rank() > 0:
        return False
    return wandb_logger(folder, described, cfg.logger.project, cfg.logger.entity)


def set_up_process(cfg: DictConfig) -> None:
    """Threads and floating-point mode for training.

    Lightning's notes on devices and its advice are silenced: they are not about this run; its errors are.
    """
    _trainer_options(cfg)
    torch.set_num_threads(int(cfg.trainer.threads))
    # Weight decay drives the weights of dead units into denormal range, where a CPU is many times slower.
    torch.set_flush_denormal(True)
    for library in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
