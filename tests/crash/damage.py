"""Files of runs that something damaged, each in each way, and what the same command makes of them."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.client import Ncflow
from tests.crash.faults import KILL, Fault
from tests.crash.trials import (
    LOST,
    NOISY,
    SILENT,
    STUCK,
    SUBJECTS,
    Cell,
    Reference,
    Subject,
    Verdict,
    last_lines,
    plant,
    plant_around,
    reference_of,
    tree,
)

TIMEOUT = 30.0
FILES = ("result.json", "run.json", "history.csv", "checkpoints/last.ckpt", "progress.json", ".lock", "ncflow.log")
FOLDERS = ("checkpoints", ".hydra")
GROUP_FILES = ("checkpoints/last.ckpt", "members.json", "progress.json")  # of a stacked group
FLIPS = 40


def _garbage(file: Path, other: Path) -> None:
    file.write_bytes(bytes(range(128, 256)) * 8)


def _half(file: Path, other: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _removed(file: Path, other: Path) -> None:
    shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()


def _instead(make: Callable[[Path], object]) -> Callable[[Path, Path], None]:
    def replace(file: Path, other: Path) -> None:
        _removed(file, other)
        make(file)

    return replace


def _others(file: Path, other: Path) -> None:
    _removed(file, other)
    shutil.copyfile(other, file)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("the only copy\n")


_ANY = {
    "deleted": _removed,
    "a dangling link": _instead(lambda path: path.symlink_to("nowhere/at/all")),
    "a fifo": _instead(os.mkfifo),
}
OF_FILES: dict[str, Callable[[Path, Path], None]] = {
    "half": _half,
    "empty": _instead(lambda path: path.write_bytes(b"")),
    "garbage": _garbage,
    "[]": _instead(lambda path: path.write_text("[]")),
    "{}": _instead(lambda path: path.write_text("{}")),
    "another run's": _others,
    "a folder": _instead(_folder),
    **_ANY,
}
OF_FOLDERS: dict[str, Callable[[Path, Path], None]] = {
    "a file": _instead(lambda path: path.write_text("the only copy\n")),
    "empty": _instead(Path.mkdir),
    **_ANY,
}


@dataclass(frozen=True)
class State:
    """A sweep as it was left.

    Attributes:
        name: What it is called.
        subject: The command.
        reference: What the command leaves undisturbed.
        folder: A copy of it.
        victim: The run whose files are damaged, a path below the folder.
        group: The folder of the stacked group, a path, where there is one.
    """

    name: str
    subject: Subject
    reference: Reference
    folder: Path
    victim: str
    group: str = ""

    @property
    def checkpoint(self) -> Path:
        """The one from which the victim goes on."""
        return self.folder / (self.group or self.victim) / "checkpoints/last.ckpt"


@dataclass(frozen=True)
class Damage:
    """One file of a state, and what happens to it."""

    path: str
    how: str
    is_of_group: bool = False

    def __str__(self) -> str:
        return f"{self.path} is {self.how}"


def states(ncflow: Ncflow, place: Path) -> dict[str, State]:
    """A finished sweep, one that was stopped in its second run, and a stopped stacked one."""
    made = {}
    for name in ("sweep", "stacked"):
        root = place / f"{name}-finished"
        root.mkdir()
        reference = reference_of(ncflow, SUBJECTS[name], root)
        # The middle one, and not one of those that diverge in their first epoch.
        victim = next(
            path for path, cell in sorted(reference.cells.items()) if cell.result["seed"] == 1 and is_done(cell)
        )
        # Its last rows are written and no checkpoint has them yet; the one before is in place.
        torn = max(at for at, event in enumerate(reference.events, start=1) if event == f"fsync {victim}/history.csv")
        if name == "sweep":
            made["finished"] = State("finished", SUBJECTS[name], reference, root, victim)
        stopped = place / f"{name}-stopped"
        stopped.mkdir()
        plant_around(stopped)
        killed = ncflow.run(SUBJECTS[name].command, stopped, Fault(KILL, torn))
        assert killed.hit == f"fsync {victim}/history.csv", killed
        assert not (stopped / victim / "result.json").exists()
        checkpoints = [str(file.parents[1].relative_to(stopped)) for file in stopped.rglob("last.ckpt")]
        group = next((path for path in checkpoints if "/.stacked/" in path), "")
        made[f"{name} stopped"] = State(f"{name} stopped", SUBJECTS[name], reference, stopped, victim, group)
        assert made[f"{name} stopped"].checkpoint.exists()
    return made


def is_done(cell: Cell) -> bool:
    """Whether it did not diverge."""
    return bool(cell.result["status"] == "done")


def damages(state: State) -> list[Damage]:
    """All that can happen to the files of a state."""
    found = []
    for names, ways in ((FILES, OF_FILES), (FOLDERS, OF_FOLDERS)):
        found += [
            Damage(f"{state.victim}/{name}", how)
            for name in names
            for how in ways
            if (state.folder / state.victim / name).exists()
        ]
    if state.group:
        found += [
            Damage(f"{state.group}/{name}", how, True)
            for name in GROUP_FILES
            for how in OF_FILES
            if (state.folder / state.group / name).exists() and how != "another run's"
        ]
    return found


def try_damage(ncflow: Ncflow, state: State, damage: Damage, root: Path) -> Verdict:
    """Damage a file in a copy of a state, run the command again, and judge.

    A finished run's own numbers are judged where its result is; its checkpoint may be deleted to save space.
    """
    verdict = Verdict()
    shutil.copytree(state.folder, root, symlinks=True, dirs_exist_ok=True)
    file = root / damage.path
    others = [root / path for path in state.reference.cells if path != state.victim]
    name = os.path.relpath(damage.path, state.victim)
    other = next((path / name for path in others if (path / name).is_file()), file)
    ways = OF_FOLDERS if Path(damage.path).name in FOLDERS else OF_FILES
    if damage.how == "another run's" and other == file:
        return verdict
    ways[damage.how](file, other)
    mine = plant(root, root / state.victim)
    finished = ncflow.run(state.subject.command, root, timeout=TIMEOUT)
    verdict.hear(finished, len(state.reference.cells), str(damage))
    after = tree(root)
    for path, kind in mine.items():
        if after.get(path) != kind:
            verdict.add(LOST, path)
    victims = list(state.reference.cells) if damage.is_of_group else [state.victim]
    for problem in state.reference.problems(root, leave_out=victims):
        verdict.add(STUCK, f"takes another run with it: {problem}; {last_lines(finished.stderr)}")
    left = state.reference.problems(root)
    if state.name == "finished" and name != "result.json":
        left = []  # it is what test_damage says of a finished run
    if finished.code == 0:
        for problem in left:
            verdict.add(SILENT, f"exit 0: {problem}")
    elif finished.code != 1 and not finished.stuck:
        verdict.add(NOISY, f"exit {finished.code}: {last_lines(finished.stderr)}")
    elif not finished.stuck:
        lines = finished.stderr.strip().splitlines()
        if len(lines) > len(victims):
            verdict.add(NOISY, f"{len(lines)} lines: {last_lines(finished.stderr)}")
        elif not all(any(Path(path).name in line for path in victims) for line in lines):
            verdict.add(NOISY, f"does not say which run: {last_lines(finished.stderr)}")
    return verdict


def flips(file: Path, number: int) -> Iterator[tuple[int, int]]:
    """Places (byte, bit) spread evenly over a file."""
    size = file.stat().st_size
    for index in range(number):
        yield (2 * index + 1) * size // (2 * number), index % 8


def try_flip(ncflow: Ncflow, state: State, byte: int, bit: int, root: Path) -> Verdict:
    """Flip a bit of the checkpoint of a stopped run, and run the command again."""
    verdict = Verdict()
    shutil.copytree(state.folder, root, symlinks=True, dirs_exist_ok=True)
    file = root / state.checkpoint.relative_to(state.folder)
    content = bytearray(file.read_bytes())
    content[byte] ^= 1 << bit
    file.write_bytes(content)
    finished = ncflow.run(state.subject.command, root, timeout=TIMEOUT)
    verdict.hear(finished, len(state.reference.cells), f"bit {bit} of byte {byte}")
    if finished.code == 0:
        for problem in state.reference.problems(root):
            verdict.add(SILENT, f"bit {bit} of byte {byte}, exit 0: {problem}")
    elif not finished.stuck and "last.ckpt" not in finished.stderr:
        verdict.add(NOISY, f"bit {bit} of byte {byte}: names no file: {last_lines(finished.stderr)}")
    return verdict
