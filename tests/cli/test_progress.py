"""Bars for somebody who watches; tests/training/test_runs.py shows that nobody else sees them."""

import sys

import pytest

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
