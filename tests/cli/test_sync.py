"""``ncflow-sync``: offline W&B runs reach a server once each, in order, whatever fails; no file is changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import chain
from pathlib import Path

import pytest
from filelock import FileLock

from ncflow.cli import sync
from ncflow.results import lock
from ncflow.runtime import wandb_sync
from ncflow.runtime.wandb_sync import offline_runs
from tests.conftest import environment
from tests.wandb_files import files, read
from tests.wandb_server import listening, nowhere, serving

KEY = "k" * 40
# A run each of the first names, and one that was started three times, with 5 rows each.
OFFLINE = """
import time
from pathlib import Path
from ncflow.runtime.wandb_logger import wandb_logger
for name, attempts in (("a", 1), ("b", 1), ("c", 1), ("resumed", 3)):
    for attempt in range(attempts):
        Path("sweep", name).mkdir(parents=True, exist_ok=True)
        logger = wandb_logger(Path("sweep", name), {"name": name, "experiment": "e"}, "ncflow", None, True)
        logger.open()
        for epoch in range(5 * attempt, 5 * attempt + 5):
            logger.log_metrics({"train/loss": 1.0, "epoch": epoch}, step=epoch)
        if name == "b":
            logger.fail("no memory")
        logger.finish({"status": "done"})
        time.sleep(1.1 if attempts > 1 else 0)  # W&B names folders by the second
"""


def of_user(folder, url=None):
    """The environment of somebody with a server and its key, or with neither."""
    home = {"HOME": str(folder), "NETRC": "/nonexistent", "no_proxy": "127.0.0.1", "WANDB_ERROR_REPORTING": "false"}
    return home | ({"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY} if url else {})


@pytest.fixture(scope="module")
def kept(warm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    done = warm.run([], folder, timeout=120, environment=of_user(folder) | {"WANDB_MODE": "offline"}, program=OFFLINE)
    assert done.code == 0, done.stderr
    return folder / "sweep"


@pytest.fixture
def sweep(kept, tmp_path):
    """A copy of the runs; by name, the id of each."""
    shutil.copytree(kept, tmp_path / "sweep", symlinks=True)
    return tmp_path / "sweep"


@pytest.fixture
def call(tmp_path):
    def run(*arguments, url=None, **env):
        program = [sys.executable, "-m", "ncflow.cli.sync", *map(str, arguments)]
        env = environment(of_user(tmp_path, url)) | env
        return subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """``ncflow-sync`` in this process; its exit code and lines."""

    def run(*arguments, url):
        monkeypatch.setattr(os, "environ", os.environ)
        for name, value in environment(of_user(tmp_path, url)).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        code = 0
        try:
            sync.main([*map(str, arguments)])
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().out.splitlines()

    return run


def identity(sweep, name):
    return json.loads((sweep / name / "wandb.json").read_text())["id"]


def epochs(server, sweep, name):
    return [row["epoch"] for row in server.stored(identity(sweep, name))] if server.rows else []


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def assert_all_sent(server, sweep):
    assert {name: epochs(server, sweep, name) for name in "abc"} == {name: [0, 1, 2, 3, 4] for name in "abc"}
    assert epochs(server, sweep, "resumed") == [*range(15)]
    assert len(server.rows) == 4


def refusing(server, refused):
    """Let the server refuse the runs of these ids."""
    usual = server.answer

    def answer(path, question):
        if question.get("operationName") == "UpsertBucket" and question["variables"]["name"] in refused:
            return {"errors": [{"message": "permission denied"}]}
        return usual(path, question)

    server.answer = answer


def test_all_that_is_offline_is_sent_once_and_no_file_is_changed(sweep, call):
    before = contents(sweep)
    with serving() as server:
        done = call("sweep", "sweep/a", "--jobs", 2, url=server.url, WANDB_MODE="offline", WANDB_SILENT="true")
        assert done.returncode == 0, done.stderr
        *lines, last = done.stdout.splitlines()
        assert sorted(lines) == [f"sent: sweep/{name}" for name in ("a", "b", "c", "resumed")]
        assert last == "4 runs: 4 sent"
        assert_all_sent(server, sweep)
        ((title, text),) = server.alerts
        assert (title, text.split("; ")[0]) == ("ncflow: a run failed", "b failed: no memory")

        after = contents(sweep)
        assert {path: after[path] for path in before} == before
        new = {path for path in after.keys() - before.keys() if path.name != ".ncflow-sync.lock"}
        assert all("offline-run-" in str(path) for path in new)
        assert len([path for path in new if path.name.endswith(".wandb.synced")]) == 6
        assert not [path for path in new if "ncflow" in path.name]  # all of them are W&B's own

        server.asked.clear()
        again = call(sweep, url=server.url)
        assert (again.returncode, again.stdout) == (0, "4 runs: 0 sent, 4 sent before\n")
        assert not server.asked
    assert contents(sweep) == after


def test_so_many_runs_as_asked_for_are_sent_at_a_time(sweep, call):
    together = threading.Barrier(3)
    with serving() as server:
        usual, met = server.answer, set()

        def answer(path, question):
            name = question.get("variables", {}).get("name")
            if (
                question.get("operationName") == "UpsertBucket"
                and name not in met
                and name != identity(sweep, "resumed")
            ):
                met.add(name)
                together.wait(60)  # breaks unless three runs are at it at once
            return usual(path, question)

        server.answer = answer
        done = call(sweep, "--jobs", 3, url=server.url)
        assert done.returncode == 0, done.stdout
        assert_all_sent(server, sweep)


def test_what_fails_keeps_nothing_else_from_being_sent_and_is_sent_the_next_time(sweep, call):
    (unreadable,) = files(sweep / "b")
    whole = unreadable.read_bytes()
    unreadable.write_bytes(b"no file of W&B's")  # with which `wandb sync` sends none of them, and says success
    with serving() as server:
        refused = {identity(sweep, "c")}
        refusing(server, refused)
        done = call("sweep", url=server.url)
        assert done.returncode == 1
        lines = done.stdout.splitlines()
        assert lines[-1] == "4 runs: 2 sent, 2 failed"
        assert {"sent: sweep/a", "sent: sweep/resumed"} < {*lines}
        (broken,) = [line for line in lines if line.startswith("failed: sweep/b: ")]
        assert "header" in broken
        assert "failed: sweep/c: wandb sync says: Error initializing run: input: permission denied" in lines

        unreadable.write_bytes(whole)
        refused.clear()
        done = call("sweep", url=server.url)
        assert done.stdout.splitlines()[-1] == "4 runs: 2 sent, 2 sent before"
        assert_all_sent(server, sweep)


def test_what_a_kill_left_is_sent_as_far_as_it_goes_and_the_later_attempts_after_it(sweep, call):
    """`wandb sync` leaves out what comes after a file that is cut short, and sends that file again for ever."""
    first, second, _ = files(sweep / "resumed")
    for path in (first, second):
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    rows = [[row["epoch"] for row in read(path).rows] for path in files(sweep / "resumed")]
    assert all(0 < len(found) < 5 for found in rows[:2])
    (never_written,) = files(sweep / "a")
    never_written.write_bytes(never_written.read_bytes()[:7])
    with serving() as server:
        done = call("sweep", url=server.url)
        assert done.returncode == 0, done.stdout
        assert done.stdout.splitlines()[-1] == "3 runs: 3 sent"
        assert epochs(server, sweep, "resumed") == [*chain(*rows)]
        for _ in range(2):
            assert call("sweep", url=server.url).stdout == "3 runs: 0 sent, 3 sent before\n"
        assert epochs(server, sweep, "resumed") == [*chain(*rows)]


def test_an_attempt_that_fails_is_not_overtaken_by_the_next(sweep, call):
    """Its rows would replace those of the next."""
    with serving() as server:
        refused = {identity(sweep, "resumed")}
        refusing(server, refused)
        assert call(sweep / "resumed", url=server.url).returncode == 1
        refused.clear()
        assert call(sweep / "resumed", url=server.url).stdout.endswith("1 run: 1 sent\n")
        assert epochs(server, sweep, "resumed") == [*range(15)]


def test_attempts_before_one_that_was_sent_count_as_sent_and_copies_once(sweep, tmp_path):
    shutil.copytree(sweep, tmp_path / "copy", symlinks=True)
    runs = {run.folder.name: run for run in offline_runs(tmp_path)}
    assert [len(run.attempts) for run in runs.values()] == [1, 1, 1, 3]
    _, second, third = files(sweep / "resumed")
    second.with_name(f"{second.name}.synced").touch()
    (run,) = offline_runs(tmp_path / "copy" / "resumed", sweep / "resumed")
    assert [attempt.folder.name for attempt in run.unsent()] == [third.parent.name]


def test_a_run_that_is_training_is_left(sweep, call):
    (sweep / "a" / "run.json").write_text(json.dumps({"run_id": "1", "status": "running"}))
    with serving() as server:
        with lock(sweep / "a"):
            done = call("sweep", url=server.url)
        assert done.returncode == 0, done.stdout
        lines = done.stdout.splitlines()
        assert (lines[0], lines[-1]) == ("still training: sweep/a", "4 runs: 3 sent, 1 still training")
        assert identity(sweep, "a") not in server.rows
        assert call("sweep", url=server.url).stdout.splitlines()[-1] == "4 runs: 1 sent, 3 sent before"
        assert_all_sent(server, sweep)


def test_after_a_kill_the_same_command_goes_on_and_what_it_started_ends(sweep, call, tmp_path):
    go_on, held = threading.Event(), identity(sweep, "c")
    with serving() as server:
        usual = server.answer

        def answer(path, question):
            if question.get("variables", {}).get("name") == held:
                go_on.wait(120)
            return usual(path, question)

        server.answer = answer
        program = [sys.executable, "-m", "ncflow.cli.sync", "sweep", "--jobs", "1"]
        env = environment(of_user(tmp_path, server.url))
        with subprocess.Popen(program, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout.readline().startswith("sent: ")
            started = below(running.pid)
            assert started
            running.send_signal(signal.SIGKILL)
        end = time.monotonic() + 60
        while any(is_alive(process) for process in started):
            assert time.monotonic() < end
            time.sleep(0.1)
        go_on.set()
        done = call("sweep", url=server.url)
        assert done.returncode == 0, done.stdout
        assert "sent before" in done.stdout
        assert [epochs(server, sweep, name) for name in "abc"] == [[0, 1, 2, 3, 4]] * 3
        # A kill may come between the last row and W&B's note of it, and a resumed attempt is added to what there is.
        assert [*dict.fromkeys(epochs(server, sweep, "resumed"))] == [*range(15)]


def test_two_of_them_do_not_send_a_run_twice(sweep, call):
    with serving() as server:
        with FileLock(sweep / "a" / "wandb" / ".ncflow-sync.lock"):
            done = call("sweep", url=server.url)
        assert done.returncode == 1
        assert "failed: sweep/a: another ncflow-sync is at work on it" in done.stdout.splitlines()
        assert identity(sweep, "a") not in server.rows
        assert len(server.rows) == 3


def below(process):
    """The processes that a process started, and theirs."""
    try:
        own = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [child for number in own for child in (int(number), *below(int(number)))]


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_server_that_goes_away_in_the_middle_is_said_and_not_waited_for(sweep, here, monkeypatch):
    monkeypatch.setattr(wandb_sync, "_SECONDS_WITHOUT_NEWS", 1.0)
    with serving() as server:
        usual = server.answer

        def answer(path, question):
            if path.endswith("/file_stream"):
                server.refusals["probe"] = 502
                server.closing.wait(120)
            return usual(path, question)

        server.answer = answer
        code, lines = here(sweep, url=server.url)
    assert code == 1
    assert lines[-1] == "4 runs: 0 sent, 4 failed"
    assert [line for line in lines if line.endswith(f": {server.url} answers 502")] == lines[:-1]


def test_what_is_missing_is_one_line(sweep, call, tmp_path):
    def complaint(done):
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        return line.removeprefix("ncflow-sync: error: ")

    (tmp_path / "empty").mkdir()
    assert complaint(call("nowhere")) == "no folder nowhere"
    assert complaint(call("empty")) == "no offline W&B runs below empty"
    assert complaint(call(sweep)) == "W&B: no key found: nothing was sent"
    url = nowhere()
    assert complaint(call(sweep, url=url)).startswith(f"W&B: {url} does not answer (")
    with listening() as url:
        assert complaint(call(sweep, url=url)).startswith(f"W&B: {url} does not answer")
    with serving() as server:
        server.refusals["probe"] = 401
        assert complaint(call(sweep, url=server.url)) == f"W&B: {server.url} refuses the key: nothing was sent"
    jobs = call(sweep, "--jobs", "0")
    assert (jobs.returncode, jobs.stderr.splitlines()[-1]) == (
        2,
        "ncflow-sync: error: argument --jobs: must be a number in 1..64, found '0'",
    )


def test_it_imports_nothing_heavy():
    code = "import sys, ncflow.cli.sync; print([name for name in sys.argv[1:] if name in sys.modules])"
    heavy = ["wandb", "torch", "lightning", "pandas", "numpy", "hydra", "pydantic", "rich"]
    assert subprocess.check_output([sys.executable, "-c", code, *heavy], text=True) == "[]\n"
