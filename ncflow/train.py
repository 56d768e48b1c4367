"""``ncflow``: one run or a sweep from a config. Finished runs are skipped, others go on from their checkpoint."""

import logging
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from dotenv import dotenv_values, find_dotenv
from filelock import Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ncflow.config import CONF_DIR, ConfigError, experiment_name, flat_config, register, run_id, slug
from ncflow.explain import explain
from ncflow.results import FAILED, LOG, RESULT, RUN, RUNNING, lock, read_json, write_json

log = logging.getLogger(__name__)
register()  # also in the processes of a sweep, which import this module for its task function

SKIPPED, ELSEWHERE, REFUSED = "skipped", "elsewhere", "refused"
_MAIN_PROCESS = "NCFLOW_MAIN_PROCESS"


@dataclass(frozen=True)
class Report:
    """What became of one run: its status, its folder, the error's line where it failed, its result where it has one."""

    status: str
    folder: str
    error: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def run_task(cfg: DictConfig) -> Report:
    """Bring the run of a composed config to its end, in Hydra's output folder.

    A failure is reported, not raised: Hydra would print a traceback, and it is in the run's log already.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    identity = run_id(cfg)
    described = {
        "run_id": identity,
        "name": slug(cfg),
        "experiment": experiment_name(OmegaConf.create({"hydra": HydraConfig.get()})),
        **flat_config(cfg),
    }
    try:
        found = read_json(folder / RESULT) or read_json(folder / RUN)
        if found is not None and found.get("run_id") != identity:
            line = f"{folder} holds another run ({found.get('run_id')}), choose another hydra.run.dir"
            return Report(REFUSED, str(folder), line)
        if (folder / RESULT).exists():
            return Report(SKIPPED, str(folder))
        with lock(folder).acquire(timeout=0):
            if (folder / RESULT).exists():  # finished between the look and the lock
                return Report(SKIPPED, str(folder))
            return _run(cfg, folder, described)
    except Timeout:
        return Report(ELSEWHERE, str(folder))
    except OSError as error:
        return Report(FAILED, str(folder), f"cannot write the run's folder: {_one_line(error)}")


def _run(cfg: DictConfig, folder: Path, described: dict[str, Any]) -> Report:
    fresh = not (folder / RUN).exists()
    write_json(folder / RUN, {**described, "status": RUNNING})
    try:
        from ncflow.fit import fit, versions

        outcome = fit(cfg, folder, described)
        rate = round(outcome.steps / outcome.seconds, 2) if outcome.seconds > 0 else None
        time = {"seconds": round(outcome.seconds, 3), "steps_per_second": rate}
        result = {**described, "status": outcome.status, **outcome.measures, **time, **versions()}
        write_json(folder / RESULT, result)
        return Report(outcome.status, str(folder), values=result)
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        line = _one_line(error)
        if isinstance(error, ConfigError) and fresh and HydraConfig.get().mode == RunMode.RUN:
            shutil.rmtree(folder, ignore_errors=True)  # nothing was trained: a misspelt option leaves no run behind
            return Report(REFUSED, str(folder), line)
        write_json(folder / RUN, {**described, "status": FAILED, "error": line})
        return Report(FAILED, str(folder), line)


def _one_line(error: BaseException) -> str:
    """The error as one line; its kind is named unless it was written for the user."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ConfigError) else f"{type(error).__name__}: {text}"


def describe(report: Report) -> str:
    """The line that a run leaves on the console."""
    place = Path(report.folder).name
    if report.status == SKIPPED:
        return f"finished already: {place}"
    if report.status == ELSEWHERE:
        return f"left alone, another process is at work on it: {place}"
    if report.error:
        return f"failed: {place}: {report.error}"
    keys = {"accuracy": "train/accuracy", "intra_min": "train/intra_min", "inter_max": "train/inter_max"}
    values = report.values
    measures = ", ".join(f"{name} {values[key]:.4f}" for name, key in keys.items() if values.get(key) is not None)
    return f"{report.status}: {place}: {measures} ({values['seconds']:.1f} s)"


def task(cfg: DictConfig) -> Report:
    """Hydra's task function: a run, and its line."""
    report = run_task(cfg)
    single = HydraConfig.get().mode == RunMode.RUN
    # What failed is listed at the end; the workers of a sweep with a live line must not write across it.
    hidden = (single and bool(report.error)) or (is_worker() and sys.stderr.isatty())
    log.log(logging.DEBUG if hidden else logging.INFO, "%s", describe(report))
    return report


def finish(reports: Sequence[Report]) -> int:
    """Print which runs failed and where their logs are; return the exit code."""
    if len(reports) > 1:
        statuses = [report.status for report in reports]
        counts = ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))
        print(f"{len(reports)} runs: {counts}", flush=True)
    for report in reports:
        if report.status == REFUSED:
            print(f"ncflow: error: {report.error}", file=sys.stderr)
        elif report.status == FAILED:
            print(f"ncflow: failed: {report.error}; log: {Path(report.folder) / LOG}", file=sys.stderr)
    codes = {REFUSED: 2, FAILED: 1}
    return max((codes.get(report.status, 0) for report in reports), default=0)


def load_environment() -> None:
    """Take the non-empty variables of the nearest ``.env`` that the shell does not set."""
    for key, value in dotenv_values(find_dotenv(usecwd=True)).items():
        if value:
            os.environ.setdefault(key, value)


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
        reports.append(task(cfg))
        return reports[-1]

    try:
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")(collect)()
    except Exception as error:  # what a run raises is in its report; this is from before the first run
        if asked_for_traceback:
            raise
        print(f"ncflow: error: {explain(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    if reports:
        raise SystemExit(finish(reports))
