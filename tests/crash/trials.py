"""What is run, what it must leave, and the judgement of a run that a fault came to."""

import hashlib
import json
import os
import random
import shutil
import stat
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from tests.crash.client import SMALL, Finished, Ncflow
from tests.crash.faults import DENIED, FULL, KILL, Fault

LOST = "lost"  # a byte of somebody's file, or of a finished run, is gone
SILENT = "silent"  # the exit code says success, and a number is missing or another one
STUCK = "stuck"  # it waits for ever, or the same command does not bring it to its end
NOISY = "noisy"  # a traceback, or more lines than its user needs
LITTER = "litter"  # a temporary file stays for ever
KINDS = (LOST, SILENT, STUCK, NOISY, LITTER)

T = TypeVar("T")
TIMEOUT = 40.0
_TRIES = 3
# What differs from time to time; with how many a run was trained is recorded, and changes no number.
_TIMES = ("seconds", "steps_per_second", "version/trained_with")


@dataclass(frozen=True)
class Subject:
    """A small command; a local sweep is a process of its own, whose workers are hit.

    What it says under ``before`` is run first, undisturbed.
    """

    name: str
    arguments: tuple[str, ...]
    local: bool = False
    before: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """Its arguments."""
        return [*self.arguments, *SMALL]

    def begin(self, ncflow: Ncflow, root: Path) -> dict[str, str]:
        """What is in an empty folder before the command; returns what is somebody else's, as :func:`tree` has it."""
        mine = plant_around(root)  # also for the reference: an event more or less would move all others
        if self.before:
            finished = ncflow.run([*self.before, *SMALL], root)
            assert finished.code == 0, finished.stderr
        return mine


_GRID = ("seed=0,1", "optimizer.lr=1e-3,1e30")
SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("single", ()),
        Subject("rich", ("measure.margins=true", "measure.first_steps=4", "measure.snapshot_samples=2")),
        Subject("sweep", ("-m", "seed=0,1,2")),
        Subject("twin", ("-m", "seed=0,1"), before=("-m", "seed=0,1", "hydra.sweep.dir=runs/other")),
        Subject("stacked", ("-m", "hydra/launcher=stacked", *_GRID)),
        Subject("local", ("-m", "hydra/launcher=local", "hydra.launcher.n_jobs=2", "seed=0,1,2"), local=True),
    )
}


# --- what a run leaves ------------------------------------------------------------------------------------------


@dataclass
class Cell:
    """All that a finished run is known by, times aside; empty where it is not finished."""

    result: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    snapshots: dict[str, dict[str, Any]] = field(default_factory=dict)

    def differs(self, other: "Cell") -> str:
        """Where the other one is not equal, bit for bit; empty where it is."""
        if not other.result:
            return "no result"
        for name in sorted({*self.result, *other.result}):
            if name not in _TIMES and self.result.get(name) != other.result.get(name):
                return f"{name}: {self.result.get(name)} != {other.result.get(name)}"
        for name in sorted({*self.tables, *other.tables}):
            if self.tables.get(name) != other.tables.get(name):
                return name
        if self.weights.keys() != other.weights.keys():
            return "names of weights"
        for name, value in self.weights.items():
            if not torch.equal(value, other.weights[name]) and not bool(value.isnan().any()):
                return f"weights {name}"
        if self.snapshots.keys() != other.snapshots.keys():
            return "snapshots"
        for name, arrays in self.snapshots.items():
            for key, value in arrays.items():
                if not np.array_equal(value, other.snapshots[name][key], equal_nan=True):
                    return f"{name} {key}"
        return ""


def read_cell(folder: Path) -> Cell:
    """What a run left; what cannot be read is left out, and so differs."""
    cell = Cell()
    with suppress(OSError, ValueError):
        result = json.loads((folder / "result.json").read_text()) if (folder / "result.json").is_file() else {}
        if isinstance(result, dict) and result.get("status") in ("done", "diverged"):
            cell.result = result
    for name in ("history.csv", "margins.csv"):
        if (folder / name).is_file():
            cell.tables[name] = (folder / name).read_text(errors="replace")
    with suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a damaged file, before it is refused
        if (folder / "checkpoints/last.ckpt").is_file():
            cell.weights = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for file in sorted((folder / "snapshots").glob("*.npz")):
        cell.snapshots[file.name] = {}
        with suppress(Exception), np.load(file, allow_pickle=False) as arrays:
            cell.snapshots[file.name] = {name: arrays[name] for name in arrays}
    return cell


@dataclass(frozen=True)
class Reference:
    """What a command leaves that nothing happened to: its cells by the paths of their folders, its events."""

    cells: dict[str, Cell]
    events: list[str]

    def problems(self, root: Path, leave_out: Sequence[str] = ()) -> list[str]:
        """Cells below a root that are not equal."""
        found = []
        for path, cell in self.cells.items():
            difference = "" if path in leave_out else cell.differs(read_cell(root / path))
            if difference:
                found.append(f"{path}: {difference}")
        return found

    def finished(self, root: Path) -> dict[str, str]:
        """Files of cells that say that they are done, with digests."""
        kept = {}
        for path in self.cells:
            if read_cell(root / path).result:
                names = ("result.json", "history.csv", "margins.csv", "checkpoints/last.ckpt")
                kept |= {
                    f"{path}/{name}": digest(root / path / name) for name in names if (root / path / name).exists()
                }
        return kept


def reference_of(ncflow: Ncflow, subject: Subject, root: Path) -> Reference:
    """Run a command undisturbed. A local sweep must leave what the plain one does."""
    plain = SUBJECTS["sweep"] if subject.local else subject
    plain.begin(ncflow, root)
    finished = ncflow.run(plain.command, root)
    assert finished.code == 0, finished.stderr
    folders = sorted(file.parent for file in root.rglob("result.json"))
    return Reference({str(folder.relative_to(root)): read_cell(folder) for folder in folders}, finished.events)


# --- what belongs to others -------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tree(root: Path) -> dict[str, str]:
    """Every path below a folder with its type and, of files and links, their content."""
    found = {}
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent) / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                kind = f"link {os.readlink(path)}"
            elif stat.S_ISREG(mode):
                kind = f"file {digest(path)}"
            else:
                kind = "folder" if stat.S_ISDIR(mode) else "special"
            found[str(path.relative_to(root))] = kind
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Paths that are gone or other than before."""
    return [path for path, kind in before.items() if after.get(path) != kind]


def plant(root: Path, *folders: Path) -> dict[str, str]:
    """Somebody's own files in these folders; returns what :func:`tree` says of them."""
    planted = {}
    for folder in folders:
        for name in ("thesis.tex", "plots/notes.txt"):
            file = folder / name
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"the only copy of {file.relative_to(root)}\n")
            planted[str(file.relative_to(root))] = f"file {digest(file)}"
    return planted


def plant_around(root: Path) -> dict[str, str]:
    """Somebody's own files around the runs."""
    return plant(root, root, root / "runs", root / "runs" / "single")


def run_folders(root: Path) -> list[Path]:
    """Folders below a root that say that they are runs."""
    found = []
    for file in sorted(root.rglob("run.json")):
        with suppress(OSError, ValueError):
            if file.is_file() and isinstance(json.loads(file.read_text()), dict):
                found.append(file.parent)
    return found


# --- the judgement ----------------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """What is wrong with a trial, by kind, and where its fault came."""

    problems: list[tuple[str, str]] = field(default_factory=list)
    hits: list[str] = field(default_factory=list)

    def add(self, kind: str, what: str) -> None:
        """One more."""
        self.problems.append((kind, what))

    def hear(self, finished: Finished, cells: int, what: str) -> None:
        """Look at how a run ended and what it said."""
        if finished.stuck:
            self.add(STUCK, f"{what}: still at work after its time")
        said = finished.stdout + finished.stderr
        if "Traceback" in said or "Logging error" in said or len(finished.stderr.splitlines()) > max(3, cells):
            self.add(NOISY, f"{what}: {last_lines(finished.stderr or finished.stdout)}")
        if finished.code < 0 and not finished.killed and not finished.stuck:
            self.add(STUCK, f"{what}: ended by signal {-finished.code}")
        if finished.code > 0 and not finished.stderr.strip():
            self.add(NOISY, f"{what}: exit {finished.code} without a word")

    def __str__(self) -> str:
        lines = [f"{kind}: {what}" for kind, what in self.problems]
        return "; ".join([*lines, *(f"(at: {hit})" for hit in self.hits)])


def try_faults(ncflow: Ncflow, subject: Subject, reference: Reference, faults: Sequence[Fault], root: Path) -> Verdict:
    """Run a command with each of some faults in turn, in one new folder, then let it heal, and judge.

    Args:
        ncflow: Runs it.
        subject: The command.
        reference: What it leaves undisturbed.
        faults: One a run.
        root: An empty folder.
    """
    verdict = Verdict()
    number = len(reference.cells)
    run: Callable[..., Finished] = ncflow.run_process if subject.local else ncflow.run
    mine = subject.begin(ncflow, root)
    done: dict[str, str] = {}
    code = 1
    for fault in faults:
        finished = run(subject.command, root, fault, timeout=TIMEOUT * (4 if subject.local else 1))
        verdict.hits.append(finished.hit)
        verdict.hear(finished, number, str(fault))
        if subject.local and not finished.stuck:
            _judge_worker(verdict, reference, root, finished)
        code = finished.code
        if code == 0:
            for problem in reference.problems(root):
                verdict.add(SILENT, f"{fault}, exit 0: {problem}")
        _look_for_losses(verdict, root, mine, done, str(fault))
        mine |= plant(root, *run_folders(root))
        done |= reference.finished(root)
    if not verdict.hits[0] and faults[0].at <= len(reference.events):
        verdict.add(STUCK, f"{faults[0]} came to nothing")
    for _ in range(_TRIES):
        if code == 0 and faults:
            break
        finished = ncflow.run(subject.command, root, timeout=TIMEOUT * (4 if subject.local else 1))
        verdict.hear(finished, number, "healing")
        code = finished.code
    if code != 0:
        verdict.add(STUCK, f"does not heal: exit {code}: {last_lines(finished.stderr)}")
    else:
        for problem in reference.problems(root):
            verdict.add(SILENT, f"healed, exit 0: {problem}")
    _look_for_losses(verdict, root, mine, done, "healing")
    for path in sorted(root.rglob("*")):
        if path.name.endswith(".tmp"):
            verdict.add(LITTER, str(path.relative_to(root)))
    verdict.problems = list(dict.fromkeys(verdict.problems))
    return verdict


def _judge_worker(verdict: Verdict, reference: Reference, root: Path, finished: Finished) -> None:
    """A worker of a sweep that dies takes at most its own cell with it."""
    missing = reference.problems(root)
    if finished.code not in (0, 1):
        verdict.add(STUCK, f"a dead worker ends the sweep with exit {finished.code}")
    if len(missing) > 1:
        verdict.add(STUCK, f"a dead worker takes other cells with it: {missing}")


def _look_for_losses(verdict: Verdict, root: Path, mine: dict[str, str], done: dict[str, str], when: str) -> None:
    for path, kind in mine.items():
        file = root / path
        if not file.is_file() or f"file {digest(file)}" != kind:
            verdict.add(LOST, f"{when}: {path}")
    for path, content in done.items():
        file = root / path
        if not file.is_file() or digest(file) != content:
            verdict.add(LOST, f"{when}: {path}, of a finished run")


def last_lines(text: str) -> str:
    """For a line of a report."""
    return " / ".join(text.strip().splitlines()[-2:])[:300]


# --- the points -------------------------------------------------------------------------------------------------

_LOCAL_POINTS = range(1, 80, 6)


def points(subject: Subject, reference: Reference) -> list[list[Fault]]:
    """All points of a command: each event with each kind of fault, and a second kill at some of them."""
    if subject.local:
        return [[Fault(KILL, at)] for at in _LOCAL_POINTS]
    number = len(reference.events)
    found = []
    for at in range(1, number + 1):
        found += [[Fault(kind, at)] for kind in (KILL, FULL, DENIED)]
        if at % 5 == 0:  # a second kill, anywhere, while it heals
            found.append([Fault(KILL, at), Fault(KILL, 1 + zlib.crc32(f"{subject.name}{at}".encode()) % number)])
    return found


def sample(trials: Sequence[T], every: int) -> list[T]:
    """One in ``every``, the same ones each time; at random, as what is tried repeats itself with a period."""
    chosen = random.Random(every).sample(range(len(trials)), -(-len(trials) // every))
    return [trials[index] for index in sorted(chosen)]


def parse_faults(text: str) -> list[Fault]:
    """Of ``kill:12`` or ``kill:12,kill:7``."""
    return [Fault.parse(part) for part in text.split(",")]


@contextmanager
def scratch(prefix: str = "crash") -> Iterator[Path]:
    """A new folder, removed at the end."""
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix=f"ncflow-{prefix}-")))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
