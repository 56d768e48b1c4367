"""The import rule: a module imports only from its left, so that a reader follows one direction."""

import ast
import sys
from pathlib import Path

import pytest

import ncflow

ROOT = Path(ncflow.__file__).parent
ORDER = [
    {"checks", "seeding", "environment", "memory"},
    {"cells", "config", "theory"},
    {"data"},
    {"models"},
    {"features"},
    {"metrics"},
    {"measurement"},
    {"results", "squeue", "wandb_server"},
    {"progress", "loggers", "reports", "status", "signals"},
    {"processes", "status_cli"},
    {"callbacks", "explain"},
    {"lifecycle", "snapshots", "margin_log"},
    {"checkpoints", "entry"},
    {"assembly"},
    {"fit"},
    {"train", "stacked"},
    {"slurm"},
    {"figures"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
FIGURES_MAY_READ = {"environment", "results", "theory", "config", "checks", "loggers", "wandb_server", "figures"}
FILES = sorted(file for file in ROOT.rglob("*.py") if "plugin" not in file.parts)


def part(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(file: Path):
    """Dotted names of ncflow modules that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ncflow":
            yield from ([node.module] if "." in node.module else [f"ncflow.{alias.name}" for alias in node.names])
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ncflow."))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_only_from_its_left(file):
    own = part(file)
    if own in ("__init__", "__main__"):
        return
    for module in imports(file):
        other = module.split(".")[1]
        if other != own:
            assert RANK[other] < RANK[own], f"{file} imports {module}"
        if own == "figures":
            assert other in FIGURES_MAY_READ, f"{file} imports {module}"


def test_every_module_has_a_rank():
    assert {part(file) for file in FILES} - {"__init__", "__main__"} <= set(RANK)


def test_the_measures_need_torch_alone():
    """They can be copied elsewhere: nothing of ncflow but each other, nothing installed but torch."""
    for file in (ROOT / "metrics").glob("*.py"):
        if file.name not in ("__init__.py", "neural_collapse.py"):
            nodes = [
                node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            names = {n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in nodes}
            foreign = {name for name in names if not name.startswith("ncflow.metrics.")}
            assert {name.split(".")[0] for name in foreign} - sys.stdlib_module_names <= {"torch"}, file


def test_only_the_assembling_modules_see_the_config():
    allowed = {"assembly", "cells", "checkpoints", "entry", "config", "fit", "train", "explain", "slurm", "stacked"}
    for file in FILES:
        if part(file) not in allowed:
            assert "omegaconf" not in file.read_text(), file
            assert "ncflow.config" not in list(imports(file)), file
