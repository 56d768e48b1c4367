"""``ncflow``: one run or a sweep from a config. Finished runs are skipped, others go on from their checkpoint."""

import logging
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from filelock import Timeout
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ncflow import processes
from ncflow.config import CONF_DIR, ConfigError, describe, experiment_name, register
from ncflow.environment import load_environment
from ncflow.explain import explain
from ncflow.reports import ELSEWHERE, REFUSED, SKIPPED, Report, finish, line_of
from ncflow.results import FAILED, RESULT, RUN, RUNNING, lock, read_json, write_json
from ncflow.signals import StoppedBySignalError

log = logging.getLogger(__name__)
register()  # also in the processes of a sweep, which import this module for its task function

_MAIN_PROCESS = "NCFLOW_MAIN_PROCESS"


def run_task(cfg: DictConfig) -> Report:
    """Bring the run of a composed config to its end, in Hydra's output folder.

    A failure is reported, not raised: Hydra would print a traceback, and it is in the run's log already. Of several
    processes of one run the first does this; the others train with it, write nothing and raise what goes wrong.

    Raises:
        SystemExit: If a signal stopped training, which saved a checkpoint first.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    described = describe(cfg, experiment_name(OmegaConf.create({"hydra": HydraConfig.get()})))
    identity = described["run_id"]
    try:
        found = read_json(folder / RESULT) or read_json(folder / RUN)
        if found is not None and found.get("run_id") != identity:
            line = f"{folder} holds another run ({found.get('run_id')}), choose another hydra.run.dir"
            return Report(REFUSED, str(folder), line)
        if (folder / RESULT).exists():
            return _skip(cfg, folder, described)
        if processes.rank() > 0:
            return _follow(cfg, folder, described)
        if processes.launched() == 1 and processes.wanted(cfg.trainer) > 1:
            return _run_in_processes(cfg, folder)
        with lock(folder).acquire(timeout=1):  # a look at the folder takes the lock for an instant
            if (folder / RESULT).exists():  # finished between the look and the lock
                return _skip(cfg, folder, described)
            return _run(cfg, folder, described)
    except Timeout:
        return Report(ELSEWHERE, str(folder))
    except OSError as error:
        return Report(FAILED, str(folder), f"cannot write the run's folder: {_one_line(error)}")


def _skip(cfg: DictConfig, folder: Path, described: dict[str, Any]) -> Report:
    one_run = HydraConfig.get().mode == RunMode.RUN
    if cfg.logger.name == "wandb" and os.environ.get("WANDB_SWEEP_ID") and one_run:
        from ncflow.loggers import log_finished

        log_finished(folder, described, cfg.logger.project, cfg.logger.entity)
    return Report(SKIPPED, str(folder))


def _run(cfg: DictConfig, folder: Path, described: dict[str, Any]) -> Report:
    fresh = not (folder / RUN).exists()
    write_json(folder / RUN, {**described, "status": RUNNING})
    try:
        hydra_config = HydraConfig.get()
        if hydra_config.mode == RunMode.RUN and "slurm" in hydra_config.launcher._target_:
            raise ConfigError("hydra/launcher=slurm submits sweeps, and this is a single run: add -m")
        from ncflow.fit import fit

        outcome = fit(cfg, folder, described)
        result = outcome.result(described)
        write_json(folder / RESULT, result)
        return Report(outcome.status, str(folder), values=result)
    except StoppedBySignalError as stop:
        log.info("interrupted: %s: %s", folder.name, stop)
        raise SystemExit(128 + stop.signum) from None
    except (Exception, SystemExit) as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning makes an exit of Ctrl-C
            raise
        log.debug("%s", traceback.format_exc())
        line = _one_line(error)
        if isinstance(error, ConfigError) and fresh and HydraConfig.get().mode == RunMode.RUN:
            return _refuse(folder, line)
        write_json(folder / RUN, {**described, "status": FAILED, "error": line})
        return Report(FAILED, str(folder), line)


def _refuse(folder: Path, line: str) -> Report:
    """Nothing was trained: a misspelt option leaves no run behind."""
    shutil.rmtree(folder, ignore_errors=True)
    return Report(REFUSED, str(folder), line)


def _follow(cfg: DictConfig, folder: Path, described: dict[str, Any]) -> Report:
    from ncflow.fit import fit

    try:
        return Report(fit(cfg, folder, described).status, str(folder))
    except StoppedBySignalError:
        raise SystemExit(0) from None  # the first process says so; an error here would end it before it can


def _run_in_processes(cfg: DictConfig, folder: Path) -> Report:
    if cfg.trainer.num_nodes > 1:
        return _refuse(folder, f"trainer.num_nodes must be 1 without SLURM or torchrun, found {cfg.trainer.num_nodes}")
    if cfg.trainer.devices > processes.most_devices():
        return _refuse(folder, processes.too_many(cfg.trainer.devices))
    reported = processes.start(folder, processes.wanted(cfg.trainer))
    result = read_json(folder / RESULT)
    if result is not None:
        return Report(str(result["status"]), str(folder), values=result)
    see = f"a process ended early, see {folder / processes.LOG}"
    if not reported:
        return Report(FAILED, str(folder), see)
    if reported["status"] == REFUSED:
        return _refuse(folder, reported["error"])
    failed = reported["status"] == FAILED  # perhaps for no other reason than the end of another process
    return Report(reported["status"], str(folder), f"{reported['error']}; {see}" if failed else reported["error"])


def _one_line(error: BaseException) -> str:
    """The error as one line; its kind is named unless it was written for the user."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ConfigError) else f"{type(error).__name__}: {text}"


def task(cfg: DictConfig) -> Report:
    """Hydra's task function: a run, and its line."""
    report = run_task(cfg)
    if processes.rank() > 0:
        return report
    single = HydraConfig.get().mode == RunMode.RUN
    # What failed is listed at the end; the workers of a sweep with a live line must not write across it.
    hidden = (single and bool(report.error)) or (is_worker() and sys.stderr.isatty())
    log.log(logging.DEBUG if hidden else logging.INFO, "%s", line_of(report))
    return report


def is_worker() -> bool:
    """Whether this process works for an ``ncflow`` in another process."""
    return os.environ.get(_MAIN_PROCESS, str(os.getpid())) != str(os.getpid())


def main() -> None:
    """Entry point of ``ncflow`` and ``python -m ncflow``."""
    load_environment()
    os.environ[_MAIN_PROCESS] = str(os.getpid())
    asked_for_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra hands its errors to us instead of printing many lines
    reports: list[Report] = []

    def collect(cfg: DictConfig) -> Report:
        report = task(cfg)
        if HydraConfig.get().mode == RunMode.RUN:  # a sweep sums up its own
            reports.append(report)
        return report

    try:
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")(collect)()
    except Exception as error:  # what a run raises is in its report; this is from before the first run
        if asked_for_traceback:
            raise
        print(f"ncflow: error: {explain(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    if reports:
        raise SystemExit(finish(reports))


def main_of_process() -> None:
    """Entry point of the processes that :func:`ncflow.processes.start` starts: the run of the folder named."""
    folder = Path(sys.argv[1])
    cfg = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert isinstance(cfg, DictConfig)
    hydra_config = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    OmegaConf.set_struct(hydra_config.hydra, False)
    hydra_config.merge_with(OmegaConf.load(folder / ".hydra" / "hydra.yaml"))
    HydraConfig.instance().set_config(hydra_config)
    if processes.rank() > 0:
        run_task(cfg)
        return
    configure_log(HydraConfig.get().job_logging)  # type: ignore[arg-type]
    report = run_task(cfg)
    processes.hand_over(folder, {"status": report.status, "error": report.error})
    # Not success: the other processes wait for this one, and torchrun ends them.
    raise SystemExit(1 if report.status in (FAILED, REFUSED, ELSEWHERE) else 0)


if __name__ == "__main__":
    main_of_process()
