"""The wheel holds all it needs and works outside the checkout."""

import importlib
import json
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from ncflow.config.schema import CONF_DIR
from ncflow.runtime.environment import NAMES
from tests.conftest import TINY, environment, run_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_checkout_uses_its_own_configs():
    assert CONF_DIR == ROOT / "conf"


def test_wheel_holds_configs_and_plugin_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for file in (ROOT / "conf").rglob("*.yaml"):
        assert f"ncflow/conf/{file.relative_to(ROOT / 'conf')}" in names
    for file in (ROOT / "ncflow/figures/report/assets").iterdir():
        assert f"ncflow/figures/report/assets/{file.name}" in names
    assert {"hydra_plugins/ncflow_sweeper.py", "hydra_plugins/ncflow_slurm.py"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "scripts", "conf/", "ncflow/sweeps/plugin"))]


def test_wheel_works_outside_the_checkout(wheel, tmp_path):
    """In an environment of its own that borrows the installed libraries, but neither the checkout nor its shims."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "libraries.pth").write_text(libraries + "\n")
    zipfile.ZipFile(wheel).extractall(site)
    where = "import ncflow, hydra_plugins.ncflow_sweeper as s; print(ncflow.__file__, s.__file__)"
    found = subprocess.check_output([python, "-c", where], text=True, cwd=tmp_path, env=environment())
    assert all(str(site) in path for path in found.split())
    command = [python, "-m", "ncflow", "-m", *TINY, "seed=0,1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2 runs: 2 done"
    code = "from ncflow.cli.figures import main; main(['runs'])"
    figures = subprocess.run([python, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert "trajectories" in figures.stdout, figures.stderr


def test_console_scripts_exist():
    for name in ("ncflow", "ncflow-figures", "ncflow-measure", "ncflow-status", "ncflow-sync", "ncflow-theory"):
        help_text = subprocess.run([Path(sys.executable).with_name(name), "--help"], capture_output=True, text=True)
        assert help_text.returncode == 0
        assert help_text.stdout


def test_each_console_script_is_a_function():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {*scripts} == {"ncflow", "ncflow-figures", "ncflow-measure", "ncflow-status", "ncflow-sync", "ncflow-theory"}
    for place in scripts.values():
        module, _, function = place.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_another_hydra_application_is_not_slowed_by_the_plugin(tmp_path):
    code = "import sys, hydra_plugins.ncflow_sweeper; print('torch' in sys.modules, 'pandas' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


def test_environment_example_names_what_is_read():
    named = [line.split("=")[0] for line in (ROOT / ".env.example").read_text().splitlines() if re.match(r"\w+=", line)]
    assert named == list(NAMES)
    asked = set(re.findall(r"oc\.env:(\w+)", "".join(file.read_text() for file in CONF_DIR.rglob("*.yaml"))))
    assert asked <= set(named)


def test_result_is_plain_json(ncflow, tmp_path):
    assert ncflow(*TINY).returncode == 0
    result = json.loads((run_folder(tmp_path) / "result.json").read_text())
    assert all(isinstance(value, str | int | float | bool | list | None) for value in result.values())
