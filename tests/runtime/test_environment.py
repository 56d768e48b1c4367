"""Which variables come from which file ``.env``: a stranger's folder has no say."""

import os

import pytest

from ncflow.runtime import environment
from ncflow.runtime.environment import NAMES, load_environment


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """A shell that sets none of the names, in a folder of its own; the checkout is another one."""
    for name in (*NAMES, "NCFLOW_ENV_FILE", "WANDB_BASE_URL"):
        monkeypatch.setenv(name, "")  # so that what a file adds is taken back
        monkeypatch.delenv(name)
    project = tmp_path / "project"
    (project / "conf").mkdir(parents=True)
    (project / "ncflow").mkdir()
    (project / "conf/train.yaml").touch()
    monkeypatch.setattr(environment, "_PACKAGE", project / "ncflow")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return monkeypatch


def test_a_file_in_the_working_directory_or_above_it_is_not_obeyed(shell, tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "cwd"):
        (folder / ".env").write_text("WANDB_PROJECT=theirs\nWANDB_BASE_URL=http://theirs\n")
    load_environment()
    assert "WANDB_PROJECT" not in os.environ
    assert "WANDB_BASE_URL" not in os.environ
    assert capsys.readouterr().err == ""


def test_the_projects_file_is_read_from_anywhere_and_an_installed_package_has_none(shell, tmp_path):
    (tmp_path / "project/.env").write_text("WANDB_PROJECT=ours\n")
    (tmp_path / "project/ncflow/conf").mkdir()
    load_environment()
    assert "WANDB_PROJECT" not in os.environ
    (tmp_path / "project/ncflow/conf").rmdir()
    load_environment()
    assert os.environ["WANDB_PROJECT"] == "ours"


@pytest.mark.parametrize(
    "name", ["WANDB_BASE_URL", "PYTHONPATH", "LD_PRELOAD", "NCFLOW_MAIN_PROCESS", "HYDRA_FULL_ERROR"]
)
def test_other_names_in_a_named_file_are_left_out_with_one_line(name, shell, tmp_path, capsys):
    before = os.environ.get(name)
    (tmp_path / "named").write_text(f"{name}=http://theirs\nWANDB_PROJECT=ours\n")
    shell.setenv("NCFLOW_ENV_FILE", str(tmp_path / "named"))
    load_environment()
    assert os.environ.get(name) == before
    assert os.environ["WANDB_PROJECT"] == "ours"
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"ncflow: {tmp_path / 'named'}: left out, as ncflow reads other names alone: {name}"


def test_a_named_file_takes_the_place_of_the_projects(shell, tmp_path):
    (tmp_path / "project/.env").write_text("WANDB_PROJECT=ours\nWANDB_ENTITY=us\n")
    (tmp_path / "named").write_text("WANDB_PROJECT=named\n")
    shell.setenv("NCFLOW_ENV_FILE", str(tmp_path / "named"))
    load_environment()
    assert os.environ["WANDB_PROJECT"] == "named"
    assert "WANDB_ENTITY" not in os.environ


def test_an_empty_value_counts_as_none_in_the_shell_and_in_the_file(shell, tmp_path):
    (tmp_path / "project/.env").write_text("NCFLOW_RUNS_DIR=from_file\nNCFLOW_DATA_DIR=\n")
    shell.setenv("NCFLOW_RUNS_DIR", "")
    shell.setenv("WANDB_MODE", "")
    load_environment()
    assert os.environ["NCFLOW_RUNS_DIR"] == "from_file"
    assert "WANDB_MODE" not in os.environ
    assert "NCFLOW_DATA_DIR" not in os.environ


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"\xff", "UTF-8")])
def test_a_named_file_that_cannot_be_read_is_one_line(content, reason, shell, tmp_path, capsys):
    file = tmp_path / "named"
    if content is not None:
        file.write_bytes(content)
    shell.setenv("NCFLOW_ENV_FILE", str(file))
    with pytest.raises(SystemExit, match="2"):
        load_environment()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ncflow: error: NCFLOW_ENV_FILE must be a file that can be read (")
    assert reason in line
