"""A terminal for a program, as somebody who watches it has."""

import os
import pty
import select
import signal
from pathlib import Path

from tests.conftest import environment, heed_ctrl_c


def in_a_terminal(command, folder=".", columns=120, interrupt_after=None):
    """Output and exit code of a command in a terminal, perhaps with Ctrl-C once a text is there."""
    folder, env = (
        Path(folder).resolve(),
        environment({"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"}),
    )
    child, terminal = pty.fork()
    if child == 0:
        heed_ctrl_c()
        os.chdir(folder)
        os.execve(command[0], list(map(str, command)), env)
    seen = b""
    while select.select([terminal], [], [], 120)[0]:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux's end of file on a terminal
            break
        if not chunk:
            break
        seen += chunk
        if interrupt_after is not None and interrupt_after in seen:
            os.kill(child, signal.SIGINT)
            interrupt_after = None
    _, status = os.waitpid(child, 0)
    return seen.decode(), os.waitstatus_to_exitcode(status)
