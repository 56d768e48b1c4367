"""Lightning's trainer for a run: which of its options a config may set, its process, and the trainer itself."""

import inspect
import logging
import signal
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.profilers import AdvancedProfiler, SimpleProfiler
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from ncflow.callbacks.progress import EpochProgress
from ncflow.checks import error_line
from ncflow.config.build import check_types, locate
from ncflow.config.left_out import NOT_TRAINER_OPTIONS
from ncflow.config.schema import ConfigError, Rule
from ncflow.results import CHECKPOINT
from ncflow.runtime import processes
from ncflow.runtime.progress import is_interactive
from ncflow.runtime.signals import StoppedBySignalError
from ncflow.training.checkpoints import Checkpoints

# Of the options in conf/trainer, those that are ours rather than lightning.Trainer's.
_OWN_TRAINER_OPTIONS = ("_target_", "threads", "channels_last")
_GIVEN = ("devices", "num_nodes", "threads", "channels_last")  # which no config may leave to Lightning
_WHOLE = "a whole number of at least 1"


class TrainerOptions:
    """The options of a trainer that a config may set, with their types and ranges."""

    def __init__(
        self,
        *,
        accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto",
        devices: Annotated[int, Rule(_WHOLE, ge=1, le=1024)] = 1,
        num_nodes: Annotated[int, Rule(_WHOLE, ge=1, le=65536)] = 1,
        strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = "auto",
        precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = "32-true",
        deterministic: bool | Literal["warn"] | None = False,
        benchmark: bool | None = None,
        sync_batchnorm: bool = False,
        gradient_clip_val: Annotated[float | None, Rule("null or greater than 0", gt=0)] = None,
        gradient_clip_algorithm: Literal["norm", "value"] | None = None,
        accumulate_grad_batches: Annotated[int, Rule("in 1..2147483647", ge=1, lt=2**31)] = 1,
        detect_anomaly: bool | None = None,
        profiler: Literal["simple", "advanced"] | None = None,
        threads: Annotated[int, Rule(_WHOLE, ge=1, le=1024)] = 1,
        channels_last: bool = False,
    ) -> None:
        """Never called: the signature alone is read."""


def trainer_options(cfg: DictConfig) -> dict[str, Any]:
    """The arguments for lightning.Trainer, checked.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    options = OmegaConf.to_container(cfg.trainer, resolve=True) if OmegaConf.is_dict(cfg.trainer) else None
    if not isinstance(options, dict):
        raise ConfigError(f"trainer must be a group of options, found {cfg.trainer!r}")
    locate("trainer", options.get("_target_"))
    given = {str(key): value for key, value in options.items()}
    named = {name: value for name, value in given.items() if name not in _OWN_TRAINER_OPTIONS}
    known = inspect.signature(Trainer).parameters
    for name in named:
        if name not in known:
            raise ConfigError(f"trainer.{name} must be an argument of lightning.Trainer")
        if name in NOT_TRAINER_OPTIONS:
            raise ConfigError(f"trainer.{name} must be left out: {NOT_TRAINER_OPTIONS[name]}")
        if name not in inspect.signature(TrainerOptions).parameters:  # of a Lightning that is newer than this list
            raise ConfigError(f"trainer.{name} must be left out: ncflow does not know what it would do to a run")
    check_types("trainer", TrainerOptions, dict.fromkeys(_GIVEN) | given)
    _check_trainer_values(named)
    wanted, launched = processes.wanted(named), processes.launched()
    if launched not in (1, wanted):
        rule = f"{launched}, the number of processes that were started"
        raise ConfigError(f"trainer.devices x trainer.num_nodes must be {rule}, found {wanted}")
    if launched == 1 and not is_submitted():
        if named["num_nodes"] > 1:
            raise ConfigError(f"trainer.num_nodes must be 1 without SLURM or torchrun, found {named['num_nodes']}")
        if named["devices"] > processes.most_devices():
            raise ConfigError(processes.too_many(named["devices"]))
    return named


def _check_trainer_values(named: Mapping[str, Any]) -> None:
    for name in ("accelerator", "precision"):
        if name not in named:
            raise ConfigError(f"trainer.{name} must be given, as conf/trainer/auto.yaml does")
    if named["accelerator"] == "cpu" and named["precision"] == "16-mixed":
        raise ConfigError("trainer.precision must be one that a CPU has, such as 'bf16-mixed', found '16-mixed'")
    if named.get("gradient_clip_val") is None and named.get("gradient_clip_algorithm") is not None:
        found = named["gradient_clip_algorithm"]
        raise ConfigError(f"trainer.gradient_clip_algorithm must be null without gradient_clip_val, found {found!r}")


def is_submitted() -> bool:
    """Whether this process plans a sweep that SLURM's jobs will train."""
    return HydraConfig.initialized() and "slurm" in str(HydraConfig.get().launcher.get("_target_"))


def train(
    cfg: DictConfig,
    folder: Path,
    module: LightningModule,
    data: LightningDataModule,
    callbacks: Sequence[Callback],
    loggers: Sequence[Any],
    run_ids: Sequence[str],
    saved: dict[str, Any] | None,
    name: str,
) -> Trainer:
    """Train a run, or several as one, from a checkpoint if there is one.

    Args:
        cfg: The config.
        folder: Where training takes place.
        module: What is trained.
        data: On what.
        callbacks: Lightning's.
        loggers: Lightning's.
        run_ids: Ids of the runs.
        saved: What was read of the checkpoint; None to start anew.
        name: For the progress bar.

    Raises:
        KeyboardInterrupt: By Ctrl-C, of which Lightning makes an exit.
        StoppedBySignalError: By a signal; a checkpoint was saved first, unless it came before training began.
    """
    # Lightning calls every callback some ten times a step, whether it does anything or not.
    bar = [EpochProgress(name)] if is_interactive() else []
    trainer = make_trainer(cfg, folder, [*callbacks, *bar], loggers, Checkpoints(run_ids, saved))
    # Lightning does so after it has loaded a checkpoint, whose float64 weights would pass through float32.
    trainer.precision_plugin.convert_module(module)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=None if saved is None else str(folder / CHECKPOINT))
    except SIGTERMException:  # it came after Lightning began to listen, and before our own callback did
        raise StoppedBySignalError(signal.SIGTERM, "as training began") from None
    except (Exception, SystemExit) as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    return trainer


def make_trainer(
    cfg: DictConfig, folder: Path, callbacks: list[Callback], loggers: Sequence[Any], checkpoints: Checkpoints
) -> Trainer:
    """The Trainer of a config.

    Args:
        cfg: The config.
        folder: Where training takes place.
        callbacks: Those of the run.
        loggers: Those of the run.
        checkpoints: Those of the runs that it trains.

    Raises:
        ConfigError: For an option that Lightning refuses.
    """
    given = {
        "max_epochs": cfg.epochs,
        "default_root_dir": folder,
        "logger": list(loggers),
        "callbacks": callbacks,
        "plugins": [checkpoints],
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10**9,
    }
    options = {name: value for name, value in trainer_options(cfg).items() if value is not None}
    if "profiler" in options:  # its report is of the run: in its folder, one after the other where a run goes on
        kind = {"simple": SimpleProfiler, "advanced": AdvancedProfiler}[options["profiler"]]
        options["profiler"] = kind(dirpath=folder, filename="profile")
    try:
        trainer = locate("trainer", cfg.trainer._target_)(**{**options, **given})
    except Exception as error:  # Lightning raises many kinds for options that it refuses
        raise ConfigError(f"trainer: {error_line(error)}") from error
    if trainer.precision != options["precision"]:  # Lightning takes another one where a device lacks this one
        raise ConfigError(f"trainer.precision must be one that the device has, found {options['precision']!r}")
    return trainer


def set_up_process(cfg: DictConfig) -> None:
    """Threads and floating-point mode for training.

    Lightning's notes on devices and its advice are silenced: they are not about this run; its errors are.
    """
    trainer_options(cfg)
    torch.set_num_threads(int(cfg.trainer.threads))
    # Weight decay drives the weights of dead units into denormal range, where a CPU is many times slower.
    torch.set_flush_denormal(True)
    for library in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
