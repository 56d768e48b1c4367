"""How far the runs below some folders are, from their files and, if there is one, SLURM.

It imports nothing heavy and changes nothing, so it can look at a sweep that is going on, from any machine that sees
the folders.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ncflow.results import JOB, LOG, PROGRESS, RESULT, RUN, Status, read_json, run_folders, status_of, why_no_file
from ncflow.results.report import Report, as_job, as_turn, as_word
from ncflow.sweeps.squeue import WAITING_STATES, WORKING_STATES, Job, QueueError, ask_squeue

_UNFINISHED = (Status.FAILED, Status.RUNNING, Status.PENDING, Status.INTERRUPTED, Status.UNREADABLE)
UNSUBMITTED = "not submitted yet"
SHOWS_HOW = " shows how they are"
"""How the line ends that a submission leaves."""

_NO_REASON = ("", "None", "(null)")


class Survey(NamedTuple):
    """The runs below some folders at a moment, and why SLURM was not heard where it should have been."""

    runs: list[Report]
    complaint: str | None


def read_state(folder: Path) -> Report:
    """Where the run in a folder stands, by its files alone."""
    try:
        for name in (RESULT, RUN, JOB, PROGRESS):
            irregular = why_no_file(folder / name)
            if irregular is not None:
                return _unreadable(folder, irregular)
        run = status_of(folder)
        progress, submitted = read_json(folder / PROGRESS) or {}, read_json(folder / JOB) or {}
        has_own_log = (folder / LOG).exists()
    except OSError as error:
        return _unreadable(folder, f"{type(error).__name__}: {error}")
    job_log = as_word(submitted.get("log"))
    waits = run.status == Status.PENDING and "job" in submitted and submitted["job"] is None
    own_log = run.status == Status.FAILED and (has_own_log or job_log is None)
    log = str(folder / LOG) if own_log else job_log
    job, turn = as_job(submitted.get("job")), as_turn(submitted.get("turn"))
    return replace(run, progress=progress, job=job, turn=turn, log=log, reason=UNSUBMITTED if waits else None)


def _unreadable(folder: Path, why: str) -> Report:
    return Report(Status.UNREADABLE, str(folder), why)


def merge(run: Report, jobs: Mapping[str, Job]) -> Report:
    """What the files say of a run and what SLURM says of its job, put together.

    A result and a lock that is seen are beyond doubt. Else a waiting job makes the run pending, also one that failed
    and was submitted again; a job at work makes it running, as a lock that is held on another node is not seen
    everywhere, unless others of the job come first and it was not begun; and without a job nothing more will happen to
    it.

    Args:
        run: The files' view.
        jobs: All jobs that SLURM knows, by their ids.
    """
    if run.job is None or run.status not in (Status.PENDING, Status.INTERRUPTED, Status.FAILED):
        return run
    job = jobs.get(run.job)
    if job is not None and job.state in WAITING_STATES:
        return replace(run, status=Status.PENDING, error="", reason=None if job.reason in _NO_REASON else job.reason)
    if run.status == Status.FAILED:
        return run
    if job is not None and job.state in WORKING_STATES:
        if run.status == Status.PENDING and run.turn > 0:
            return replace(run, reason="others of its job come first")
        return replace(run, status=Status.RUNNING, reason=None if job.state == "RUNNING" else job.state)
    end = "" if job is None else f" ({job.state})"
    reason = f"job {run.job} is gone: the same ncflow command submits it again{end}"
    return replace(run, status=Status.INTERRUPTED, reason=reason)


def survey(folders: Sequence[Path | str]) -> Survey:
    """Look at all runs below some folders, and ask SLURM once where one of them has a job and no result.

    Raises:
        FileNotFoundError: If a folder does not exist or holds no run.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        below = run_folders(folder)
        if not below:
            raise FileNotFoundError(f"no runs below {folder}")
        found |= {path.resolve(): path for path in below}
    runs = [read_state(folder) for folder in sorted(found.values())]
    if not any(run.job is not None and run.status in _UNFINISHED for run in runs):
        return Survey(runs, None)
    try:
        jobs = ask_squeue()
    except QueueError as error:
        return Survey(runs, f"{error}: this is what the folders alone tell")
    return Survey([_unless_it_ended(merge(run, jobs)) for run in runs], None)


def _unless_it_ended(run: Report) -> Report:
    """A run whose job is gone may have ended after the look at its folder."""
    if run.status != Status.INTERRUPTED or run.reason is None:
        return run
    again = read_state(Path(run.folder))
    return run if again.status in (Status.PENDING, Status.INTERRUPTED) else again


def total_seconds_left(runs: Sequence[Report]) -> float | None:
    """Estimate of the time until nothing is running or pending; None if there is no sound one.

    The work of a run is its epochs left times its own mean time of an epoch or, before its first has ended, the mean
    over the runs of its experiment that have one. The work of all running and pending runs, divided by the number of
    runs now running, is the estimate, but at least the longest of them: so many are taken to go on at a time. There is
    none where nothing is running, or where the work of one of them is unknown.
    """
    rates: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        if run.seconds_per_epoch is not None:
            rates[run.experiment].append(run.seconds_per_epoch)
    running = sum(run.status == Status.RUNNING for run in runs)
    work = []
    for run in runs:
        if run.status in (Status.RUNNING, Status.PENDING):
            known = rates[run.experiment]
            rate = run.seconds_per_epoch or (sum(known) / len(known) if known else None)
            if rate is None or run.epochs_left is None:
                return None
            work.append(rate * run.epochs_left)
    return max(max(work), sum(work) / running) if running else None
