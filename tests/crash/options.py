"""Commands whose options name other people's folders, and what they leave of these."""

import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.crash.client import SMALL, Finished, Ncflow
from tests.crash.faults import KILL, Fault
from tests.crash.trials import LITTER, LOST, NOISY, SILENT, Verdict, changed, last_lines, scratch, tree

TIMEOUT = 30.0
# Below this many folders of the watched one, so that no mistake with ".." leaves it.
WORK = "a/b/c/d/work"

# Names that ncflow, Hydra and their libraries use, each with somebody's own content.
_FOREIGN = (
    *("thesis.tex", "history.csv", "result.json", "run.json", "job.json", "progress.json", "members.json", ".lock"),
    *("ncflow.log", "multirun.yaml", "config.yaml", "hydra.yaml", "overrides.yaml", "margins.csv", "processes.log"),
    *(".hydra/config.yaml", "checkpoints/last.ckpt", "checkpoints/best.pt", "snapshots/epoch_00000.npz"),
    *(".stacked/notes.txt", "single/thesis.tex", "deep/notes.txt", "deep/er/notes.txt", ".result.json.1.tmp"),
    *("data/thesis.tex", "MNIST/raw/thesis.tex", ".env.backup"),
)
_JSON = '{"title": "results of my own", "status": "submitted", "seed": 0}\n'

# What each option may be set to; a name in braces is an absolute path below the watched folder.
FOLDER_OPTIONS = {
    "single": ("hydra.run.dir", "runs_dir", "hydra.output_subdir", "data.data_dir", "data.path"),
    "sweep": (
        *("hydra.sweep.dir", "hydra.sweep.subdir", "runs_dir", "hydra.output_subdir", "data.data_dir", "data.path"),
        "hydra.launcher.submitit_folder",
    ),
}
TARGETS = (
    *("precious", "./precious/", "precious/deep", "precious/single", "precious/.hydra", "precious/checkpoints"),
    *("{precious}", "{outside}", "link", ".", "..", "../outside", "", "notes.txt", "notes.txt/below", "empty"),
    *("runs", "runs/single", "{finished}", "{interrupted}", "new", "new/deep", "precious/new", "../../../precious"),
)
_DATA = {"data.data_dir": ("data=mnist",), "data.path": ("data=arrays",)}
_SLURM = ("hydra/launcher=slurm",)
BAD: tuple[tuple[str, ...], ...] = (
    ("weight_decay=-1",),
    ("model.depth=1",),
    ("epochs=0",),
    ("wieght_decay=1e-3",),
    ("+model.gama=1",),
    ("data=mnist", "data.data_dir=nowhere"),
    ("data=arrays", "data.path=nowhere.npz"),
    ("data=arrays",),
    ("trainer=ddp", "trainer.num_nodes=2"),
    ("trainer=ddp", "trainer.devices=0"),
    ("measure.layers=foo",),
    ("trainer.accelerator=abacus",),
    ("trainer.precision=99",),
    ("batch_size=0",),
    ("batch_size=many",),
    ("seed=-1",),
    ("logger.name=paper",),
    ("optimizer.lr=fast",),
    ("model=transformer",),
    ("experiment=nothing",),
    ("measure.first_steps=4",),
    ("data.num_samples=0",),
    ("hydra/launcher=moon",),
    ("optimizer.lr=${nothing}",),
    ("seed=[1",),
)
GOOD: tuple[tuple[str, ...], ...] = (
    (),
    ("seed=7",),
    ("seed=0",),  # the one that is finished
    ("logger=none",),
    ("measure.margins=true", "measure.snapshot_samples=2"),
    ("hydra.job.chdir=true",),
    ("optimizer.lr=1e30",),
)
FINISHED_SEED, INTERRUPTED_SEED = 0, 5


class Place:
    """A folder to copy: other people's files, a finished sweep, an interrupted run, and where ``ncflow`` is called."""

    def __init__(self, ncflow: Ncflow, folder: Path) -> None:
        self.folder = folder
        work = folder / WORK
        work.mkdir(parents=True)
        made = ncflow.run(["-m", f"seed={FINISHED_SEED},1", *SMALL], work)
        assert made.code == 0, made.stderr
        command = [f"seed={INTERRUPTED_SEED}", *SMALL]
        with scratch() as elsewhere:
            events = ncflow.run(command, elsewhere).events
        save = next(at for at, event in enumerate(events, 1) if event.startswith("rename") and "last.ckpt" in event)
        killed = ncflow.run(command, work, Fault(KILL, save + 4))
        assert killed.killed, killed
        finished, interrupted = (
            next(work.glob(f"runs/single/*seed{seed}-*")) for seed in (FINISHED_SEED, INTERRUPTED_SEED)
        )
        assert (finished / "result.json").exists()
        assert (interrupted / "checkpoints/last.ckpt").exists()
        self._own = [str(path.relative_to(folder)) for path in (work / "runs").rglob("*") if path.is_file()]
        for owned in (work / "precious", work.parent / "outside"):
            for name in _FOREIGN:
                file = owned / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(_JSON if name.endswith(".json") else f"the only copy of {name}\n")
        (work / "runs" / "thesis.tex").write_text("the only copy, among the runs\n")
        (work / "notes.txt").write_text("the only copy\n")
        (work / "empty").mkdir()
        (work / "link").symlink_to("precious")
        self.names = {
            "precious": f"{WORK}/precious",
            "outside": "a/b/c/d/outside",
            "finished": str(finished.relative_to(folder)),
            "interrupted": str(interrupted.relative_to(folder)),
        }

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """A copy that a trial may spoil."""
        with scratch("options") as root:
            shutil.copytree(self.folder, root, symlinks=True, dirs_exist_ok=True)
            yield root

    def is_own(self, path: str) -> bool:
        """Whether a path is a file that ncflow wrote when the place was made."""
        return path in self._own

    def arguments(self, root: Path, arguments: Sequence[str]) -> list[str]:
        """Arguments with the names in braces filled in."""
        filled = []
        for argument in arguments:
            for name, path in self.names.items():
                argument = argument.replace(f"{{{name}}}", str(root / path))
            filled.append(argument)
        return filled


def cases(number: int, seed: int = 0) -> list[list[str]]:
    """Commands: every option with every target at least once where the number allows, with a bad option or a good one.

    Args:
        number: How many.
        seed: Of the choice.
    """
    chooser = random.Random(seed)
    pairs = [
        (mode, option, target) for mode, options in FOLDER_OPTIONS.items() for option in options for target in TARGETS
    ]
    chooser.shuffle(pairs)
    found = []
    for index in range(number):
        mode, option, target = pairs[index % len(pairs)]
        more = chooser.choice(BAD if chooser.random() < 0.6 else GOOD)
        arguments = [*_DATA.get(option, ()), *(_SLURM if "submitit" in option else ()), f"{option}={target}", *more]
        if mode == "sweep":
            launcher = () if any("hydra/launcher" in one for one in arguments) else chooser.choice(((), ("stacked",)))
            arguments = ["-m", *(f"hydra/launcher={one}" for one in launcher), "model.depth=2,3", *arguments]
        if chooser.random() < 0.15:  # two folders at once
            _, option, target = chooser.choice(pairs)
            if option not in ("data.path", "data.data_dir", "hydra.launcher.submitit_folder"):
                arguments.append(f"{option}={target}")
        found.append(arguments)
    return found


def command_of(arguments: Sequence[str]) -> list[str]:
    """The command with the small run's options where the case does not set them itself."""
    own = {argument.lstrip("+").split("=")[0] for argument in arguments}
    takes_samples = "data" not in own
    small = [
        option
        for option in SMALL
        if (name := option.split("=")[0]) not in own
        and (takes_samples or not name.startswith("data."))
        and (name != "model.depth" or "model" not in own)
    ]
    flags = [argument for argument in arguments if argument == "-m"]
    return [*flags, *small, *(argument for argument in arguments if argument != "-m")]


def try_case(ncflow: Ncflow, place: Place, arguments: Sequence[str]) -> Verdict:
    """Run a command in a copy of the place, and judge."""
    verdict = Verdict()
    with place.copy() as root:
        before = tree(root)
        command = command_of(place.arguments(root, arguments))
        # No search path: SLURM's programs must not be found, wherever the tests run.
        finished = ncflow.run(command, root / WORK, timeout=TIMEOUT, environment={"PATH": str(root / "bin")})
        judge(verdict, place, finished, before, tree(root), root)
    return verdict


def judge(
    verdict: Verdict, place: Place, finished: Finished, before: dict[str, str], after: dict[str, str], root: Path
) -> None:
    """Exit 0, or a line and another code; nobody's file is changed, and a refusal leaves nothing behind."""
    verdict.hear(finished, 1, "it")
    lines = finished.stderr.strip().splitlines()
    if finished.code == 0 and lines:
        verdict.add(NOISY, f"exit 0, and says {last_lines(finished.stderr)}")
    if finished.code > 0 and len(lines) > (2 if finished.code == 1 else 1):  # a failed cell has a line each
        verdict.add(NOISY, f"{len(lines)} lines: {last_lines(finished.stderr)}")
    for path in changed(before, after):
        if not place.is_own(path):
            verdict.add(LOST, path)
        elif finished.code == 2:
            verdict.add(LOST, f"{path}, by a refused command")
        elif Path(path).parts[:-1] == Path(place.names["finished"]).parts and _is_result(path):
            verdict.add(LOST, f"{path}, of a finished run")
    added = sorted(path for path in after if path not in before)
    tops = [path for path in added if str(Path(path).parent) in before or Path(path).parent == Path(".")]
    if finished.code == 2 and tops:
        verdict.add(LITTER, f"a refused command leaves {', '.join(tops[:3])}")
    elif finished.code >= 0:
        for path in tops:
            if not _may_be_added(path, place, finished, before, after):
                verdict.add(LITTER, f"exit {finished.code}, and somebody's folder has {path}")
    if finished.code == 0:
        _look_for_results(verdict, finished, root)


def _is_result(path: str) -> bool:
    return path.endswith(("result.json", "run.json", "history.csv", "last.ckpt"))


def _may_be_added(path: str, place: Place, finished: Finished, before: dict[str, str], after: dict[str, str]) -> bool:
    """A new folder with a run in it, a file of a run that finished or was there before, and a sweep's own config."""
    parent = Path(path).parent
    is_run = place.is_own(f"{parent}/run.json") or (finished.code == 0 and f"{parent}/run.json" not in before)
    if is_run and f"{parent}/run.json" in after:
        return True
    if after[path] == "folder":
        return _holds_runs(path, after) or Path(path).name in (".stacked", ".slurm")
    was_empty = not any(Path(other).parent == parent for other in before)
    return was_empty or Path(path).name == "multirun.yaml"


def _holds_runs(path: str, after: dict[str, str]) -> bool:
    return any(other.endswith("/run.json") and Path(other).is_relative_to(path) for other in after)


def _look_for_results(verdict: Verdict, finished: Finished, root: Path) -> None:
    """As many runs as success is said of have a result of ncflow's."""
    said = sum(line.startswith(("done:", "diverged:")) for line in finished.stdout.splitlines())
    new = [file for file in root.rglob("result.json") if file.is_file() and '"version/ncflow"' in file.read_text()]
    if len(new) < said:
        verdict.add(SILENT, f"{said} runs are done, {len(new)} have a result")
