"""The view of a sweep, on folders made by hand, with real locks and a ``squeue`` of our own on the PATH."""

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from ncflow.cli import status as status_cli
from ncflow.cli.status import duration, main
from ncflow.results import Report, Status, write_json
from ncflow.sweeps.squeue import Job, QueueError, ask_squeue, parse_squeue
from ncflow.sweeps.status import merge, read_state, survey, total_seconds_left
from tests.conftest import environment
from tests.terminals import in_a_terminal

PROGRAM = [sys.executable, "-c", "from ncflow.cli.status import main; main()"]


@pytest.fixture(autouse=True)
def squeue(tmp_path_factory, monkeypatch):
    """A PATH with the system's tools but no ``squeue``; call it to put one there that runs a shell script."""
    tools = tmp_path_factory.mktemp("tools")
    for name in ("sh", "cat", "sleep"):
        (tools / name).symlink_to(
            next(path for path in (Path("/bin") / name, Path("/usr/bin") / name) if path.exists())
        )
    monkeypatch.setenv("PATH", str(tools))

    def put(script):
        program = tools / "squeue"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    return put


def make(folder, state, *, name=None, experiment="exp", epochs=50, progress=None, job=None, log=None, **values):
    """A run's folder as the launcher and the run itself would leave it."""
    described = {"run_id": folder.name, "name": name or folder.name, "experiment": experiment, "epochs": epochs}
    folder.mkdir(parents=True)
    if job is not None:
        write_json(folder / "job.json", {**described, "job": job, "log": log})
    if progress is not None:
        epoch, seconds = progress
        write_json(folder / "progress.json", {"epoch": epoch, "epochs": epochs, "seconds": seconds})
    if state != Status.PENDING:
        write_json(
            folder / "run.json",
            {**described, "status": Status.FAILED if state == Status.FAILED else Status.RUNNING, **values},
        )
    if state in (Status.DONE, "diverged"):
        write_json(folder / "result.json", {**described, "status": state, **values})
    return folder


@contextmanager
def at_work(*folders):
    """Another process that holds the locks of these folders."""
    code = (
        "import sys; from contextlib import ExitStack; from pathlib import Path; from ncflow.results import lock\n"
        "with ExitStack() as stack:\n"
        "    for folder in sys.argv[1:]: stack.enter_context(lock(Path(folder)).acquire(timeout=0))\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, *map(str, folders)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield
        finally:
            process.communicate()


def call(*arguments, **extra):
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], env=environment(extra), capture_output=True, text=True, timeout=60
    )


def shown(capsys, *arguments):
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def as_objects(capsys, *arguments):
    return {run["name"]: run for run in json.loads(shown(capsys, *arguments, "--json"))}


def row_of(output, name):
    (row,) = [line.split() for line in output.splitlines() if name in line.split()]
    return row


def state(**values):
    given = {"status": Status.RUNNING, "folder": "f", **values}
    own = {name: given.pop(name) for name in list(given) if name in ("name", "experiment", "epochs", "seconds")}
    progress = {"epoch": given.pop("epoch")} if "epoch" in given else {}
    return Report(values={"name": "n", "experiment": "exp", **own}, progress=progress, **given)


# --- the folders' view


def test_a_sweep_of_every_kind(tmp_path, capsys):
    done = {"train/accuracy": 0.98765, "train/intra_min": 0.43219, "seconds": 100.0}
    make(tmp_path / "finished", Status.DONE, progress=(49, 90.0), **done)
    make(tmp_path / "diverging", "diverged", progress=(7, 7.0))
    make(tmp_path / "broken", Status.FAILED, error="OutOfMemoryError: no memory")
    make(tmp_path / "stopped", Status.INTERRUPTED, progress=(20, 40.0))
    make(tmp_path / "queued", Status.PENDING)
    write_json(tmp_path / "queued" / "job.json", {"name": "queued", "experiment": "exp", "epochs": 50})
    working = make(tmp_path / "working", Status.RUNNING, progress=(10, 600.0))
    with at_work(working):
        lines = shown(capsys, tmp_path).splitlines()
    assert lines[0].startswith("6 runs: 1 done, 1 running, 1 pending, 1 interrupted, 1 failed, 1 diverged; about ")
    output = "\n".join(lines)
    assert "squeue" not in output
    assert row_of(output, "epoch") == ["status", "run", "epoch", "left", "accuracy", "intra_min"]
    assert row_of(output, "finished") == ["done", "finished", "50/50", "0.9877", "0.4322"]
    assert row_of(output, "diverging") == ["diverged", "diverging", "7/50"]
    assert row_of(output, "broken") == ["failed", "broken", "-/50"]
    assert row_of(output, "stopped") == ["interrupted", "stopped", "20/50"]
    assert row_of(output, "queued") == ["pending", "queued", "0/50"]
    assert row_of(output, "working") == ["running", "working", "10/50", "40", "min"]
    assert lines[-1] == f"failed: broken: OutOfMemoryError: no memory; log: {tmp_path}/broken/ncflow.log"


def test_json_has_an_object_for_every_run(tmp_path, capsys):
    done = {"train/accuracy": 1.0, "train/intra_min": 0.5, "seconds": 100.0}
    make(tmp_path / "a", Status.DONE, experiment="pan_cao/fig2", **done)
    working = make(tmp_path / "b", Status.RUNNING, progress=(10, 600.0))
    with at_work(working):
        runs = json.loads(shown(capsys, tmp_path, "--json"))
    nothing = dict.fromkeys(("job", "log", "error", "reason", "seconds_left", "accuracy", "intra_min"))
    of_a = {"folder": str(tmp_path / "a"), "status": "done", "name": "a", "experiment": "pan_cao/fig2", "run_id": "a"}
    of_b = {"folder": str(tmp_path / "b"), "status": "running", "name": "b", "experiment": "exp", "run_id": "b"}
    assert runs == [
        {**nothing, **of_a, "epoch": 50, "epochs": 50, "seconds": 100.0, "accuracy": 1.0, "intra_min": 0.5},
        {**nothing, **of_b, "epoch": 10, "epochs": 50, "seconds": 600.0, "seconds_left": 2400.0},
    ]


def test_a_failed_run_names_its_own_log_or_else_that_of_its_job(tmp_path):
    folder = make(tmp_path / "a", Status.FAILED, job="7", log="/logs/7.out", error="boom")
    assert read_state(folder).log == "/logs/7.out"
    (folder / "ncflow.log").write_text("Traceback")
    assert read_state(folder).log == str(folder / "ncflow.log")
    assert read_state(make(tmp_path / "b", Status.PENDING, job="8", log="/logs/8.out")).log == "/logs/8.out"


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path, capsys):
    for identity in ("0a", "0b"):
        make(tmp_path / f"mlp-{identity}", Status.INTERRUPTED, name="mlp")
    make(tmp_path / "other-0c", Status.INTERRUPTED, name="other")
    output = shown(capsys, tmp_path)
    assert row_of(output, "mlp-0a")
    assert row_of(output, "mlp-0b")
    assert row_of(output, "other")


def test_experiments_have_tables_of_their_own(tmp_path, capsys):
    make(tmp_path / "a", Status.INTERRUPTED, experiment="pan_cao/fig2")
    make(tmp_path / "b", Status.DONE, experiment="pan_cao/fig3")
    lines = shown(capsys, tmp_path).splitlines()
    assert lines[0] == "2 runs: 1 done, 1 interrupted"
    assert lines[lines.index("pan_cao/fig2: 1 interrupted") + 2].split() == ["interrupted", "a", "-/50"]
    assert lines[lines.index("pan_cao/fig3: 1 done") + 2].split() == ["done", "b", "50/50"]


def test_of_many_runs_the_done_ones_are_counted(tmp_path, capsys):
    for index in range(39):
        make(tmp_path / f"done{index}", Status.DONE)
    make(tmp_path / "stopped", Status.INTERRUPTED)
    few = shown(capsys, tmp_path)
    assert row_of(few, "done38")
    assert "--all" not in few
    make(tmp_path / "diverging", "diverged")
    many = shown(capsys, tmp_path)
    assert many.splitlines()[0] == ("41 runs: 39 done, 1 interrupted, 1 diverged; done ones are not listed (--all)")
    assert "done38" not in many
    assert row_of(many, "stopped")
    assert row_of(many, "diverging")
    everything = shown(capsys, tmp_path, "--all")
    assert row_of(everything, "done38")
    assert "--all" not in everything
    assert len(as_objects(capsys, tmp_path)) == 41


def test_folders_that_overlap_count_once(tmp_path, capsys, monkeypatch):
    make(tmp_path / "runs" / "a", Status.DONE)
    monkeypatch.chdir(tmp_path)
    assert shown(capsys, "runs", tmp_path / "runs", "runs/a").startswith("1 run: 1 done\n")


@pytest.mark.parametrize(
    "content",
    ["", '{"epo', "[1]", "null", "\x00", "[" * 100_000, "1" * 10_000, '{"status": 3, "job": {}, "name": []}'],
)
def test_torn_and_foreign_files_do_no_harm(tmp_path, capsys, content):
    for name in ("result.json", "run.json", "job.json", "progress.json"):
        make(tmp_path / name, Status.INTERRUPTED, job="7")
        (tmp_path / name / name).write_text(content)
    (tmp_path / "all").mkdir()
    for name in ("result.json", "run.json", "job.json", "progress.json"):
        (tmp_path / "all" / name).write_text(content)
    assert "5 runs: " in shown(capsys, tmp_path)
    assert len(json.loads(shown(capsys, tmp_path, "--json"))) == 5


def test_a_run_whose_group_has_yet_to_end_an_epoch_is_readable(tmp_path):
    stopped = make(tmp_path / "a", Status.INTERRUPTED)
    (stopped / "progress.json").symlink_to("../.stacked/0123abcd/progress.json")
    assert read_state(stopped).status == Status.INTERRUPTED


@pytest.mark.parametrize(
    ("epoch", "epochs", "seconds"),
    [
        (-1, 50, 10),
        (True, 50, 10),
        pytest.param(5, 10**400, 10, id="huge"),
        (5, 50, "10"),
        (5, 50, -3),
        (0, 50, 10),
        (5, "x", None),
    ],
)
def test_impossible_progress_gives_no_time(tmp_path, epoch, epochs, seconds):
    folder = make(tmp_path / "a", Status.RUNNING, epochs="many")
    (folder / "progress.json").write_text(json.dumps({"epoch": epoch, "epochs": epochs, "seconds": seconds}))
    with at_work(folder):
        found = survey([tmp_path]).runs
    assert [(run.status, run.seconds_left) for run in found] == [(Status.RUNNING, None)]
    assert total_seconds_left(found) is None


def test_a_folder_that_may_not_be_read_is_a_row(tmp_path, capsys, monkeypatch):
    make(tmp_path / "mine", Status.DONE)
    make(tmp_path / "theirs", Status.DONE)
    read_text = Path.read_text

    def refuse(path, *arguments, **options):
        if "theirs" in path.parts:
            raise PermissionError(13, "Permission denied")
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    output = shown(capsys, tmp_path)
    assert "1 done, 1 unreadable" in output
    assert "unreadable: theirs: PermissionError: [Errno 13] Permission denied" in output


# --- time


def test_time_left_is_the_mean_epoch_times_the_epochs_left():
    assert state(epoch=10, epochs=50, seconds=600.0).seconds_left == 2400.0
    assert state(epoch=50, epochs=50, seconds=600.0).seconds_left == 0.0
    assert state(epoch=60, epochs=50, seconds=600.0).seconds_left == 0.0
    assert state(epoch=None, epochs=50, seconds=600.0).seconds_left is None
    assert state(epoch=10, epochs=None, seconds=600.0).seconds_left is None
    assert state(status=Status.PENDING, epoch=10, epochs=50, seconds=600.0).seconds_left is None


def test_total_time_is_the_work_left_over_the_runs_that_go_on_at_a_time():
    half = state(epoch=5, epochs=10, seconds=50.0)  # 50 s left
    ended = state(status=Status.DONE, epoch=10, epochs=10, seconds=200.0)  # 20 s an epoch
    waiting = state(status=Status.PENDING, epoch=0, epochs=10)  # at 15 s, the mean of the two others
    assert total_seconds_left([half]) == 50.0
    assert total_seconds_left([half, ended, waiting]) == 200.0
    assert total_seconds_left([half, half, ended, waiting, waiting]) == pytest.approx((100 + 2 * 400 / 3) / 2)
    assert total_seconds_left([half, half, half, ended, waiting]) == 125.0  # not before its longest run
    assert total_seconds_left([half, state(status=Status.PENDING, epoch=9, epochs=10, seconds=900.0)]) == 150.0


def test_no_total_time_where_it_would_be_made_up():
    half = state(epoch=5, epochs=10, seconds=50.0)
    waiting = state(status=Status.PENDING, epoch=0, epochs=10)
    assert total_seconds_left([]) is None
    assert total_seconds_left([state(status=Status.DONE, epoch=5, epochs=10, seconds=50.0)]) is None
    assert total_seconds_left([state(status=Status.DONE, epoch=5, epochs=10, seconds=50.0), waiting]) is None
    assert total_seconds_left([half, state(status=Status.PENDING, epoch=0, epochs=10, experiment="other")]) is None
    assert total_seconds_left([half, state(status=Status.PENDING, epoch=0, epochs=None)]) is None
    assert total_seconds_left([half, state(status=Status.INTERRUPTED, epoch=0, epochs=10, experiment="other")]) == 50.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3599, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86399, "1 d 00 h"),
        (100 * 86400, "100 d 00 h"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


# --- SLURM


def test_parsing_squeue():
    output = (
        "CLUSTER: one\n345_3|PENDING|ReqNodeNotAvail, May be|reserved\n\n345_4|RUNNING|None\n 346|TIMEOUT|\nnoise\n"
    )
    assert parse_squeue(output) == {
        "345_3": Job("PENDING", "ReqNodeNotAvail, May be|reserved"),
        "345_4": Job("RUNNING", "None"),
        "346": Job("TIMEOUT", ""),
    }


GONE = "job 7 is gone: the same ncflow command submits it again"


@pytest.mark.parametrize(
    ("before", "job", "after", "reason"),
    [
        (Status.PENDING, Job("PENDING", "Priority"), Status.PENDING, "Priority"),
        (Status.INTERRUPTED, Job("PENDING", "BeginTime"), Status.PENDING, "BeginTime"),
        (Status.INTERRUPTED, Job("REQUEUED", "None"), Status.PENDING, None),
        (
            Status.INTERRUPTED,
            Job("REQUEUE_HOLD", "job requeued in held state"),
            Status.PENDING,
            "job requeued in held state",
        ),
        (Status.FAILED, Job("PENDING", "Resources"), Status.PENDING, "Resources"),
        (Status.PENDING, Job("RUNNING", "None"), Status.RUNNING, None),
        (Status.INTERRUPTED, Job("RUNNING", "None"), Status.RUNNING, None),
        (Status.PENDING, Job("CONFIGURING", "None"), Status.RUNNING, "CONFIGURING"),
        (Status.INTERRUPTED, Job("COMPLETING", "None"), Status.RUNNING, "COMPLETING"),
        (Status.INTERRUPTED, Job("SUSPENDED", "None"), Status.RUNNING, "SUSPENDED"),
        (Status.PENDING, None, Status.INTERRUPTED, GONE),
        (Status.INTERRUPTED, None, Status.INTERRUPTED, GONE),
        (Status.PENDING, Job("CANCELLED", "None"), Status.INTERRUPTED, f"{GONE} (CANCELLED)"),
        (Status.INTERRUPTED, Job("FAILED", "NonZeroExitCode"), Status.INTERRUPTED, f"{GONE} (FAILED)"),
        (Status.INTERRUPTED, Job("TIMEOUT", "TimeLimit"), Status.INTERRUPTED, f"{GONE} (TIMEOUT)"),
        (Status.INTERRUPTED, Job("NODE_FAIL", "None"), Status.INTERRUPTED, f"{GONE} (NODE_FAIL)"),
        (Status.INTERRUPTED, Job("OUT_OF_MEMORY", "OutOfMemory"), Status.INTERRUPTED, f"{GONE} (OUT_OF_MEMORY)"),
        (Status.INTERRUPTED, Job("COMPLETED", "None"), Status.INTERRUPTED, f"{GONE} (COMPLETED)"),
        (Status.FAILED, Job("RUNNING", "None"), Status.FAILED, None),
        (Status.FAILED, None, Status.FAILED, None),
        (Status.RUNNING, None, Status.RUNNING, None),
        (Status.DONE, Job("RUNNING", "None"), Status.DONE, None),
    ],
)
def test_files_and_queue_together(before, job, after, reason):
    jobs = {"70": Job("RUNNING", "None"), "7_1": Job("RUNNING", "None")} | ({"7": job} if job else {})
    error = "boom" if before == Status.FAILED else ""
    found = merge(state(status=before, job="7", error=error), jobs)
    assert (found.status, found.reason) == (after, reason)
    assert found.error == (error if after == Status.FAILED else "")


def test_a_run_without_a_job_is_none_of_slurms_business():
    run = state(status=Status.INTERRUPTED)
    assert merge(run, {}) == run


def test_squeue_is_asked_once_for_all(tmp_path, capsys, squeue, monkeypatch):
    calls = tmp_path / "calls"
    squeue(
        f'echo "$@" >> {calls}; [ -z "$SQUEUE_PARTITION" ] || exit 1\n'
        'echo "345_0|PENDING|Priority"; echo "345_1|RUNNING|None"; echo "345_3|TIMEOUT|TimeLimit"; echo "1|RUNNING|"'
    )
    monkeypatch.setenv("SQUEUE_PARTITION", "gpu")
    runs = tmp_path / "runs"
    make(runs / "waiting", Status.PENDING, job="345_0")
    make(runs / "remote", Status.INTERRUPTED, job="345_1", progress=(10, 600.0))
    make(runs / "lost", Status.PENDING, job="345_2", log="/logs/345_2.out")
    make(runs / "slow", Status.INTERRUPTED, job="345_3")
    make(runs / "local", Status.INTERRUPTED)
    make(runs / "finished", Status.DONE, job="345_4")
    held = make(runs / "held", Status.RUNNING, job="345_5")
    with at_work(held):
        output = shown(capsys, runs)
        objects = as_objects(capsys, runs)
    assert calls.read_text().splitlines() == ["-h -r -a -t all -o %i|%T|%r"] * 2
    assert output.startswith("7 runs: 1 done, 2 running, 1 pending, 3 interrupted")
    assert row_of(output, "waiting") == ["pending", "waiting", "0/50", "345_0", "Priority"]
    assert row_of(output, "remote") == ["running", "remote", "10/50", "40", "min", "345_1"]
    assert row_of(output, "held") == ["running", "held", "-/50", "345_5"]
    gone = "is gone: the same ncflow command submits it again"
    assert f"interrupted: lost: job 345_2 {gone}; log: /logs/345_2.out" in output.splitlines()
    assert f"interrupted: slow: job 345_3 {gone} (TIMEOUT)" in output.splitlines()
    assert {name: run["status"] for name, run in objects.items()} == {
        "waiting": "pending",
        "remote": "running",
        "lost": "interrupted",
        "slow": "interrupted",
        "local": "interrupted",
        "finished": "done",
        "held": "running",
    }
    assert objects["lost"]["reason"] == f"job 345_2 {gone}"
    assert objects["local"]["reason"] is None
    assert objects["remote"]["seconds_left"] == 2400.0


def test_squeue_is_not_asked_where_no_job_is_open(tmp_path, capsys, squeue):
    calls = tmp_path / "calls"
    squeue(f"echo call >> {calls}")
    make(tmp_path / "finished", Status.DONE, job="345_4")
    make(tmp_path / "local", Status.INTERRUPTED)
    assert "squeue" not in shown(capsys, tmp_path)
    assert not calls.exists()
    make(tmp_path / "queued", Status.PENDING, job="345_5")
    shown(capsys, tmp_path)
    assert calls.read_text() == "call\n"


def test_without_squeue_the_folders_alone_tell(tmp_path, capsys):
    make(tmp_path / "queued", Status.PENDING, job="345_5")
    output = shown(capsys, tmp_path)
    assert output.splitlines()[:2] == [
        "1 run: 1 pending",
        "squeue is not on the PATH: this is what the folders alone tell",
    ]
    main([str(tmp_path), "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["status"] == "pending"
    assert err == "ncflow-status: squeue is not on the PATH: this is what the folders alone tell\n"


def test_a_squeue_that_fails_is_named_in_one_line(tmp_path, capsys, squeue):
    squeue(
        'echo "slurm_load_jobs error: one" >&2; echo "squeue: fatal: no controller" >&2; echo "7|RUNNING|None"; exit 1'
    )
    make(tmp_path / "queued", Status.PENDING, job="7")
    lines = shown(capsys, tmp_path).splitlines()
    assert lines[:2] == [
        "1 run: 1 pending",
        "squeue failed (squeue: fatal: no controller): this is what the folders alone tell",
    ]


def test_squeue_that_fails_without_a_word_or_cannot_be_run(squeue):
    program = squeue("exit 3")
    with pytest.raises(QueueError, match=r"squeue failed \(exit code 3\)"):
        ask_squeue()
    program.write_text("#!/no/such/shell\n")
    with pytest.raises(QueueError, match="squeue cannot be run"):
        ask_squeue()


def test_a_slow_squeue_is_given_up(squeue):
    squeue("exec sleep 30")
    start = time.monotonic()
    with pytest.raises(QueueError, match=r"squeue did not answer within 0\.2 s"):
        ask_squeue(timeout=0.2)
    assert time.monotonic() - start < 10


def test_a_run_that_ends_while_squeue_answers_is_done(tmp_path, squeue):
    folder = make(tmp_path / "a", Status.INTERRUPTED, job="7")
    result = json.dumps({"name": "a", "status": "done", "epochs": 50})
    squeue(f"echo '{result}' > {folder}/result.json")
    (run,) = survey([tmp_path]).runs
    assert (run.status, run.reason) == (Status.DONE, None)


# --- the output


HOSTILE = "[red]boom[/red] :smile: \x1b[31mred\x1b[0m\x07\r\n\ud800 end"


def test_pipes_get_plain_text_and_whole_names(tmp_path, squeue):
    squeue('echo "7|PENDING|Priority"')
    name = "conic_hull-" + "x" * 200 + "-seed0"
    make(tmp_path / "a", Status.PENDING, name=name, job="7")
    make(tmp_path / "b", Status.FAILED, name="b" + HOSTILE, error=HOSTILE, experiment=HOSTILE)
    done = call(tmp_path, COLUMNS="20", FORCE_COLOR="1", TTY_COMPATIBLE="1", TERM="xterm-256color")
    assert (done.returncode, done.stderr) == (0, "")
    assert row_of(done.stdout, name) == ["pending", name, "0/50", "7", "Priority"]
    assert not {character for character in done.stdout if not character.isprintable()} - {"\n"}
    assert "[red]boom[/red] :smile: ?[31mred?[0m? ? end; log: " in done.stdout


def test_json_keeps_every_letter(tmp_path, capsys):
    make(tmp_path / "a", Status.FAILED, error=HOSTILE + "x " * 2000)
    assert as_objects(capsys, tmp_path)["a"]["error"] == HOSTILE + "x " * 2000


def test_long_errors_are_cut_but_not_their_logs(tmp_path, capsys):
    make(tmp_path / "a", Status.FAILED, error="x" * 5000)
    (line,) = [line for line in shown(capsys, tmp_path).splitlines() if line.startswith("failed: ")]
    assert line == f"failed: a: {'x' * 500} ...; log: {tmp_path}/a/ncflow.log"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a pseudo-terminal")
def test_a_terminal_gets_colours_and_ctrl_c_ends_watching(tmp_path):
    make(tmp_path / "queued", Status.PENDING)
    write_json(tmp_path / "queued" / "job.json", {"name": "queued"})
    make(tmp_path / "broken", Status.FAILED, error=HOSTILE)
    once, code = in_a_terminal([*PROGRAM, tmp_path])
    assert code == 0
    assert "\x1b[31mfailed" in once
    assert "\x1b[31mred" not in once
    watched, code = in_a_terminal([*PROGRAM, tmp_path, "--watch", "60"], interrupt_after=b"1 failed")
    assert code == 0
    assert "Traceback" not in watched
    assert watched.count("2 runs: 1 pending, 1 failed") >= 2  # the live view, and what stays


@pytest.mark.skipif(sys.platform != "linux", reason="needs a pseudo-terminal")
def test_a_narrow_terminal_folds_names(tmp_path):
    make(tmp_path / "a", Status.INTERRUPTED, name="abcdefghij" * 5)
    narrow, code = in_a_terminal([*PROGRAM, tmp_path], columns=40)
    assert code == 0
    assert narrow.count("abcdefghij") == 5


def test_watching_ends_when_nothing_is_running_or_pending(tmp_path):
    working = make(tmp_path / "a", Status.RUNNING, progress=(10, 600.0))
    command = [*PROGRAM, str(tmp_path), "--watch", "0.1"]
    with (
        at_work(working),
        subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process,
    ):
        first = [process.stdout.readline() for _ in range(20)]  # several views: it goes on
        assert process.poll() is None
        assert first[0] == "1 run: 1 running; about 40 min left\n"
        assert first.count(first[0]) > 1
        write_json(working / "result.json", {"name": "a", "epochs": 50, "status": "done"})
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert rest.count("1 run: 1 done\n") == 1


def test_watching_goes_on_while_there_is_work(tmp_path, capsys, monkeypatch):
    queued = make(tmp_path / "a", Status.PENDING)
    write_json(queued / "job.json", {"name": "a", "epochs": 50})
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        assert len(waited) <= 2
        if len(waited) == 2:
            write_json(queued / "result.json", {"name": "a", "epochs": 50, "status": "done"})

    monkeypatch.setattr(status_cli.time, "sleep", sleep)
    views = shown(capsys, tmp_path, "--watch", "5").strip().split("\n\n1 run")
    assert waited == [5.0, 5.0]
    assert [view.splitlines()[0].split(": ")[1] for view in views] == ["1 pending", "1 pending", "1 done"]


# --- the command line


@pytest.mark.parametrize("options", [[], ["--json"], ["--watch", "1"]])
def test_a_folder_that_is_missing_or_empty_is_named_in_one_line(tmp_path, capsys, options):
    make(tmp_path / "runs" / "a", Status.DONE)
    (tmp_path / "empty").mkdir()
    for folder, words in (("missing", "no folder"), ("empty", "no runs below")):
        with pytest.raises(SystemExit) as ended:
            main([str(tmp_path / "runs"), str(tmp_path / folder), *options])
        assert ended.value.code == 2
        out, err = capsys.readouterr()
        assert (out, err) == ("", f"ncflow-status: error: {words} {tmp_path / folder}\n")


@pytest.mark.parametrize(
    "options", [["--watch", "0"], ["--watch", "nan"], ["--watch", "x"], ["--json", "--watch", "1"]]
)
def test_impossible_options_are_refused(tmp_path, capsys, options):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), *options])
    assert ended.value.code == 2
    assert "--watch" in capsys.readouterr().err


def test_it_starts_without_the_heavy_libraries():
    heavy = ["torch", "lightning", "pandas", "numpy", "matplotlib", "hydra", "omegaconf", "wandb"]
    code = f"import sys, ncflow.cli.status; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_a_reader_that_stops_early_is_no_error(tmp_path):
    for index in range(300):
        make(tmp_path / f"run{index}", Status.INTERRUPTED)
    with subprocess.Popen(
        [*PROGRAM, str(tmp_path), "--json"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
