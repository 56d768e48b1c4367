"""W&B, offline: what a run sends is read back from the file that ``wandb sync`` would send."""

import json
import struct

import pytest

from ncflow.loggers import _has_key
from tests.conftest import TINY, run_folder


def records(path):
    """Records of an offline W&B file: LevelDB's log framing around W&B's protobuf."""
    from wandb.proto import wandb_internal_pb2

    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, part = 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", content[position : position + 7])
        data = content[position + 7 : position + 7 + size]
        if (kind == 0 and size == 0) or len(data) < size:
            break
        position += 7 + size
        part = data if kind in (1, 2) else part + data
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            yield record


def read(folder):
    """(run, history rows) of each offline file in a run's folder, oldest first."""
    runs = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime):
        run, rows = None, []
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = record.run
            elif kind == "history":
                rows.append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item})
        runs.append((run, rows))
    return runs


@pytest.fixture
def offline(ncflow, tmp_path):
    """``ncflow`` in a home without W&B key."""
    return lambda *arguments: ncflow(*arguments, "logger=wandb", env={"HOME": str(tmp_path), "NETRC": "/nonexistent"})


def test_offline_without_a_key_and_the_same_run_after_a_resume(offline, tmp_path):
    done = offline(*TINY, "experiment=quickstart", "hydra.mode=RUN", "epochs=6", "data.num_samples=300")
    assert done.returncode == 0, done.stderr
    assert "no key found, so the run is kept offline" in done.stdout
    folder = run_folder(tmp_path)
    ((run, rows),) = read(folder)
    assert run.display_name == folder.name.rsplit("-", 1)[0]
    assert run.run_group == "quickstart"
    config = {update.key or ".".join(update.nested_key): json.loads(update.value_json) for update in run.config.update}
    assert config["data.name"] == "conic_hull"
    assert [row["epoch"] for row in rows if "train/intra_min" in row] == [0, 5, 6]
    assert any("test/inter_max" in row for row in rows)

    (folder / "result.json").unlink()
    again = offline(*TINY, "experiment=quickstart", "hydra.mode=RUN", "epochs=6", "data.num_samples=300")
    assert again.returncode == 0, again.stderr
    runs = read(folder)
    assert len(runs) == 2
    assert {run.run_id for run, _ in runs} == {run.run_id}


def test_two_runs_of_a_sweep_are_two_runs(offline, tmp_path):
    done = offline("-m", *TINY, "seed=0,1")
    assert done.returncode == 0, done.stderr
    found = [read(folder)[0] for folder in sorted(tmp_path.glob("runs/single/*-seed*"))]
    assert len({run.run_id for run, _ in found}) == 2
    assert all(sum("train/intra_min" in row for row in rows) == 3 for _, rows in found)


def test_key_is_looked_for_without_asking_a_server(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not _has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert _has_key()
    monkeypatch.setenv("NETRC", "/nonexistent")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert _has_key()
