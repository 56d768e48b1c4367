"""The import rule: a module imports only from its left, so that a reader follows one direction."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ncflow

ROOT = Path(ncflow.__file__).parent
ORDER = [
    {"checks", "seeding"},
    {"results"},
    {"theory", "data", "models", "metrics", "config", "runtime"},
    {"measuring", "figures"},
    {"callbacks"},
    {"training"},
    {"sweeps"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
FILES = sorted(ROOT.rglob("*.py"))


def part(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def module_of(file: Path) -> str:
    return ".".join(("ncflow", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


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


def test_no_two_modules_import_each_other_by_any_way():
    known = {module_of(file): file for file in FILES}
    uses = {}
    for name, file in known.items():
        tree = ast.parse(file.read_text())
        named = {
            f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in known else node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        uses[name] = {other for other in named if other in known and other != "ncflow"}
    list(TopologicalSorter(uses).static_order())  # raises CycleError


def test_the_listing_is_the_architecture():
    """In the package itself lie two small modules that everything may use; all else is in folders that have a rank."""
    assert {part(file) for file in FILES} - {"__init__", "__main__"} == set(RANK)
    assert {file.stem for file in FILES if file.parent == ROOT} == {"__init__", "__main__", "checks", "seeding"}


def test_only_plots_and_what_writes_their_files_know_matplotlib():
    allowed = {"plots", "style.py", "files.py", "papers", "drawn.py", "theory.py"}
    for file in FILES:
        if "matplotlib" in file.read_text():
            assert allowed & set(file.relative_to(ROOT).parts), file


def test_verdicts_and_results_need_nothing_heavy():
    code = "import sys, {}; print(*(name for name in {!r} if name in sys.modules))"
    for module, heavy in (
        ("ncflow.results", ("pandas", "torch", "matplotlib")),
        ("ncflow.config.identity", ("torch", "pandas")),
        ("ncflow.cli.train", ("torch", "pandas", "pydantic")),  # which is all that a finished run imports
        ("ncflow.figures.papers.claims", ("torch", "matplotlib")),
    ):
        found = subprocess.check_output([sys.executable, "-c", code.format(module, heavy)], text=True)
        assert found.split() == [], module


def test_the_measures_need_torch_alone():
    """They can be copied elsewhere: nothing of ncflow but each other, nothing installed but torch."""
    for file in (ROOT / "metrics").glob("*.py"):
        if file.name not in ("__init__.py", "functional.py", "metric.py", "measure.py", "summing.py"):
            nodes = [
                node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            names = {n.module if isinstance(n, ast.ImportFrom) else n.names[0].name for n in nodes}
            foreign = {name for name in names if not name.startswith("ncflow.metrics.")}
            assert {name.split(".")[0] for name in foreign} - sys.stdlib_module_names <= {"torch"}, file


def test_only_what_trains_and_what_commands_see_the_config():
    for file in FILES:
        if part(file) not in {"config", "training", "sweeps", "cli"}:
            assert "omegaconf" not in file.read_text(), file
            assert not [module for module in imports(file) if module.startswith("ncflow.config")], file
