"""Bars for somebody who watches; tests/training/test_runs.py shows that nobody else sees them."""

import io
import logging
import signal
import sys

import pytest
from rich.console import Console

from ncflow.runtime import processes, progress
from ncflow.runtime.signals import StoppedBySignalError
from tests.conftest import TINY
from tests.terminals import in_a_terminal, ncflow_in_a_terminal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs a pseudo-terminal")


@pytest.fixture
def watch(warm, tmp_path):
    """Output of ``ncflow`` in a terminal."""

    def call(*overrides):
        seen, code = ncflow_in_a_terminal(warm, overrides, tmp_path)
        assert code == 0, seen
        return seen

    return call


def test_bar_of_a_run_and_line_of_a_sweep(watch, tmp_path):
    alone, code = in_a_terminal([sys.executable, "-m", "ncflow", *TINY, "epochs=60"], tmp_path)
    assert code == 0, alone
    assert "epochs" in alone
    assert "left" in alone
    swept = watch("-m", *TINY, "epochs=60", "seed=1,2")
    assert "sweep" in swept
    assert "runs" in swept
    assert "conic_hull-mlp3-last-wd0.0005-seed2" in swept
    assert "2 runs: 2 done" in swept


def test_a_stacked_group_shows_its_cells_and_epochs(watch):
    seen = watch("-m", "hydra/launcher=stacked", *TINY, "epochs=60", "seed=1,2,3")
    assert "3 cells as one" in seen
    assert "/60" in seen
    assert "left" in seen
    assert "3 runs: 3 done" in seen


@pytest.mark.parametrize("width", [12, 25, 40, 80, 200])
def test_a_bar_is_one_line_at_any_width(width):
    shown = io.StringIO()
    console = Console(file=shown, width=width, color_system=None)
    bars = progress._progress()
    bars.add_task("conic_hull-mlp4-last-wd0.0005-seed0", total=2000, completed=704, unit="epochs")
    bars.add_task("sweep", total=4, completed=1, unit="runs")
    console.print(bars.get_renderable())
    lines = shown.getvalue().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)
    assert ("704/2000" in lines[0]) == (width >= 40)


def test_a_worker_of_a_sweep_draws_nothing(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich a terminal
    assert progress.is_interactive()
    monkeypatch.setenv(processes.MAIN_PROCESS, "1")
    assert not progress.is_interactive()


def test_an_interrupted_worker_leaves_the_last_word_to_its_sweep(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "ncflow")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    stop = StoppedBySignalError(signal.SIGTERM, "after epoch 3 of 9")
    assert stop.told("alone", processes.is_silent()).code == 128 + signal.SIGTERM
    monkeypatch.setenv(processes.MAIN_PROCESS, "1")
    stop.told("of a sweep", processes.is_silent())
    assert [record.getMessage().split(":")[1] for record in caplog.records] == [" alone"]


def test_a_local_sweep_has_one_bar(watch):
    seen = watch("-m", "hydra/launcher=local", "hydra.launcher.n_jobs=2", *TINY, "epochs=60", "seed=1,2")
    assert "sweep" in seen
    assert "epochs" not in seen
    assert seen.endswith("2 runs: 2 done\r\n")
