"""What the SLURM launcher in ``plugin`` does: check the request, submit packs of runs, find and follow the jobs."""

import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig

from ncflow.config.build import check_types
from ncflow.config.compose import Chosen, folder_of, looked_at
from ncflow.config.schema import ConfigError, Rule
from ncflow.results import FINAL, Status, status_of
from ncflow.results.report import Report, counted
from ncflow.sweeps.local import PackOption, check_pack
from ncflow.sweeps.packs import Task, plan_packs
from ncflow.sweeps.squeue import QueueError, ask_squeue, is_alive
from ncflow.sweeps.status import SHOWS_HOW, read_state
from ncflow.sweeps.submission import Submission, drawing
from ncflow.training.stacked.launcher import Device, share_of

FIGURES = "figures"
_SECONDS_BETWEEN_QUESTIONS, _SECONDS_BETWEEN_TRIES = 5.0, 60.0
_TRIED = (Status.FAILED, Status.INTERRUPTED)
# submitit takes a signal in the last ten minutes of a job for its time-out, also when it is a preemption.
_SUBMITIT_LAST_MINUTES = 10
_Natural = Annotated[int, Rule(ge=0)]
_Positive = Annotated[int, Rule(ge=1)]


@dataclass
class SlurmOptions:
    """The options of ``conf/hydra/launcher/slurm.yaml``. Those that are not described here are passed to sbatch.

    Args:
        wait: Whether the sweep waits for the end of its jobs.
        pack: ``stacked`` to train alike runs as one, a group a job; a number of runs for a job; None for one.
        pack_at_once: Of a number of runs, how many are at work at a time, each in a process.
        gpu_mem_gb: Memory of the GPU that a job will have, for the size of groups; None to ask in the job.
        max_group: Most cells that are trained as one.
        may_differ: Options, or groups of them, in which the cells of a group may differ.
        tasks_per_node: Processes of a run on each node.
        cpus_per_task: Cores of a process.
        timeout_min: Minutes of a job.
        array_parallelism: Jobs at a time.
        signal_delay_s: Seconds before the end of its time in which a run saves and is requeued.
        max_num_timeout: How often that may happen.
        snapshot: Whether jobs run a copy of the code as it was when they were submitted; else they refuse to run if it
            has changed.
        retry: Whether runs that were begun and failed or stopped, and have no job any more, are submitted again.
        then: ``figures`` for a job that draws figures and report once the sweep has ended.
        modules: Environment modules to load in each job.
        setup: Shell lines to run after that.
        name: Of the jobs; None for the experiment and the cells of an array.
        additional_parameters: Further ones of sbatch.
        submitit_folder: Where the jobs' logs are.
    """

    wait: bool
    pack: PackOption
    pack_at_once: _Positive
    gpu_mem_gb: Annotated[float, Rule(gt=0)] | None
    max_group: _Positive
    may_differ: list[str]
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
    snapshot: bool
    retry: bool
    then: Literal["figures"] | None
    modules: list[str]
    setup: list[str]
    name: str | None
    comment: str | None
    additional_parameters: dict[str, Any]
    stderr_to_stdout: bool
    submitit_folder: str


def check(options: Mapping[str, Any], runs: Iterable[DictConfig]) -> None:
    """Refuse a request that SLURM or the runs would trip over, before anything is submitted.

    Args:
        options: The config group ``hydra.launcher``, as :class:`SlurmOptions` has it.
        runs: The configs of the runs.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    check_types("hydra.launcher", SlurmOptions, options)
    check_pack(options["pack"])
    if options["pack_at_once"] > 1 and not isinstance(options["pack"], int):
        _refuse("pack_at_once", f"1 where pack is {options['pack'] or 'null'}", options["pack_at_once"])
    minutes, delay = options["timeout_min"], options["signal_delay_s"]
    if delay >= 60 * minutes:
        _refuse("signal_delay_s", f"less than the time of the job, {60 * minutes} s", delay)
    if minutes <= _SUBMITIT_LAST_MINUTES and options["max_num_timeout"] == 0:
        reason = "a preemption would count as a time-out"
        _refuse("max_num_timeout", f"at least 1 where timeout_min is at most {_SUBMITIT_LAST_MINUTES} ({reason})", 0)
    for cfg in runs:
        if options["pack"] is not None and options["nodes"] * options["tasks_per_node"] > 1:
            _refuse("pack", "null for runs of several processes", options["pack"])
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


def run(configs: Sequence[DictConfig], options: Mapping[str, Any], task: Task) -> list[Report]:
    """Submit what is not in the queue, and say what became of each run: of its jobs' end, if it is waited for.

    Args:
        configs: Of the runs, with Hydra's own part; perhaps each composed when it is asked for.
        options: As :class:`SlurmOptions` has them.
        task: Hydra's task function.

    Raises:
        ConfigError: If the request is refused, here or by SLURM.
    """
    options, folders = dict(options), list[Path]()
    check(options, _noting(looked_at(configs), folders))
    first = configs[0]
    if options["gpus_per_node"] is None and first.trainer.accelerator == "gpu":
        options["gpus_per_node"] = first.trainer.devices
    queued = submitted_already(folders)
    reports = {folder: Report(Status.ELSEWHERE, str(folder)) for folder in queued}
    if not options["retry"]:
        reports |= {folder: run for folder in folders if (run := status_of(folder)).values and run.status in _TRIED}
    new = Chosen(configs, [place for place, folder in enumerate(folders) if folder not in reports])
    packs, text = plan_packs(new, options["pack"], options, device_of(options)) if new else ([], "")
    if text:
        print(text, flush=True)
    submission = Submission(new or configs, packs, options, task, list(queued.values()))
    submission.submit()
    waiting = submission.note_left()
    print(submitted_in_words(submission.jobs, len(queued), len(waiting), folders[0].parent), flush=True)
    figures = Figures(options, submission, folders[0].parent)
    figures.ask()
    if options["wait"]:
        wait(submission, figures.ask)
        reports |= {folder: outcome(folder, job) for folder, job in submission.jobs.items()}
    else:
        reports |= {folder: Report(Status.SUBMITTED, str(folder)) for folder in submission.jobs}
        reports |= {folder: Report(Status.PENDING, str(folder)) for folder in waiting}
    return [reports[folder] for folder in folders]


def _noting(configs: Iterable[DictConfig], folders: list[Path]) -> Iterator[DictConfig]:
    for cfg in configs:
        folders.append(folder_of(cfg))
        yield cfg


class Figures:
    """The job that draws the figures of a sweep, if it is asked for.

    Args:
        options: As :class:`SlurmOptions` has them.
        submission: Of the sweep.
        sweep: Folder of the sweep.
    """

    def __init__(self, options: Mapping[str, Any], submission: Submission, sweep: Path) -> None:
        self._submission, self._sweep = submission, sweep
        jobs = Path(options["submitit_folder"]).parent
        # New jobs need figures anew; a sweep that is in the queue already may have its own.
        self._is_wanted = options["then"] == FIGURES and (bool(submission.left or submission.jobs) or not _drawn(jobs))

    def ask(self) -> None:
        """Submit it, once all others are."""
        if not self._is_wanted or self._submission.left:
            return
        job = self._submission.draw(self._sweep)
        if job is not None:
            self._is_wanted = False
            print(f"SLURM job {job} draws the figures when the sweep has ended: {self._sweep / 'figures'}", flush=True)


def _drawn(jobs: Path) -> bool:
    """Whether a job waits or works that draws the figures."""
    job = drawing(jobs)
    try:
        return job is not None and is_alive(ask_squeue().get(job))
    except QueueError:
        return False


def device_of(options: Mapping[str, Any]) -> Device:
    """What a job will have, for the plan of groups; memory that is not known has no limit."""
    is_gpu = bool(options["gpus_per_node"])
    gigabytes = options["gpu_mem_gb"] if is_gpu else options["mem_gb"]
    return Device(is_gpu, sys.maxsize if gigabytes is None else share_of(gigabytes * 2**30))


def submitted_already(folders: Iterable[Path]) -> dict[Path, str]:
    """The folders whose run has a job that waits or works, and its id; none where SLURM cannot be asked."""
    jobs = {folder: read_state(folder).job for folder in folders}
    if not any(jobs.values()):
        return {}
    try:
        known = ask_squeue()
    except QueueError:
        return {}
    return {folder: job for folder, job in jobs.items() if job is not None and is_alive(known.get(job))}


def wait(submission: Submission, between: Callable[[], None] = lambda: None) -> None:
    """Wait until all jobs of a submission have ended, and submit what is left of it as room comes in the queue.

    A job has ended when each of its tasks has left its result, or when SLURM knows of no job that waits or works; one
    that is requeued has not. Where SLURM cannot be asked, waiting goes on.

    Args:
        submission: The submission.
        between: Called after each look at the jobs.
    """
    left, missed = dict(submission.jobs), Counter[Path]()
    asked = tried = time.monotonic()
    while left or submission.left:
        time.sleep(1)
        before = len(left)
        left = {folder: job for folder, job in left.items() if not all(path.exists() for path in _results(job))}
        if time.monotonic() - asked >= _SECONDS_BETWEEN_QUESTIONS:
            asked = time.monotonic()
            with suppress(QueueError):
                known = ask_squeue()
                for folder, job in left.items():
                    missed[folder] = 0 if is_alive(known.get(job.job_id)) else missed[folder] + 1
                # Once is not enough: the files of a job that has just ended may still be on their way.
                left = {folder: job for folder, job in left.items() if missed[folder] < 2}
        if submission.left and (len(left) < before or time.monotonic() - tried >= _SECONDS_BETWEEN_TRIES):
            tried = time.monotonic()
            left |= submission.submit()
        between()


def _results(job: Any) -> list[Path]:
    return [job.task(number).paths.result_pickle for number in range(job.num_tasks)]


def outcome(folder: Path, job: Any) -> Report:
    """What became of a run whose job has ended.

    A task of several that failed, or ended without a word, makes it a failed one.
    """
    run = status_of(folder)
    errors = [job.task(number).exception() for number, path in enumerate(_results(job)) if path.exists()]
    failed = [_last_error(str(error)) for error in errors if error is not None]
    is_whole = job.num_tasks == 1 or (not failed and len(errors) == job.num_tasks)
    if (run.status in FINAL and is_whole) or run.status == Status.FAILED:
        return run
    line = failed[0] if failed else "it was cancelled, killed or ran out of time or memory"
    return Report(
        Status.FAILED, str(folder), f"SLURM job {job.job_id} did not end well: {line}; its log: {job.paths.stderr}"
    )


def _last_error(text: str) -> str:
    """The line of an error that stands last in submitit's account of it."""
    found = [line for line in text.splitlines() if re.match(r"[\w.]+(Error|Exception|Exit|Interrupt)\b", line)]
    return found[-1] if found else "a task failed"


def submitted_in_words(submitted: Mapping[Path, Any], queued: int, waiting: int, folder: Path) -> str:
    """What was submitted (jobs by the folders of their runs), what was in the queue, and what it is full for."""
    jobs = {job.job_id for job in submitted.values()}
    arrays = list(dict.fromkeys(job.split("_")[0] for job in jobs))
    packed = f" in {len(jobs)} pack{'s' * (len(jobs) > 1)}" if len(jobs) < len(submitted) else ""
    numbers = ", ".join(sorted(arrays, key=int))
    parts = [f"submitted {counted(len(submitted), 'run')}{packed} as SLURM job {numbers}"] if submitted else []
    parts += [f"{queued} are in the queue already"] if queued else []
    parts += [f"{waiting} wait for room in the queue"] if waiting else []
    return f"{', '.join(parts) or 'submitted nothing'}; ncflow-status {folder}{SHOWS_HOW}"
