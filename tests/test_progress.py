"""Bars for somebody who watches; tests/test_train.py shows that nobody else sees them."""

import os
import pty
import select
import sys

import pytest

from tests.conftest import TINY, environment


def watch(tmp_path, *arguments):
    """Output of ``ncflow`` in a terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        os.execve(
            sys.executable,
            [sys.executable, "-m", "ncflow", *arguments],
            environment({"TERM": "xterm", "COLUMNS": "120"}),
        )
    seen = b""
    while select.select([terminal], [], [], 120)[0]:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux's end of file on a terminal
            break
        if not chunk:
            break
        seen += chunk
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, seen.decode()
    return seen.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="needs a pseudo-terminal")
def test_bar_of_a_run_and_line_of_a_sweep(tmp_path):
    alone = watch(tmp_path, *TINY, "epochs=60")
    assert "epochs" in alone
    assert "left" in alone
    swept = watch(tmp_path, "-m", *TINY, "epochs=60", "seed=1,2")
    assert "sweep" in swept
    assert "runs" in swept
    assert "conic_hull-mlp3-last-wd0.0005-seed2" in swept
    assert "2 runs: 2 done" in swept
