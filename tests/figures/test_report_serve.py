"""The page of a sweep that is going on, over HTTP."""

import http.client
import socket
from threading import Thread

import pytest

from ncflow.cli.figures import main
from ncflow.figures.report import serve as serving
from ncflow.figures.report.serve import PageServer, serve
from ncflow.results.records import state_of
from tests.figures.test_report import add_run


@pytest.fixture
def server():
    with PageServer(0) as server:
        server.show("7", b"the page")
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, path="/", method="GET", host=None):
    """Status, headers and content of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_there_is_one_page_and_its_version(server):
    status, headers, content = ask(server)
    assert (status, content) == (200, b"the page")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert ask(server, "/version")[2] == b"7"
    assert ask(server, method="HEAD")[::2] == (200, b"")
    assert [ask(server, path)[0] for path in ("/etc/passwd", "/../x", "/?a")] == [404] * 3
    assert [ask(server, method=method)[0] for method in ("POST", "PUT", "DELETE")] == [501] * 3


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "[", "localhost@evil"]
)
def test_a_site_whose_name_leads_here_is_refused(server, host):
    assert ask(server, host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1"])
def test_this_machine_is_answered_by_whatever_port_one_came(server, host):
    assert ask(server, host=host)[0] == 200


def test_only_this_machine_is_listened_to(server):
    assert server.server_address[0] == "127.0.0.1"


def test_a_page_is_built_anew_when_the_runs_changed_and_stays_where_that_fails(monkeypatch, capsys):
    states, built = iter([1, 1, 2, 3, 4]), []

    def build(version):
        built.append(version)
        if len(built) == 3:
            raise OSError("no runs below x")
        return f"page {len(built)}".encode()

    def state():
        try:
            return next(states)
        except StopIteration:
            raise KeyboardInterrupt from None

    server = PageServer(0)
    with pytest.raises(KeyboardInterrupt):
        serve(server, build, state, rest=0.0)
    assert len(set(built)) == 4
    assert (server.version, server.page) == (built[-1], b"page 4")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(server.address)
    assert [line[9:] for line in lines[1:]] == [
        "new results",
        "the page stays as it was: no runs below x",
        "new results",
    ]


def test_the_command_serves_the_report_and_ends_with_a_line(tmp_path, monkeypatch, capsys):
    for seed in (0, 1):
        add_run(tmp_path / "runs", f"r{seed}", seed=seed, **{"train/intra_min": 0.5})
    seen = []

    def look(server, build, state, known):
        seen.append(ask(server)[2])
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "_look", look)
    monkeypatch.setattr(serving, "_LEAST_REST", 0.0)
    monkeypatch.setattr(serving.time, "sleep", lambda seconds: None)
    before = sorted((tmp_path / "runs").rglob("*"))
    main([str(tmp_path / "runs"), "--serve", "0", "--out", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert b"data-live=" in seen[0]
    assert "2 runs: 2 done" in out
    assert out.splitlines()[-1] == "the page is not served any more"
    assert sorted((tmp_path / "runs").rglob("*")) == before
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_sweep_without_runs_has_a_page_that_waits_for_them(there, tmp_path, monkeypatch, capsys):
    folder, pages = tmp_path / "<runs>", []
    if there:
        folder.mkdir()
    look = serving._look

    def watched(server, *others):
        seen = look(server, *others)
        pages.append(ask(server)[2].decode())
        if len(pages) == 1:
            add_run(folder, "r", seed=0, **{"train/intra_min": 0.5})
        elif len(pages) == 2:
            raise KeyboardInterrupt
        return seen

    monkeypatch.setattr(serving, "_look", watched)
    monkeypatch.setattr(serving.time, "sleep", lambda seconds: None)
    main([str(folder), "--serve", "0", "--out", str(tmp_path / "out")])
    what = "no runs below" if there else "no folder"
    assert f"<h1>No runs yet</h1><p>{what} {tmp_path}/&lt;runs&gt;. This page looks again" in pages[0]
    assert 'http-equiv="refresh" content="5"' in pages[0]
    assert "data-live=" in pages[1]
    assert 'http-equiv="refresh"' not in pages[1]
    out = capsys.readouterr().out
    assert out.startswith(f"{what} {folder} yet: they are shown when they come\n")
    assert "1 run: 1 done" in out


def test_a_port_in_use_and_one_that_is_none_are_a_line(tmp_path, capsys):
    add_run(tmp_path, "r", seed=0)
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--serve", str(other.getsockname()[1])])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("is in use: choose another, --serve PORT")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--serve", "70000"])
    assert "must be a whole number from 0 (any that is free) to 65535, found '70000'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--serve", "--wandb"])
    assert "--serve and --wandb must not be given together" in capsys.readouterr().err


def test_a_state_is_that_of_all_runs(tmp_path):
    add_run(tmp_path, "a", seed=0)
    states = [state_of(tmp_path)]
    (tmp_path / "a" / "history.csv").write_text("epoch")
    states.append(state_of(tmp_path))
    add_run(tmp_path, "b", status="running")
    states.append(state_of(tmp_path))
    (tmp_path / "a" / "notes.txt").write_text("of somebody")
    assert len(set(states)) == 3
    assert state_of(tmp_path) == states[-1]
