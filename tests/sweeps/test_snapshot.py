"""The copy of its code that a sweep's jobs run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ncflow.config.schema import ConfigError
from ncflow.runtime import code
from ncflow.runtime.code import TOLD, digest
from ncflow.sweeps import snapshot
from ncflow.sweeps.snapshot import check_unchanged, code_to_run, lines_to_run, take


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine/sub/__pycache__").mkdir(parents=True)
    (tmp_path / "mine/.git").mkdir()
    files = ["__init__.py", "net.py", "sub/__init__.py", "sub/table.csv", "sub/__pycache__/net.pyc", ".git/HEAD", "big"]
    for name in files:
        (tmp_path / "mine" / name).write_text(f"name = {name!r}\n")
    (tmp_path / "mine/big").write_bytes(bytes(2**20 + 1))
    (tmp_path / "mine/away").symlink_to("nowhere")
    (tmp_path / "flat.py").write_text("depth = 4\n")
    return {"mine": tmp_path / "mine", "flat": tmp_path / "flat.py"}


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_copy_has_what_a_job_imports(mine, tmp_path):
    copy = take(mine, tmp_path / "code")
    own = ["mine/__init__.py", "mine/net.py", "mine/sub/__init__.py", "mine/sub/table.csv"]
    assert files(copy) == [TOLD, "flat.py", *own]
    assert (copy / "mine/net.py").read_text() == "name = 'net.py'\n"
    assert [path.name for path in (tmp_path / "code").iterdir()] == [copy.name]


def test_the_same_code_is_copied_once(mine, tmp_path):
    copy = take(mine, tmp_path / "code")
    before = (copy / "flat.py").stat().st_mtime_ns
    assert take(mine, tmp_path / "code") == copy
    assert (copy / "flat.py").stat().st_mtime_ns == before
    mine["flat"].write_text("depth = 5\n")
    other = take(mine, tmp_path / "code")
    assert other != copy
    assert ((copy / "flat.py").read_text(), (other / "flat.py").read_text()) == ("depth = 4\n", "depth = 5\n")


def test_a_copy_that_was_changed_is_refused(mine, tmp_path):
    copy = take(mine, tmp_path / "code")
    (copy / "mine/net.py").write_text("name = 'another'\n")
    with pytest.raises(ConfigError, match=f"{copy}/mine must be what the jobs of its sweep run, found it changed"):
        take(mine, tmp_path / "code")
    assert (copy / "mine/net.py").read_text() == "name = 'another'\n"


def test_too_many_files_are_refused(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "_MOST_FILES", 3)
    rule = "false where a package of the sweep's code has more than 3 files"
    with pytest.raises(ConfigError, match=f"snapshot must be {rule}, found 4 in {mine['mine']}"):
        take(mine, tmp_path / "code")
    assert not (tmp_path / "code").exists()


def test_changed_code_is_refused(mine):
    known = {name: (place, digest(place)) for name, place in mine.items()}
    check_unchanged(known)
    (mine["mine"] / "big").unlink()  # no source
    check_unchanged(known)
    mine["flat"].write_text("depth = 5\n")
    with pytest.raises(ConfigError, match=f"{mine['flat']} must be the code that was submitted, found it changed"):
        check_unchanged(known)
    mine["flat"].unlink()
    with pytest.raises(ConfigError, match=r"found it changed: submit again, or with hydra\.launcher\.snapshot=true"):
        check_unchanged(known)


ASKED = """
import json, ncflow, flat, hydra_plugins._ncflow_launcher as plugin, helper, theirs
from ncflow.runtime.code import code_of
modules = [module.__file__ for module in (ncflow, flat, plugin, helper)]
print(json.dumps([*modules, flat.depth, code_of("ncflow").state]))
"""


def test_a_job_runs_the_copy_wherever_it_works(mine, tmp_path, monkeypatch):
    (tmp_path / "helper.py").write_text("")  # imported late, and so in no copy
    monkeypatch.syspath_prepend(tmp_path)
    copy = take({**code_to_run(), **mine}, tmp_path / "code")
    mine["flat"].write_text("depth = 5\n")
    (tmp_path / "script.py").write_text(ASKED)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/theirs.py").write_text("")  # found by what the user's own lines say
    lines = [f"export PYTHONPATH={tmp_path / 'more'}", *lines_to_run(copy)]
    job = "\n".join([*lines, f"{sys.executable} -m script"])
    found = []
    for place in (tmp_path, Path(code.__file__).parents[2]):
        done = subprocess.run(["bash", "-c", job], cwd=place, env=dict(os.environ), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert found[0] == found[1]
    *modules, depth, state = found[0]
    plugin = copy / "ncflow/sweeps/plugin/hydra_plugins/_ncflow_launcher.py"
    assert modules == [*map(str, (copy / "ncflow/__init__.py", copy / "flat.py", plugin)), str(tmp_path / "helper.py")]
    assert depth == 4
    assert state == code.code_of("ncflow").state  # of what was copied
