"""Train the run of a config and return what it found. The heavy half of :mod:`ncflow.train`."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning import Callback
from omegaconf import DictConfig

import ncflow
from ncflow.assembly import make_logger, make_trainer, measured_layers, prepare, set_up_process
from ncflow.callbacks import NeuralCollapseCallback
from ncflow.lifecycle import EpochProgress, SaveForResume, StopOnDivergence
from ncflow.margin_log import LogMargins
from ncflow.progress import is_interactive
from ncflow.results import CHECKPOINT, DIVERGED, DONE, HISTORY, INTERRUPTED, MARGINS, final_measures
from ncflow.seeding import derive_seed
from ncflow.snapshots import SnapshotFeatures


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``done`` or ``diverged``, its final measures, its time; where, and beside how many others."""

    status: str
    measures: dict[str, Any]
    seconds: float
    steps: int
    device: torch.device
    cells: int | None = None

    def result(self, described: Mapping[str, Any]) -> dict[str, Any]:
        """What ``result.json`` says, of a run with this description."""
        rate = round(self.steps / self.seconds, 2) if self.seconds > 0 else None
        time = {"seconds": round(self.seconds, 3), "steps_per_second": rate}
        trained = {"version/trained_with": "alone" if self.cells is None else f"{self.cells} cells as one"}
        return {**described, "status": self.status, **self.measures, **time, **versions(self.device), **trained}


class InterruptedRunError(RuntimeError):
    """Training stopped before its last epoch; the same command goes on from the checkpoint."""


def fit(cfg: DictConfig, folder: Path, described: Mapping[str, Any]) -> Outcome:
    """Train the run of a config in a folder, from its checkpoint where there is one.

    Args:
        cfg: The config.
        folder: The run's folder.
        described: The run's flat description: ``name``, ``experiment`` and the config; W&B gets it as its config.

    Raises:
        ConfigError: Before any training, for an impossible config.
        InterruptedRunError: If training stopped early, for example by Ctrl-C.
    """
    set_up_process(cfg)
    data, classifier = prepare(cfg)
    if cfg.trainer.channels_last:
        classifier.to(memory_format=torch.channels_last)
    torch.manual_seed(derive_seed(cfg.seed, "train"))
    measure = NeuralCollapseCallback(
        cfg.measure.every_n_epochs,
        measured_layers(cfg),
        delta=cfg.measure.delta,
        self_pairs=cfg.measure.self_pairs,
        batch_size=cfg.measure.batch_size,
        history=None if cfg.logger.name == "none" else folder / HISTORY,
    )
    divergence = StopOnDivergence()
    save = SaveForResume(folder / CHECKPOINT, cfg.measure.every_n_epochs)
    callbacks: list[Callback] = [divergence, measure, save]
    if cfg.measure.snapshot_samples is not None:
        keep = SnapshotFeatures(
            folder, cfg.measure.every_n_epochs, cfg.measure.snapshot_samples, cfg.measure.batch_size
        )
        callbacks.insert(2, keep)  # before the checkpoint, which says that the epoch's files are there
    if cfg.measure.margins:
        log_margins = LogMargins(
            folder / MARGINS, cfg.measure.every_n_epochs, cfg.measure.first_steps, cfg.measure.batch_size
        )
        callbacks.insert(2, log_margins)
    if is_interactive():  # Lightning calls every callback some ten times a step, whether it does anything or not
        callbacks.append(EpochProgress(described["name"]))
    logger = make_logger(cfg, folder, described)
    trainer = make_trainer(cfg, folder, callbacks, logger)
    checkpoint = folder / CHECKPOINT
    # Lightning does so after it has loaded a checkpoint, whose float64 weights would pass through float32.
    trainer.precision_plugin.convert_module(classifier)
    trainer.fit(classifier, datamodule=data, ckpt_path=str(checkpoint) if checkpoint.exists() else None)
    trainer.strategy.barrier("end")  # before the first process says that the run is done, the others are
    interrupted = not divergence.diverged and trainer.current_epoch < cfg.epochs
    status = INTERRUPTED if interrupted else DIVERGED if divergence.diverged else DONE
    outcome = Outcome(
        status, final_measures(measure.rows), save.seconds, trainer.global_step, trainer.strategy.root_device
    )
    if logger:
        logger.finish({**outcome.result(described), "epoch": measure.rows[0]["epoch"]}, failed=interrupted)
    if interrupted:
        raise InterruptedRunError(f"stopped after {trainer.current_epoch} of {cfg.epochs} epochs")
    return outcome


def versions(device: torch.device) -> dict[str, str]:
    """Versions, of software and of hardware, that the numbers of a run on a device may depend on."""
    found = {
        "version/ncflow": ncflow.__version__,
        "version/python": platform.python_version(),
        "version/torch": str(torch.__version__),
        "version/lightning": lightning.__version__,
        "version/cpu": f"{_cpu_model()}, {torch.backends.cpu.get_cpu_capability()}",
    }
    return found | ({"version/gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
