"""What the SLURM launcher in ``plugin`` does around submitit: check the request, find and follow the jobs."""

import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig

from ncflow.config.build import check_types
from ncflow.config.identity import describe, experiment_name
from ncflow.config.schema import ConfigError, Rule
from ncflow.results import FINAL, JOB, Status, status_of, write_json
from ncflow.results.report import Report
from ncflow.sweeps.squeue import QueueError, ask_squeue, is_alive
from ncflow.sweeps.status import read_state

_SECONDS_BETWEEN_QUESTIONS = 5.0
# submitit takes a signal in the last ten minutes of a job for its time-out, also when it is a preemption.
_SUBMITIT_LAST_MINUTES = 10
_Natural = Annotated[int, Rule(ge=0)]
_Positive = Annotated[int, Rule(ge=1)]


@dataclass
class SlurmOptions:
    """The options of ``conf/hydra/launcher/slurm.yaml``. Those that are not described here are passed to sbatch.

    Args:
        wait: Whether the sweep waits for the end of its jobs.
        tasks_per_node: Processes of a run on each node.
        timeout_min: Minutes of a job.
        array_parallelism: Runs at a time.
        signal_delay_s: Seconds before the end of its time in which a run saves and is requeued.
        max_num_timeout: How often that may happen.
        modules: Environment modules to load in each job.
        setup: Shell lines to run after that.
        name: Of the jobs.
        additional_parameters: Further ones of sbatch.
        submitit_folder: Where the jobs' logs are.
    """

    wait: bool
    account: str | None
    partition: str | None
    qos: str | None
    constraint: str | None
    exclude: str | None
    nodes: _Positive
    tasks_per_node: _Positive
    cpus_per_task: _Positive
    gpus_per_node: _Natural | None
    mem_gb: _Positive | None
    timeout_min: _Positive
    array_parallelism: _Positive
    signal_delay_s: _Natural
    max_num_timeout: _Natural
    modules: list[str]
    setup: list[str]
    name: str
    comment: str | None
    additional_parameters: dict[str, Any]
    stderr_to_stdout: bool
    submitit_folder: str


def check(options: Mapping[str, Any], runs: Sequence[DictConfig]) -> None:
    """Refuse a request that SLURM or the runs would trip over, before anything is submitted.

    Args:
        options: The config group ``hydra.launcher``, as :class:`SlurmOptions` has it.
        runs: The configs of the runs.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    check_types("hydra.launcher", SlurmOptions, options)
    minutes, delay = options["timeout_min"], options["signal_delay_s"]
    if delay >= 60 * minutes:
        _refuse("signal_delay_s", f"less than the time of the job, {60 * minutes} s", delay)
    if minutes <= _SUBMITIT_LAST_MINUTES and options["max_num_timeout"] == 0:
        reason = "a preemption would count as a time-out"
        _refuse("max_num_timeout", f"at least 1 where timeout_min is at most {_SUBMITIT_LAST_MINUTES} ({reason})", 0)
    for cfg in runs:
        for name, own in (("nodes", "num_nodes"), ("tasks_per_node", "devices")):
            if options[name] != cfg.trainer[own]:
                _refuse(name, f"trainer.{own} = {cfg.trainer[own]!r} of every run", options[name])
        gpus = options["gpus_per_node"]
        if cfg.trainer.accelerator == "gpu" and gpus not in (None, cfg.trainer.devices):
            _refuse("gpus_per_node", f"null or trainer.devices = {cfg.trainer.devices!r}", gpus)
    if shutil.which("sbatch") is None:
        raise ConfigError("hydra/launcher=slurm needs sbatch on the PATH, found none: submit from the cluster")


def _refuse(name: str, rule: str, value: Any) -> None:
    raise ConfigError(f"hydra.launcher.{name} must be {rule}, found {value!r}")


def note_job(folder: Path, cfg: DictConfig, job: Any) -> None:
    """Leave word in a run's folder that it was submitted, for ``ncflow-status`` and the next submission."""
    description = describe(cfg, experiment_name(cfg))
    write_json(folder / JOB, {**description, "job": job.job_id, "log": str(job.paths.stdout)})


def submitted_already(folders: Iterable[Path]) -> set[Path]:
    """The folders whose run has a job that waits or works; none where SLURM cannot be asked."""
    jobs = {folder: read_state(folder).job for folder in folders}
    if not any(jobs.values()):
        return set()
    try:
        known = ask_squeue()
    except QueueError:
        return set()
    return {folder for folder, job in jobs.items() if job is not None and is_alive(known.get(job))}


def wait(jobs: Mapping[Path, Any]) -> None:
    """Wait until submitit's jobs, by the folders of their runs, have ended; one that is requeued has not.

    A job has ended when each of its tasks has left its result, or when SLURM knows of no job that waits or works. Where
    SLURM cannot be asked, waiting goes on.
    """
    left, missed, asked = dict(jobs), Counter[Path](), time.monotonic()
    while left:
        time.sleep(1)
        left = {folder: job for folder, job in left.items() if not all(path.exists() for path in _results(job))}
        if time.monotonic() - asked < _SECONDS_BETWEEN_QUESTIONS:
            continue
        asked = time.monotonic()
        try:
            known = ask_squeue()
        except QueueError:
            continue
        for folder, job in jobs.items():
            missed[folder] = 0 if is_alive(known.get(job.job_id)) else missed[folder] + 1
        # Once is not enough: the files of a job that has just ended may still be on their way.
        left = {folder: job for folder, job in left.items() if missed[folder] < 2}


def _results(job: Any) -> list[Path]:
    return [job.task(number).paths.result_pickle for number in range(job.num_tasks)]


def outcome(folder: Path, job: Any) -> Report:
    """What became of a run whose job has ended; a task that failed, or ended without a word, makes it a failed one."""
    run = status_of(folder)
    errors = [job.task(number).exception() for number, path in enumerate(_results(job)) if path.exists()]
    failed = [_last_error(str(error)) for error in errors if error is not None]
    if (run.status in FINAL and not failed and len(errors) == job.num_tasks) or run.status == Status.FAILED:
        return run
    line = failed[0] if failed else "it was cancelled, killed or ran out of time or memory"
    return Report(
        Status.FAILED, str(folder), f"SLURM job {job.job_id} did not end well: {line}; its log: {job.paths.stderr}"
    )


def _last_error(text: str) -> str:
    """The line of an error that stands last in submitit's account of it."""
    found = [line for line in text.splitlines() if re.match(r"[\w.]+(Error|Exception|Exit|Interrupt)\b", line)]
    return found[-1] if found else "a task failed"


def submitted_in_words(jobs: Sequence[Any], queued: int, folder: Path) -> str:
    """One line about what was submitted."""
    ids = sorted({job.job_id.split("_")[0] for job in jobs})
    parts = [f"submitted {len(jobs)} runs as SLURM job {', '.join(ids)}"] if jobs else []
    parts += [f"{queued} are in the queue already"] if queued else []
    return f"{', '.join(parts)}; ncflow-status {folder} shows how they are"
