"""The faults themselves: each comes where it is asked for, and does what it says."""

import subprocess
import sys

import pytest

from tests.crash.client import ROOT
from tests.crash.faults import DENIED, FULL, KILL, UNSYNCED, Fault

# Every kind of event once, the way ncflow, Hydra and logging write.
_PROGRAM = """
import logging, os, pathlib, shutil, sys
from tests.crash.faults import Disk, Fault
fault = Fault.parse(sys.argv[1]) if len(sys.argv) > 1 else None
disk = Disk(os.getcwd(), fault, "/dev/null")
disk.watch()
try:
    os.mkdir("a")
    with pathlib.Path("a/x").open("wb") as file:
        file.write(b"12345678")
        file.flush()
        os.fsync(file.fileno())
    os.replace("a/x", "a/y")
    pathlib.Path("a/z").write_text("12345678")
    os.rename("a/z", "a/w")
    handler = logging.FileHandler("log")
    handler.stream.write("one")
    handler.flush()
    pathlib.Path("a/y").read_text()
    os.symlink("y", "a/link")
    os.close(os.open("lock", os.O_CREAT | os.O_RDWR))
    os.truncate("a/w", 2)
    with open("a/y", "r+") as file:
        file.truncate(3)
    os.unlink("a/w")
    shutil.rmtree("a")
    pathlib.Path("/dev/null").write_text("elsewhere")
finally:
    print("\\n".join(disk.events), file=sys.__stdout__)
"""
_EVENTS = [
    *("mkdir a", "open a/x", "write a/x", "fsync a/x", "rename a/y", "open a/z", "write a/z"),
    *(f"rename a/w {UNSYNCED}", "open log", "write log", "symlink a/link", "open lock", "truncate a/w", "open a/y"),
    *("truncate a/y", "remove a/w", "remove a/link", "remove a/y", "rmdir a"),
]


@pytest.fixture
def program(tmp_path):
    def run(fault=None):
        command = [sys.executable, "-c", _PROGRAM, *([str(fault)] if fault else [])]
        return subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)

    return run


def at(event):
    return _EVENTS.index(event) + 1


def test_every_change_of_a_file_is_an_event(program):
    done = program()
    assert done.returncode == 0, done.stderr
    events = done.stdout.splitlines()
    assert sorted(events) == sorted(_EVENTS)  # a folder's files are removed in any order
    assert events[:-3] == _EVENTS[:-3]


@pytest.mark.parametrize("number", range(1, len(_EVENTS) + 1))
def test_a_kill_comes_before_its_event(number, program):
    assert program(Fault(KILL, number)).returncode == -9


def test_a_killed_write_is_torn(program, tmp_path):
    program(Fault(KILL, at("write a/x")))
    assert (tmp_path / "a/x").read_bytes() == b"1234"


def test_a_kill_before_a_rename_leaves_both_files_as_they_were(program, tmp_path):
    program(Fault(KILL, at("rename a/y")))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_a_full_disk_takes_half_and_stays_full(program, tmp_path):
    done = program(Fault(FULL, at("write a/x")))
    assert "No space left on device" in done.stderr
    assert (tmp_path / "a/x").read_bytes() == b"1234"
    assert done.stdout.splitlines()[-1] == "write a/x"


@pytest.mark.parametrize(
    ("event", "message"),
    [("mkdir a", "Permission denied"), ("fsync a/x", "Input/output error"), ("rename a/y", "Permission denied")],
)
def test_a_refused_call_raises_what_the_system_would(event, message, program):
    done = program(Fault(DENIED, at(event)))
    assert message in done.stderr
    assert done.returncode == 1
