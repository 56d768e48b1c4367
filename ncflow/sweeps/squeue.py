"""What SLURM's queue says of our jobs."""

import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

from ncflow.runtime.programs import ask

# https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES; every other state is an end.
WAITING_STATES = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
WORKING_STATES = {
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
}


class Job(NamedTuple):
    """A job in SLURM's queue: its state and the reason why it is in it."""

    state: str
    reason: str


def is_alive(job: Job | None) -> bool:
    """Whether a job waits or works."""
    return job is not None and job.state in WAITING_STATES | WORKING_STATES


class QueueError(Exception):
    """SLURM's queue cannot be read; the message is one line for the user."""


def parse_squeue(output: str) -> dict[str, Job]:
    """Jobs by their ids from lines ``id|state|reason``; other lines are left out.

    >>> parse_squeue("345_3|PENDING|Priority")
    {'345_3': Job(state='PENDING', reason='Priority')}
    """
    parts = [line.strip().split("|", 2) for line in output.splitlines()]
    return {part[0]: Job(part[1], part[2]) for part in parts if len(part) == 3}


def largest_array(timeout: float = 10.0) -> int:
    """Most elements of a job array, SLURM's ``MaxArraySize``; where it cannot be asked, there is no limit."""
    try:
        done = ask(["scontrol", "show", "config"], timeout)
    except (OSError, subprocess.TimeoutExpired):
        return sys.maxsize
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return max(1, int(found[1])) if found else sys.maxsize


def ask_squeue(timeout: float = 10.0) -> dict[str, Job]:
    """All jobs that SLURM knows, those that have just ended included, by their ids.

    All are asked for, as ``squeue --jobs`` fails if it does not know one of the ids.

    Args:
        timeout: Seconds to wait for the answer.

    Raises:
        QueueError: If there is no ``squeue``, or no answer from it.
    """
    program = shutil.which("squeue")
    if program is None:
        raise QueueError("squeue is not on the PATH")
    command = [program, "-h", "-r", "-a", "-t", "all", "-o", "%i|%T|%r"]
    # The user's own filters, such as SQUEUE_PARTITION, would make jobs look gone.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SQUEUE_")}
    try:
        done = ask(command, timeout, environment)
    except subprocess.TimeoutExpired:
        raise QueueError(f"squeue did not answer within {timeout:g} s") from None
    except OSError as error:
        raise QueueError(f"squeue cannot be run ({error})") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise QueueError(f"squeue failed ({lines[-1]})")
    return parse_squeue(done.stdout)
