"""A terminal for a program, as somebody who watches it has."""

import os
import pty
import select
import signal
from pathlib import Path

from tests.conftest import environment, heed_ctrl_c

_IN_TERMINAL = """
import os, sys
terminal = os.open(os.environ["TERMINAL"], os.O_RDWR)
for descriptor in range(3):
    os.dup2(terminal, descriptor)
sys.stdout.reconfigure(line_buffering=True)
from ncflow.cli.train import main
main()
"""


def in_a_terminal(command, folder=".", columns=120, interrupt_after=None):
    """Output and exit code of a command in a terminal, perhaps with Ctrl-C once a text is there."""
    folder, env = Path(folder).resolve(), environment(_kind(columns))
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


def ncflow_in_a_terminal(warm, arguments, folder, columns=120):
    """Output and exit code of ``ncflow`` in a terminal, forked from the warm process."""
    terminal, its_end = pty.openpty()
    seen = b""
    try:
        given = {**_kind(columns), "TERMINAL": os.ttyname(its_end)}
        running = warm.start(arguments, folder, given, _IN_TERMINAL)
        is_over = False
        while not is_over:
            is_over = running.poll() is not None  # what it said before is there to be read
            while select.select([terminal], [], [], 0.05)[0]:
                seen += os.read(terminal, 4096)
    finally:
        os.close(its_end)
        os.close(terminal)
    return seen.decode(), running.returncode


def _kind(columns):
    return {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"}
