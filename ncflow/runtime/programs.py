"""Other programs of this machine that are asked something."""

import subprocess
from collections.abc import Mapping, Sequence


def ask(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program that reads nothing, to its end.

    Args:
        command: The program and its arguments.
        seconds: To wait for the answer.
        environment: None for that of this process.

    Raises:
        OSError: If it cannot be run.
        subprocess.TimeoutExpired: If it does not answer in time.
    """
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        timeout=seconds,
    )
