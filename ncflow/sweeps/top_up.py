"""Submit what a full queue did not take: the commands of the sweeps are given again."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ncflow.results import JOB, Report, one_line, read_json
from ncflow.sweeps.status import SHOWS_HOW, UNSUBMITTED

Command = tuple[Path, tuple[str, ...]]
_AGAIN = ("hydra.launcher.wait=false", "hydra.launcher.retry=false")


def commands_of(runs: Sequence[Report]) -> list[Command]:
    """Working directories and arguments of the commands that some runs wait to be submitted by, each once.

    Those that another user left are not taken: what they say would be run.

    Args:
        runs: As :func:`ncflow.sweeps.status.survey` gives them.
    """
    found: dict[Command, None] = {}
    for run in runs:
        file = Path(run.folder) / JOB
        if run.reason != UNSUBMITTED or file.stat().st_uid != os.geteuid():
            continue
        command = (read_json(file) or {}).get("command")
        command = command if isinstance(command, dict) else {}
        arguments, place = command.get("arguments"), command.get("working_directory")
        if isinstance(place, str) and isinstance(arguments, list) and all(isinstance(part, str) for part in arguments):
            found[Path(place), tuple(arguments)] = None
    return list(found)


def submit(runs: Sequence[Report]) -> list[str]:
    """Give the commands again, without waiting for jobs or trying again what failed; return a line of each.

    Args:
        runs: As :func:`ncflow.sweeps.status.survey` gives them.
    """
    lines = []
    for place, arguments in commands_of(runs):
        command = [sys.executable, "-m", "ncflow", *arguments, *_AGAIN]
        if not place.is_dir():
            lines.append(f"not submitted: no folder {one_line(place)}, in which the sweep was begun")
            continue
        done = subprocess.run(command, cwd=place, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        told = [line.partition("; ")[0] for line in done.stdout.splitlines() if line.endswith(SHOWS_HOW)]
        failed = [line.removeprefix("ncflow: ") for line in done.stderr.splitlines()]
        lines.append(one_line((told or failed or ["nothing was submitted"])[-1]))
    return lines
