"""From a config to what a run is made of, checked: data, model, trainer and its checkpoints, logger."""

import copy
import inspect
import logging
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Callback, Trainer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ncflow.checks import ArgumentError
from ncflow.config.build import BUILD_ERRORS, build, check_types, locate
from ncflow.config.schema import ConfigError
from ncflow.config.validate import check_fields
from ncflow.data.base import InMemoryData
from ncflow.data.batches import batch_bounds
from ncflow.data.memory import free_memory, in_words
from ncflow.measuring.features import resolve_layers
from ncflow.models import Classifier
from ncflow.runtime import processes
from ncflow.runtime.wandb_logger import under_agent, wandb_logger
from ncflow.seeding import derive_seed
from ncflow.training.checkpoints import Checkpoints

# Of the options in conf/trainer, those that are ours rather than lightning.Trainer's.
_OWN_TRAINER_OPTIONS = ("_target_", "threads", "channels_last")
_MOST_DEVICES, _MOST_NODES, _MOST_THREADS = 1024, 65536, 1024
_LENGTH = "epochs is what sets how long a run is"
_IDLE = "it does nothing in a run of ncflow"
# Arguments of lightning.Trainer that ncflow sets itself, that do nothing here, or that would break a run or resuming.
_NOT_TRAINER_OPTIONS = {
    **dict.fromkeys(("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"), _LENGTH),
    "fast_dev_run": "epochs=1 is a short run",
    "logger": "logger=csv, none or wandb is what sets it",
    "default_root_dir": "runs_dir is what sets it",
    **dict.fromkeys(("overfit_batches", "limit_train_batches"), "data.num_samples is what limits the training data"),
    **dict.fromkeys(("callbacks", "plugins", "enable_checkpointing", "barebones"), "ncflow needs its own"),
    **dict.fromkeys(("enable_progress_bar", "enable_model_summary", "log_every_n_steps"), "ncflow has its own"),
    "profiler": "profile the program instead",
    **dict.fromkeys(("limit_val_batches", "limit_test_batches", "limit_predict_batches"), _IDLE),
    **dict.fromkeys(("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps", "inference_mode"), _IDLE),
    **dict.fromkeys(("use_distributed_sampler", "reload_dataloaders_every_n_epochs"), _IDLE),
    **dict.fromkeys(("enable_autolog_hparams", "model_registry"), _IDLE),
}


class _TrainerOptions:
    """The arguments of lightning.Trainer that a config may set, with their types."""

    def __init__(
        self,
        *,
        accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto",
        devices: int = 1,
        num_nodes: int = 1,
        strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = "auto",
        precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = "32-true",
        deterministic: bool | Literal["warn"] | None = False,
        benchmark: bool | None = None,
        sync_batchnorm: bool = False,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Literal["norm", "value"] | None = None,
        accumulate_grad_batches: int = 1,
        detect_anomaly: bool = False,
    ) -> None:
        """Never called: the signature alone is read."""


def prepare(cfg: DictConfig, data: InMemoryData | None = None) -> tuple[InMemoryData, Classifier]:
    """Build data and model, and check everything that can be checked without training.

    Args:
        cfg: The config.
        data: Of :func:`prepare_data` for this config, None to build it.

    Raises:
        ConfigError: One line that names the option, its rule and the value found.
    """
    check_fields(cfg)
    _trainer_options(cfg)
    data = prepare_data(cfg) if data is None else data
    assert data.train is not None
    network = _network(cfg, data)
    for group, check in (
        ("data", data.check_network),
        ("measure", partial(resolve_layers, layers=measured_layers(cfg))),
    ):
        try:
            check(network)
        except ArgumentError as error:
            raise ConfigError(f"{group}.{error}") from error
    loss = build(cfg, "loss")
    _check_loss(loss, data.num_classes)
    _check_smallest_batch(cfg, data, network)
    classifier = Classifier(
        network,
        loss,
        partial(_optimizer, cfg),
        partial(_scheduler, cfg),
        cfg.weight_decay,
        cfg.weight_decay_scope,
    )
    # Now, not in the first epoch, is the time to refuse their options.
    try:
        _check_optimizer(cfg, classifier.configure_optimizers())
    except ArgumentError as error:
        raise ConfigError(str(error)) from error
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
    if not _is_submitted():  # the machine that submits may not have the devices
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
    except BUILD_ERRORS as error:
        raise ConfigError(f"data cannot be made: {_one_line(error)}") from error
    return data


def _network(cfg: DictConfig, data: InMemoryData) -> nn.Module:
    """Build the model from the run's seed, if its weights fit into memory."""
    assert data.train is not None
    given = {"input_shape": data.input_shape, "num_classes": data.num_classes, "num_samples": len(data.train.labels)}
    with torch.random.fork_rng():
        try:
            with torch.device("meta"):  # shapes without numbers
                outline = build(cfg, "model", **given)
        except ConfigError as error:
            if isinstance(error.__cause__, ArithmeticError) or "overflow" in str(error).lower():
                raise
            outline = None  # perhaps a model that computes with its weights: the building itself says what is wrong
        if isinstance(outline, nn.Module):
            # Training keeps a gradient and often two moments beside each weight.
            needed = 4 * sum(tensor.nbytes for tensor in (*outline.parameters(), *outline.buffers()))
            free = free_memory()
            if needed > free:
                found = f"{in_words(needed)} for its weights, their gradients and moments"
                raise ConfigError(f"model must fit into memory, of which {in_words(free)} are free, found {found}")
        torch.manual_seed(derive_seed(cfg.seed, "init"))
        network = build(cfg, "model", **given)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model._target_ must give an nn.Module, found {type(network).__name__}")
    # By their extremes, which take no copy of the weights.
    extremes = [extreme for p in network.parameters() if p.numel() for extreme in p.detach().aminmax()]
    if not all(bool(extreme.isfinite()) for extreme in extremes):
        raise ConfigError(f"model must start from finite weights, found NaN or infinity in {type(network).__name__}")
    return network


def _check_loss(loss: Any, num_classes: int) -> None:
    """Refuse what fails in the first step, or is no mean over the samples: measures and shares of a batch need that.

    Raises:
        ConfigError: Naming the rule and the value found.
    """
    labels = torch.arange(min(num_classes, 10))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        logits = torch.randn(len(labels), num_classes)
    try:
        whole = loss(logits, labels)
        alone = [loss(logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))]
        mean = torch.stack(alone).mean()
        is_mean = whole.shape == () and bool(torch.isclose(whole, mean, rtol=1e-3))
    except BUILD_ERRORS as error:
        raise ConfigError(f"loss: {_one_line(error)}") from error
    if not is_mean:
        raise ConfigError(f"loss must be the mean over the samples of a minibatch, found {_shown(whole)}, not {mean:g}")


def _shown(value: Tensor) -> str:
    return f"{value:g}" if value.shape == () else f"a tensor of shape {tuple(value.shape)}"


def _check_smallest_batch(cfg: DictConfig, data: InMemoryData, network: nn.Module) -> None:
    """Refuse a minibatch of one sample where BN would see one value of a channel, which PyTorch does in training alone.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    assert data.train is not None
    count = len(data.train.labels)
    smallest = min(stop - start for start, stop in batch_bounds(count, cfg.batch_size))
    if smallest > 1 or not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        return
    inputs = data.network_inputs(data.train.inputs[:1]).to("meta")
    try:  # shapes alone: nothing is computed, no running statistics change
        copy.deepcopy(network).to("meta").train()(inputs)
    except BUILD_ERRORS as error:
        if "more than 1 value per channel" not in str(error):  # perhaps a model of somebody's that needs numbers
            return
        option = "batch_size" if count > 1 else "the number of training samples"
        raise ConfigError(f"{option} must be at least 2 where the model has BN, found 1") from error


def _check_optimizer(cfg: DictConfig, configured: Any) -> None:
    """Refuse options that the optimiser would not heed.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
    kind = type(optimizer)
    known = inspect.signature(kind).parameters.values()
    if cfg.weight_decay > 0 and not any(p.name == "weight_decay" or p.kind is p.VAR_KEYWORD for p in known):
        raise ConfigError(f"weight_decay must be 0 with {kind.__name__}, which has none, found {cfg.weight_decay!r}")
    scales_itself = getattr(optimizer, "_step_supports_amp_scaling", False)
    if cfg.trainer.precision == "16-mixed" and cfg.trainer.get("gradient_clip_val") is not None and scales_itself:
        rule = "false where trainer.gradient_clip_val is set and trainer.precision is '16-mixed'"
        raise ConfigError(f"optimizer.fused must be {rule}, found {cfg.optimizer.get('fused')!r}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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
    """The arguments for lightning.Trainer, checked.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    options = OmegaConf.to_container(cfg.trainer, resolve=True) if OmegaConf.is_dict(cfg.trainer) else None
    if not isinstance(options, dict):
        raise ConfigError(f"trainer must be a group of options, found {cfg.trainer!r}")
    locate("trainer", options.get("_target_"))
    named = {str(key): value for key, value in options.items() if key not in _OWN_TRAINER_OPTIONS}
    known = inspect.signature(Trainer).parameters
    for name in named:
        if name not in known:
            raise ConfigError(f"trainer.{name} must be an argument of lightning.Trainer")
        if name in _NOT_TRAINER_OPTIONS:
            raise ConfigError(f"trainer.{name} must be left out: {_NOT_TRAINER_OPTIONS[name]}")
        if name not in inspect.signature(_TrainerOptions).parameters:  # of a Lightning that is newer than this list
            raise ConfigError(f"trainer.{name} must be left out: ncflow does not know what it would do to a run")
    for name, most in (("devices", _MOST_DEVICES), ("num_nodes", _MOST_NODES)):
        if type(named.get(name)) is not int or named[name] < 1:
            raise ConfigError(f"trainer.{name} must be a whole number of at least 1, found {named.get(name)!r}")
        if named[name] > most:
            raise ConfigError(f"trainer.{name} must be at most {most}, found {named[name]}")
    check_types("trainer", _TrainerOptions, named)
    _check_trainer_values(named)
    wanted, launched = processes.wanted(named), processes.launched()
    if launched not in (1, wanted):
        rule = f"{launched}, the number of processes that were started"
        raise ConfigError(f"trainer.devices x trainer.num_nodes must be {rule}, found {wanted}")
    if launched == 1 and not _is_submitted():
        if named["num_nodes"] > 1:
            raise ConfigError(f"trainer.num_nodes must be 1 without SLURM or torchrun, found {named['num_nodes']}")
        if named["devices"] > processes.most_devices():
            raise ConfigError(processes.too_many(named["devices"]))
    if not isinstance(options.get("channels_last"), bool):
        raise ConfigError(f"trainer.channels_last must be true or false, found {options.get('channels_last')!r}")
    threads = options.get("threads")
    if type(threads) is not int or threads < 1:
        raise ConfigError(f"trainer.threads must be a whole number of at least 1, found {threads!r}")
    if threads > _MOST_THREADS:
        raise ConfigError(f"trainer.threads must be at most {_MOST_THREADS}, found {threads}")
    return named


def _check_trainer_values(named: Mapping[str, Any]) -> None:
    for name in ("accelerator", "precision"):
        if name not in named:
            raise ConfigError(f"trainer.{name} must be given, as conf/trainer/auto.yaml does")
    if named["accelerator"] == "cpu" and named["precision"] == "16-mixed":
        raise ConfigError("trainer.precision must be one that a CPU has, such as 'bf16-mixed', found '16-mixed'")
    clip, steps = named.get("gradient_clip_val"), named.get("accumulate_grad_batches", 1)
    if clip is not None and clip <= 0:
        raise ConfigError(f"trainer.gradient_clip_val must be null or greater than 0, found {clip!r}")
    if clip is None and named.get("gradient_clip_algorithm") is not None:
        found = named["gradient_clip_algorithm"]
        raise ConfigError(f"trainer.gradient_clip_algorithm must be null without gradient_clip_val, found {found!r}")
    if not 1 <= steps < 2**31:
        raise ConfigError(f"trainer.accumulate_grad_batches must be in 1..2147483647, found {steps}")


def _is_submitted() -> bool:
    """Whether this process plans a sweep that SLURM's jobs will train."""
    return HydraConfig.initialized() and "slurm" in str(HydraConfig.get().launcher.get("_target_"))


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
    options = _trainer_options(cfg)
    try:
        trainer = locate("trainer", cfg.trainer._target_)(**{**options, **given})
    except Exception as error:  # Lightning raises many kinds for options that it refuses
        raise ConfigError(f"trainer: {_one_line(error)}") from error
    if trainer.precision != options["precision"]:  # Lightning takes another one where a device lacks this one
        raise ConfigError(f"trainer.precision must be one that the device has, found {options['precision']!r}")
    return trainer


def check_logger(cfg: DictConfig) -> None:
    """Refuse a logger that there is not.

    Raises:
        ConfigError: For a sweep under a ``wandb agent``: all of its runs would be the one that the agent asks for.
    """
    sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if cfg.logger.name == "wandb" and under_agent() and sweep:
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
