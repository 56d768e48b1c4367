"""Processes side by side: each item's result, whatever happens to a process."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ncflow.sweeps.local import on_a_gpu
from ncflow.sweeps.workers import side_by_side
from tests.conftest import environment, heed_ctrl_c
from tests.sweeps.items import slow, square


def test_every_item_has_its_result():
    assert dict(side_by_side(square, range(7), 2)) == {n: n * n for n in range(7)}
    assert dict(side_by_side(square, [], 2)) == {}


@pytest.mark.parametrize("end", ["die", "leave", "child"])
def test_a_process_that_is_gone_costs_its_own_item(end):
    began = time.monotonic()
    assert dict(side_by_side(square, [2, end, 3, end, 4], 2)) == {0: 4, 1: None, 2: 9, 3: None, 4: 16}
    assert end != "child" or time.monotonic() - began < 20


def test_what_fails_is_told_and_ends_all():
    with pytest.raises(RuntimeError, match="ValueError: no luck"):
        list(side_by_side(square, ["fail", *range(100)], 1))


def test_each_place_has_an_environment_of_its_own():
    found = dict(side_by_side(square, ["seen"] * 6, 2, lambda place: {"SEEN": str(place)}))
    assert set(found.values()) <= {"0", "1"}
    again = dict(side_by_side(square, ["die", "seen"], 1, lambda place: {"SEEN": str(place)}))
    assert again == {0: None, 1: "0"}  # a new process has the place of the one that is gone


def test_items_are_taken_as_they_are_needed():
    taken = []

    def items():
        for number in range(5):
            taken.append(number)
            yield number

    for _ in side_by_side(square, items(), 1):
        assert len(taken) <= 5
        break
    assert len(taken) <= 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_goes_on_to_the_workers_which_save(number, tmp_path):
    files = [tmp_path / "0", tmp_path / "1"]

    def ask():
        while not all(file.exists() and file.read_text() for file in files):
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=ask).start()
    with pytest.raises(SystemExit) as stop:
        list(side_by_side(slow, [str(file) for file in [*files, tmp_path / "2"]], 2))
    assert stop.value.code == 128 + number
    assert {file.read_text() for file in files} == {f"saved at {number.name}"}
    assert not (tmp_path / "2").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_a_signal_to_all_does_not_end_what_workers_are_forked_from():
    assert dict(side_by_side(square, ["ask all"], 1)) == {0: True}


INTERRUPTED = """
import sys
from ncflow.sweeps.workers import side_by_side
from tests.sweeps import items
try:
    list(side_by_side(getattr(items, sys.argv[1]), sys.argv[2:], 2))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize(("work", "left"), [("slow", "saved at SIGTERM"), ("asked_and_done", "begun")])
def test_ctrl_c_goes_to_the_first_process_alone(work, left, tmp_path):
    files = [tmp_path / "0", tmp_path / "1"]
    command = [sys.executable, "-c", INTERRUPTED, work, *map(str, files)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    root = Path(__file__).parents[2]
    env = environment({"PYTHONPATH": str(root)})
    process = subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True, preexec_fn=heed_ctrl_c, **pipes)
    while not all(file.exists() and file.read_text() for file in files):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # to all of them, as a terminal does
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("interrupted\n", "")
    assert {file.read_text() for file in files} == {left}


def test_a_script_that_starts_workers_is_not_run_by_them(tmp_path):
    """It need not be written for that: one that calls ``ncflow`` as any other function does."""
    (tmp_path / "script.py").write_text(
        "print('once')\nfrom ncflow.sweeps.workers import side_by_side\nfrom tests.sweeps.items import square\n"
        "print(sorted(side_by_side(square, [1, 2, 3], 2)), __file__)\n"
    )
    env = environment({"PYTHONPATH": str(Path(__file__).parents[2])})
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == (f"once\n[(0, 1), (1, 4), (2, 9)] {tmp_path / 'script.py'}\n", "")


@pytest.mark.parametrize(
    ("gpus", "seen"),
    [([], [{}] * 3), (["0"], ["0"] * 3), (["0", "1"], ["0", "1", "0"]), (["GPU-a", "3"], ["GPU-a", "3", "GPU-a"])],
)
def test_each_process_sees_one_gpu(gpus, seen):
    found = [on_a_gpu(gpus, place) for place in range(3)]
    assert found == [name if name == {} else {"CUDA_VISIBLE_DEVICES": name} for name in seen]
