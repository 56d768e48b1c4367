"""What the searching sweeper in ``plugin`` does: an Optuna study over the cells of a sweep, kept beside their runs.

The trials are in the study, their runs in folders that are known by what they are. So a trial whose run is finished, of
this search or of any other sweep, is not trained again, and one that was cut short goes on from its checkpoint.
"""

import difflib
import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from ncflow.config.build import build, check_types
from ncflow.config.compose import Composer, run_of
from ncflow.config.identity import run_id, without_hydra
from ncflow.config.schema import ConfigError, Count, OptionalCount, Rule
from ncflow.results import RunFolder, Status
from ncflow.results.files import write_atomically
from ncflow.results.report import FINAL, Report

try:
    import optuna
    from optuna.distributions import distribution_to_json
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, TrialState

    from ncflow.sweeps.space import candidates, lines_of, space_of
except ModuleNotFoundError:
    raise ConfigError("hydra/sweeper=optuna needs optuna: pip install 'ncflow[search]'") from None

RESULTS = "optimization_results.yaml"
JOURNAL = "journal.log"
_AT_ONCE = 8  # of a launcher that trains any number of runs at a time
_DIRECTION = "minimize, maximize, or a list of them"
_Direction = Literal["minimize", "maximize"]


@dataclass
class SearchOptions:
    """The options of ``conf/hydra/sweeper/optuna.yaml``.

    Args:
        n_trials: Trials in all, those of earlier commands included.
        n_jobs: Trials that are proposed at a time; None for what suits the launcher.
        direction: ``minimize`` or ``maximize``; of several objectives a list.
        seed: Of the sampler.
        sampler: ``_target_`` and options of one of ``optuna.samplers``.
        params: Options that are searched over, and their values.
    """

    n_trials: Count
    n_jobs: OptionalCount
    direction: Annotated[Any, Rule(_DIRECTION, _Direction | list[_Direction])]
    seed: Annotated[int, Rule(ge=0)]
    sampler: dict[str, Any]
    params: dict[str, Any] | None


@dataclass(frozen=True)
class Trial:
    """A trial that is to be made.

    Attributes:
        number: In the study.
        params: What Optuna proposed.
        overrides: Of its cell.
        run: The folder of its run.
    """

    number: int
    params: Mapping[str, Any]
    overrides: Sequence[str]
    run: RunFolder

    @property
    def folder(self) -> str:
        """The folder, by which its report is known."""
        return os.path.abspath(self.run.path)


class Search:
    """A search: nothing is written before :meth:`opened`.

    Args:
        composer: Of the cells of the sweep.
        config: Of the sweep.
        overrides: Those of the sweep.

    Attributes:
        is_new: Whether no command began it before.
        results: What was found, after :meth:`close`.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """

    def __init__(self, composer: Composer, config: DictConfig, overrides: Sequence[Override]) -> None:
        self._composer, self._config = composer, config
        self._options = _options(config)
        self._fixed, self._space = space_of(overrides)
        self._base = composer.cell(self.candidates()[0])
        self._objectives = _objectives(self._base)
        directions = self._options["direction"]
        self._directions = directions if isinstance(directions, list) else [directions]
        if len(self._directions) != len(self._objectives):
            rule = f"a direction for each of the {len(self._objectives)} objectives"
            raise ConfigError(f"hydra.sweeper.direction must be {rule}, found {directions!r}")
        if config.hydra.launcher.get("wait") is False:
            rule = "true with hydra/sweeper=optuna, which goes on by what the runs have given"
            raise ConfigError(f"hydra.launcher.wait must be {rule}, found False")
        if (then := config.hydra.launcher.get("then")) is not None:
            rule = "null with hydra/sweeper=optuna, whose batches are sweeps of their own"
            raise ConfigError(f"hydra.launcher.then must be {rule}, found {then!r}")
        self._sampler(0)
        space = {key: distribution_to_json(distribution) for key, distribution in self._space.items()}
        kind = [run_id(self._base), self._objectives, self._directions, space]
        kind += [self._options["seed"], self._options["sampler"]]
        name = hashlib.sha256(json.dumps(kind, sort_keys=True).encode()).hexdigest()[:8]
        self._folder = Path(str(config.hydra.sweep.dir)) / f"search_{name}"
        self.is_new = not (self._folder / JOURNAL).exists()
        self.results: dict[str, Any] = {}

    def candidates(self) -> list[list[str]]:
        """Overrides of cells that between them have every choice and both ends of every interval, combined if few."""
        return [self._overrides(params) for params in candidates(self._space)]

    def check_objectives(self) -> None:
        """Refuse an objective that the result of a run will not have.

        Raises:
            ConfigError: Naming the option, the rule and the value found.
        """
        from ncflow.training.assembly import measure_names

        known = measure_names(without_hydra(self._base))
        for name in self._objectives:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else f", for example {known[0]}"
                raise ConfigError(f"objective must be a final measure of the runs, found {name!r}{hint}")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """In it, the study is open, and this process alone is at work on it.

        Raises:
            ConfigError: If another process is, or the study cannot be read.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self._folder / ".lock").acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"another process is at work on this search: {self._folder}") from None
        with lock:
            self._study = self._load()
            settled = self._trials(TrialState.COMPLETE, TrialState.PRUNED)
            known = [trial.params for trial in self._trials(*TrialState) if trial.state != TrialState.FAIL]
            failed = [trial.params for trial in self._trials(TrialState.FAIL) if trial.params.keys() == {*self._space}]
            self._again = [params for i, params in enumerate(failed) if params not in known + failed[:i]]
            self._left = max(0, self._options["n_trials"] - len(settled))
            self._settled = len(settled)
            yield

    def plan(self) -> str:
        """A line on what there is to do."""
        return f"{self._settled + self._left} trials: {self._settled} finished already, {self._left} to do"

    def ask(self) -> list[Trial]:
        """The trials that are to be made next; none after the last.

        Those that an earlier command left unfinished come first; those that failed in one are tried again.
        """
        for cut_short in self._trials(TrialState.RUNNING):
            if cut_short.params.keys() != self._space.keys():  # while it was asked for
                self._study.tell(cut_short.number, state=TrialState.FAIL)
        asked = [(trial.number, trial.params) for trial in self._trials(TrialState.RUNNING)][: self._left]
        for _ in range(0 if asked else min(self._left, self._at_once())):
            if self._again:
                self._study.enqueue_trial(self._again.pop(0))
            self._study.sampler = self._sampler(len(self._trials(*TrialState)))
            with _quiet():
                trial = self._study.ask(self._space)
            asked.append((trial.number, trial.params))
        self._left -= len(asked)
        return [self._trial(number, params) for number, params in asked]

    def tell(self, trial: Trial, report: Report) -> str:
        """Tell the study what became of a trial; return a line on it.

        One that diverged, or whose objective is no number, is told as pruned: Optuna's default sampler keeps away
        from such. One that failed says nothing of its options.

        Args:
            trial: Of :meth:`ask`.
            report: Of its run.
        """
        result = trial.run.finished() if report.status in (*FINAL, Status.SKIPPED) else None
        values = [None if result is None else result.get(name) for name in self._objectives]
        numbers = [float(value) for value in values if isinstance(value, int | float)]
        if result is None:
            state, words = TrialState.FAIL, "failed" if report.status == Status.FAILED else str(report.status)
        elif result["status"] == Status.DIVERGED:
            state, words = TrialState.PRUNED, "diverged"
        elif len(numbers) < len(values):
            state, words = TrialState.PRUNED, f"{self._objectives[values.index(None)]} is no number"
        else:
            state, words = TrialState.COMPLETE, self._in_words(numbers)
        self._study.tell(trial.number, numbers if state == TrialState.COMPLETE else None, state)
        return f"trial {trial.number}: {words}: {' '.join(lines_of(trial.params))}"

    def close(self) -> str:
        """Write what was found beside the study; return lines on it."""
        states = Counter(trial.state for trial in self._trials(*TrialState))
        counted = {"finished": states[TrialState.COMPLETE], "diverged": states[TrialState.PRUNED]}
        failed = len({json.dumps(trial.params) for trial in self._trials(TrialState.FAIL)})
        best = self._study.best_trials if counted["finished"] else []
        found = [(trial, self._trial(trial.number, trial.params)) for trial in best]
        solutions = [self._solution(frozen, trial) for frozen, trial in found]
        described = {"name": "optuna", "objective": self._objectives, "direction": self._directions}
        self.results = {**described, "trials": {**counted, "failed": failed}}
        if len(self._objectives) > 1:
            self.results["solutions"] = solutions
        elif solutions:
            self.results |= {f"best_{key}": value for key, value in solutions[0].items()}
        path = self._folder / RESULTS
        write_atomically(path, OmegaConf.to_yaml(OmegaConf.create(self.results)))
        said = [
            f"best: trial {trial.number}: {self._in_words(frozen.values)}: {' '.join(lines_of(trial.params))}"
            for frozen, trial in found[: None if len(self._objectives) > 1 else 1]
        ]
        none = f"best: none, no trial has a number for {' and '.join(self._objectives)}"
        return "\n".join([*(said or [none]), f"written: {path}"])

    def _solution(self, frozen: FrozenTrial, trial: Trial) -> dict[str, Any]:
        numbers = list(frozen.values)
        value = {"values": numbers} if len(numbers) > 1 else {"value": numbers[0]}
        where = {"overrides": list(trial.overrides), "folder": str(trial.run.path)}
        return {**value, "params": dict(trial.params), **where}

    def _in_words(self, values: Sequence[float]) -> str:
        return ", ".join(f"{name} {value:.6g}" for name, value in zip(self._objectives, values, strict=True))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _overrides(self, params: Mapping[str, Any]) -> list[str]:
        return [*self._fixed, *lines_of(params)]

    def _trial(self, number: int, params: Mapping[str, Any]) -> Trial:
        overrides = self._overrides(params)
        cfg = self._composer.shared(overrides)
        return Trial(number, params, overrides, run_of(cfg))

    def _sampler(self, number: int) -> Any:
        """The sampler for the trial of a number: made anew for each, so that a search that goes on proposes the same.

        Raises:
            ConfigError: If there is no such sampler, or not with these options.
        """
        options, seed = self._options["sampler"], self._options["seed"]
        target = str(options.get("_target_"))
        if not target.endswith("QMCSampler"):  # whose points are one sequence
            seed = int(hashlib.sha256(f"{seed} {number}".encode()).hexdigest()[:8], 16)
        given = {"seed": seed, "constant_liar": True}  # trials that are proposed at a time keep away from one another
        with _quiet():
            sampler = build(
                self._config,
                "hydra.sweeper.sampler",
                **{name: value for name, value in given.items() if name == "seed" or name not in options},
            )
        known = optuna.samplers
        if not isinstance(sampler, known.BaseSampler) or isinstance(
            sampler, known.GridSampler | known.BruteForceSampler
        ):
            rule = "one of optuna.samplers, other than those of grids, which the sweeper without Optuna has"
            raise ConfigError(f"hydra.sweeper.sampler._target_ must be {rule}, found {target!r}")
        return sampler

    def _at_once(self) -> int:
        """How many trials to propose at a time."""
        number: int | None = self._options["n_jobs"]
        launcher: Any = OmegaConf.to_container(self._base.hydra.launcher, resolve=True)
        kind = launcher.pop("_target_")
        if number is None and "ncflow_local" in kind and launcher["pack"] is None:
            from ncflow.sweeps.local import machine

            number = machine(launcher, [self._base]).at_once
        return number or (_AT_ONCE if "ncflow_" in kind else 1)

    def _load(self) -> optuna.Study:
        """The study, from its file.

        Raises:
            ConfigError: If that cannot be read.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = self._folder / JOURNAL
        _cut_last_line(path)
        # Optuna's own lock, left of a killed process, would be waited for. The search's says that there is no other.
        path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
        try:
            with _quiet():
                storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
                return optuna.create_study(
                    storage=storage, study_name="search", directions=self._directions, load_if_exists=True
                )
        except (ValueError, KeyError, TypeError, AssertionError, AttributeError) as error:
            rule = f"{path} is damaged ({type(error).__name__}): delete it to search anew"
            raise ConfigError(f"{rule}; runs that are finished stay finished") from error


def _options(config: DictConfig) -> dict[str, Any]:
    """The sweeper's own options, checked."""
    given = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    assert isinstance(given, dict)
    options = {str(name): value for name, value in given.items() if not str(name).startswith("_")}
    known = SearchOptions.__dataclass_fields__
    for name in options:
        if name not in known:
            raise ConfigError(f"hydra.sweeper.{name} must be one of the options of a search: {', '.join(known)}")
    check_types("hydra.sweeper", SearchOptions, options)
    return options


def _objectives(cfg: DictConfig) -> list[str]:
    """The field ``objective``: at least one name, none twice."""
    given: Any = OmegaConf.to_container(cfg.objective) if OmegaConf.is_config(cfg.objective) else cfg.objective
    rule = "a measure, for example train/nc1, or a list of them, with hydra/sweeper=optuna"
    names = given if isinstance(given, list) else [given]
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ConfigError(f"objective must be {rule}, found {given!r}")
    return names


@contextmanager
def _quiet() -> Iterator[None]:
    """In it, Optuna does not warn of what it calls experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def _cut_last_line(path: Path) -> None:
    """Take back a line that was cut short, by a full disk say: a journal with another after it cannot be read."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
