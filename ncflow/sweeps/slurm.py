"""What the SLURM launcher in ``plugin`` does: check the request, submit packs of runs, find and follow the jobs."""

import io
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig

from ncflow.checks import error_line
from ncflow.config.build import check_types
from ncflow.config.compose import folder_of
from ncflow.config.identity import describe, experiment_name
from ncflow.config.schema import ConfigError, Rule
from ncflow.results import FINAL, JOB, Status, status_of, write_json
from ncflow.results.report import Report
from ncflow.runtime.code import digest
from ncflow.sweeps import snapshot
from ncflow.sweeps.local import PackOption, check_pack
from ncflow.sweeps.packs import Pack, Task, plan_packs
from ncflow.sweeps.squeue import QueueError, ask_squeue, is_alive
from ncflow.sweeps.status import read_state
from ncflow.training.stacked.launcher import Device, share_of

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
        modules: Environment modules to load in each job.
        setup: Shell lines to run after that.
        name: Of the jobs.
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
        configs: Of the runs, with Hydra's own part.
        options: As :class:`SlurmOptions` has them.
        task: Hydra's task function.

    Raises:
        ConfigError: If the request is refused, here or by SLURM.
    """
    configs, options = list(configs), dict(options)  # read several times, and perhaps composed at each
    check(options, configs)
    if options["gpus_per_node"] is None and configs[0].trainer.accelerator == "gpu":
        options["gpus_per_node"] = configs[0].trainer.devices
    folders = [folder_of(cfg) for cfg in configs]
    queued = submitted_already(folders)
    new = [cfg for cfg, folder in zip(configs, folders, strict=True) if folder not in queued]
    submitted: dict[Path, Any] = {}
    if new:
        packs, text = plan_packs(new, options["pack"], options, device_of(options))
        if text:
            print(text, flush=True)
        for pack, job in zip(packs, _submit(new, packs, options, task), strict=True):
            for turn, index in enumerate(pack.cells):
                folder = folder_of(new[index])
                note_job(folder, new[index], job, 0 if pack.is_stacked else turn // options["pack_at_once"])
                submitted[folder] = job
    reports = {folder: Report(Status.ELSEWHERE, str(folder)) for folder in queued}
    print(submitted_in_words(submitted, len(queued), folders[0].parent), flush=True)
    if options["wait"]:
        wait(submitted)
        reports |= {folder: outcome(folder, job) for folder, job in submitted.items()}
    else:
        reports |= {folder: Report(Status.SUBMITTED, str(folder)) for folder in submitted}
    return [reports[folder] for folder in folders]


def device_of(options: Mapping[str, Any]) -> Device:
    """What a job will have, for the plan of groups; memory that is not known has no limit."""
    is_gpu = bool(options["gpus_per_node"])
    gigabytes = options["gpu_mem_gb"] if is_gpu else options["mem_gb"]
    return Device(is_gpu, sys.maxsize if gigabytes is None else share_of(gigabytes * 2**30))


# Of submitit's options, those that are not SLURM's alone; and ours, which it does not know.
_COMMON = ["timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name"]
_COMMON += ["stderr_to_stdout"]
_OURS = ["wait", "pack", "pack_at_once", "gpu_mem_gb", "max_group", "may_differ", "modules", "submitit_folder"]
_OURS += ["max_num_timeout", "snapshot"]


def _submit(
    configs: Sequence[DictConfig], packs: Sequence[Pack], options: Mapping[str, Any], task: Task
) -> Sequence[Any]:
    """A job for each pack."""
    try:
        import submitit
    except ImportError:
        raise ConfigError("hydra/launcher=slurm needs submitit: pip install 'ncflow[slurm]'") from None
    from ncflow.sweeps.job import PackJob

    requests = {name: value for name, value in options.items() if name not in _OURS}
    code = snapshot.code_to_run()
    requests["setup"] = [f"module load {module}" for module in options["modules"]] + options["setup"]
    if options["snapshot"]:
        copy = snapshot.take(code, Path(options["submitit_folder"]).parent / "code")
        requests["setup"] += snapshot.lines_to_run(copy.absolute())
        code = {}
    known = {name: (place, digest(place)) for name, place in code.items()}
    requests["cpus_per_task"] *= options["pack_at_once"]
    executor = submitit.AutoExecutor(
        options["submitit_folder"], cluster="slurm", slurm_max_num_timeout=options["max_num_timeout"]
    )
    executor.update_parameters(
        **{name if name in _COMMON else f"slurm_{name}": value for name, value in requests.items()},
        # A process of a run that ends alone ends the run.
        slurm_srun_args=["--kill-on-bad-exit=1"],
    )
    jobs = [PackJob([configs[index] for index in pack.cells], pack.is_stacked, task, options, known) for pack in packs]
    try:
        with redirect_stderr(io.StringIO()):  # what sbatch says is in the error
            submitted: Sequence[Any] = executor.submit_array(jobs)
            return submitted
    except submitit.core.utils.FailedJobError as error:
        raise ConfigError(f"SLURM refuses the jobs: {error_line(error)}") from error


def note_job(folder: Path, cfg: DictConfig, job: Any, turn: int) -> None:
    """Leave word in a run's folder that it was submitted, for ``ncflow-status`` and the next submission.

    Args:
        folder: The run's folder.
        cfg: Its config, with Hydra's own part.
        job: Of submitit.
        turn: After how many others of the job it is its turn.
    """
    description = describe(cfg, experiment_name(cfg))
    write_json(folder / JOB, {**description, "job": job.job_id, "turn": turn, "log": str(job.paths.stdout)})


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


def submitted_in_words(submitted: Mapping[Path, Any], queued: int, folder: Path) -> str:
    """One line about what was submitted: jobs by the folders of their runs."""
    jobs = {job.job_id for job in submitted.values()}
    arrays = sorted({job.split("_")[0] for job in jobs})
    packed = f" in {len(jobs)} pack{'s' * (len(jobs) > 1)}" if len(jobs) < len(submitted) else ""
    parts = [f"submitted {len(submitted)} runs{packed} as SLURM job {', '.join(arrays)}"] if submitted else []
    parts += [f"{queued} are in the queue already"] if queued else []
    return f"{', '.join(parts)}; ncflow-status {folder} shows how they are"
