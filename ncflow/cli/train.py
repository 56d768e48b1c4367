"""``ncflow``: one run or a sweep from a config. Finished runs are skipped, others go on from their checkpoint."""

import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ncflow.cli.completion import complete_nested
from ncflow.config.explain import explain, one_line
from ncflow.config.identity import describe, describe_for_wandb, experiment_name, without_hydra
from ncflow.config.schema import CONF_DIR, ConfigError, register
from ncflow.config.validate import check_fields, check_hydra, is_search
from ncflow.results import RunFolder, Status, stored
from ncflow.results.report import Report, finish, line_of, say
from ncflow.runtime import processes
from ncflow.runtime.environment import load_environment
from ncflow.runtime.signals import StoppedBySignalError
from ncflow.training.entry import enter, find_twin, load_config, settled, take_over

log = logging.getLogger(__name__)
register()  # also in the processes of a sweep, which import this module for its task function

_FULL_ERROR = "NCFLOW_FULL_ERROR"
_prepared: dict[str, Any] = {}  # what the check of a single run built, by its id: data can be large
_single: list[Report] = []  # of a single run, which Hydra returns to nobody


class _SettledError(BaseException):
    """A run is settled before Hydra makes its folder; no Exception, which Hydra would take for a callback's fault."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report


class SettleBeforehand(Callback):
    """Hydra's callback before a single run: what is finished or refused is so before a file or a folder is made."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look and check; keep what was built for it."""
        HydraConfig.instance().set_config(config)  # what ${hydra:...} refers to
        path = Path()
        try:
            path = Path(str(config.hydra.run.dir)).absolute()
            cfg = without_hydra(config)
            folder = RunFolder(path, describe(cfg, experiment_name(config), path))
            report = settled(folder)
            if report is None:
                report = _check_or_take_over(config, cfg, folder)
            if report is not None and report.status == Status.SKIPPED:
                _send_finished(cfg, path, folder.described)
        except Exception as error:
            if asked_for_traceback():
                raise _SettledError(Report(Status.REFUSED, str(path), traceback.format_exc())) from error
            report = Report(Status.REFUSED, str(path), explain(error))
        if report is not None:
            raise _SettledError(report)


def _check_or_take_over(config: DictConfig, cfg: DictConfig, folder: RunFolder) -> Report | None:
    """Keep what the check built for the run; a report if another experiment has finished it, and nothing is built."""
    if "slurm" in str(config.hydra.launcher.get("_target_")):
        raise ConfigError("hydra/launcher=slurm submits sweeps, and this is a single run: add -m")
    if is_search(config):
        raise ConfigError("hydra/sweeper=optuna searches in a sweep, and this is a single run: add -m")
    check_hydra(config)
    check_fields(cfg)
    twin = find_twin(folder, stored(Path(str(cfg.runs_dir))))
    if twin is not None:
        return take_over(folder, cfg, twin)
    from ncflow.training.assembly import check

    _prepared[folder.run_id] = check(cfg)
    return None


def _send_finished(cfg: DictConfig, folder: Path, described: dict[str, Any]) -> None:
    """A ``wandb agent`` may ask for a run that is finished."""
    if cfg.logger.name == "wandb" and os.environ.get("WANDB_SWEEP_ID"):
        from ncflow.runtime.wandb_logger import log_finished

        log_finished(folder, describe_for_wandb(cfg, described), cfg.logger.project, cfg.logger.entity)


def run_task(cfg: DictConfig) -> Report:
    """Bring the run of a composed config to its end, in Hydra's output folder.

    A failure is reported, not raised: Hydra would print a traceback, and it is in the run's log already. If several
    processes train one run, only the first reports; the others write nothing, and raise errors.

    Raises:
        KeyboardInterrupt: By Ctrl-C.
        SystemExit: If a signal stopped training, which saved a checkpoint first.
    """
    path = Path(HydraConfig.get().runtime.output_dir)
    folder = RunFolder(path, describe(cfg, experiment_name(OmegaConf.create({"hydra": HydraConfig.get()})), path))
    if processes.rank() > 0:
        return settled(folder) or _follow(cfg, folder)
    try:
        with ExitStack() as held:
            report = enter(folder, cfg, held)
            if report is not None:
                return report
            if processes.launched() > 1 or processes.wanted(cfg.trainer) == 1:
                return _run(cfg, folder)
        return _run_in_processes(cfg, folder)  # which take the lock themselves
    except Exception as error:  # of this run's folder or config: in a sweep the others go on
        log.debug("%s", traceback.format_exc())
        return Report(Status.FAILED, str(path), f"the run could not be begun: {one_line(error)}")


def _run(cfg: DictConfig, folder: RunFolder) -> Report:
    with folder.logged():
        try:
            from ncflow.training.again import measured_again
            from ncflow.training.fit import fit

            prepared = _prepared.pop(folder.run_id, None)
            return measured_again(cfg, folder) or fit(cfg, folder, prepared)
        except StoppedBySignalError as stop:
            raise stop.told(folder.path.name, processes.is_silent()) from None
        except (Exception, SystemExit) as error:
            log.debug("%s", traceback.format_exc())
            line = one_line(error)
            folder.fail(line)
            return Report(Status.FAILED, str(folder.path), line)


def _follow(cfg: DictConfig, folder: RunFolder) -> Report:
    from ncflow.training.fit import fit

    try:
        return fit(cfg, folder)
    except StoppedBySignalError:
        raise SystemExit(0) from None  # the first process says so; an error here would end it before it can


def _run_in_processes(cfg: DictConfig, folder: RunFolder) -> Report:
    path = str(folder.path)
    _prepared.clear()  # each process prepares its own
    reported = processes.start(folder.path, processes.wanted(cfg.trainer))
    result = folder.finished()
    if result is not None:
        return Report(str(result["status"]), path, values=result)
    see = f"a process ended early, see {folder.path / processes.LOG}"
    if not reported:
        return Report(Status.FAILED, path, see)
    failed = reported["status"] == Status.FAILED  # perhaps for no other reason than the end of another process
    return Report(reported["status"], path, f"{reported['error']}; {see}" if failed else reported["error"])


def task(cfg: DictConfig) -> Report:
    """Hydra's task function: a run, and its line."""
    if processes.is_worker():
        processes.end_with_parent(int(os.environ[processes.MAIN_PROCESS]))
    try:
        report = run_task(cfg)
    finally:
        processes.end_if_orphaned()
    single = HydraConfig.get().mode == RunMode.RUN
    if single:  # a sweep sums up its own
        _single.append(report)
    if processes.rank() > 0:
        return report
    hidden = (single and bool(report.error)) or processes.is_silent()  # what failed is listed at the end
    say(report, hidden)
    return report


def asked_for_traceback() -> bool:
    """Whether ``HYDRA_FULL_ERROR=1`` asks to see where an error comes from."""
    return os.environ.get(_FULL_ERROR, os.environ.get("HYDRA_FULL_ERROR")) == "1"


def _use_own_search() -> None:
    """Let ``hydra/sweeper=optuna`` be ours also where hydra-optuna-sweeper is: Hydra would refuse one of two."""
    Plugins.instance()  # imports them all
    ConfigStore.instance().repo.get("hydra", {}).get("sweeper", {}).pop("optuna.yaml", None)


def options_last(arguments: Sequence[str]) -> list[str]:
    """The arguments with options such as ``-m`` after all overrides, which Hydra's parser wants in one row."""
    known, waiting = get_args_parser()._option_string_actions, list(arguments)
    overrides, options = list[str](), list[str]()
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        options.append(word)
        action = known.get(word)
        if action is None or not waiting or action.nargs not in (None, "?"):
            continue
        if action.nargs is None or waiting[0] in (action.choices or ()):
            options.append(waiting.pop(0))
    return [*overrides, *options]


def main() -> None:
    """What the command ``ncflow`` does."""
    sys.argv[1:] = options_last(sys.argv[1:])
    if {"--help", "-h"} & set(sys.argv[1:]):
        from ncflow.cli.help import show

        show(sys.argv[1:])
        return
    complete_nested()
    load_environment()
    logging.raiseExceptions = False  # a log on a full disk must not cost a page for each line
    os.environ[processes.MAIN_PROCESS] = str(os.getpid())
    # A run has the threads of trainer.threads. Those that OpenMP and BLAS keep beside them wait busily for work that
    # never comes: measured, half as much CPU time again, and at two runs side by side twice the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ[_FULL_ERROR] = os.environ.get("HYDRA_FULL_ERROR", "")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra hands its errors to us instead of printing many lines
    _single.clear()
    _use_own_search()
    try:
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")(task)()
    except _SettledError as settled:
        if settled.report.status == Status.SKIPPED:
            print(line_of(settled.report))
        _single.append(settled.report)
    except Exception as error:  # what a run raises is in its report; this is from before the first run
        if asked_for_traceback():
            raise
        print(f"ncflow: error: {explain(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    if _single:
        raise SystemExit(finish(_single))


def main_of_process() -> None:
    """Entry point of the processes that :func:`ncflow.runtime.processes.start` starts: the run of the folder named."""
    logging.raiseExceptions = False
    folder = Path(sys.argv[1])
    cfg, own = load_config(folder)
    hydra_config = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    OmegaConf.set_struct(hydra_config.hydra, False)
    hydra_config.merge_with(own)
    HydraConfig.instance().set_config(hydra_config)
    if processes.rank() > 0:
        run_task(cfg)
        return
    configure_log(HydraConfig.get().job_logging)  # type: ignore[arg-type]
    report = run_task(cfg)
    processes.hand_over(folder, {"status": report.status, "error": report.error})
    # Not success: the other processes wait for this one, and torchrun ends them.
    raise SystemExit(1 if report.status in (Status.FAILED, Status.REFUSED, Status.ELSEWHERE) else 0)


if __name__ == "__main__":
    main_of_process()
