"""Hydra sweepers of ncflow. Every Hydra application imports this module at its start, so it imports little.

Both are in one file: Hydra runs a plugin's file anew where it was imported before, and a class in another file would
then stand on the former one.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from omegaconf import DictConfig


class Cell(NamedTuple):
    """Overrides of a cell of a sweep, its ``RunFolder``, and what another experiment has finished of it.

    The latter two are None where nothing is to be taken over: thousands of cells need not be held whole.
    """

    overrides: Sequence[str]
    folder: Any = None
    twin: Any = None


class NcflowSweeper(BasicSweeper):
    """Hydra's grid sweeper, with three differences.

    Every cell is checked before the first run starts; finished cells are not launched; a failed cell does not end
    the sweep, which closes with a list of the failed ones and exits with 1.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Check, launch and sum up."""
        from ncflow.results import Status
        from ncflow.results.report import counted, finish

        parsed = self._parsed(arguments)
        self._begin(parsed)
        batches = self.split_arguments(parsed, self.max_batch_size)
        plans = [self._plan(batch) for batch in batches]
        reports = [report for _, settled in plans for report in settled]
        # Only now that every cell was checked: a sweep that is refused leaves nothing behind.
        for cells, _ in plans:
            reports += self._make(cells)
        waiting = sum(len(cells) for cells, _ in plans)
        skipped = sum(report.status == Status.SKIPPED for report in reports)
        print(f"{counted(len(reports) + waiting, 'run')}: {skipped} finished already, {waiting} to do", flush=True)

        returns = self._launch(plans)
        reports += [job.return_value for jobs in returns for job in jobs]
        code = finish(reports)
        if code != 0:
            raise SystemExit(code)
        return returns

    def _begin(self, overrides: Sequence[Override]) -> Any:
        """Begin a sweep; return the composer of its cells."""
        from ncflow.config.compose import composer_of
        from ncflow.config.identity import name_by

        assert self.hydra_context is not None
        assert self.config is not None
        self._claimed: dict[str, str] = {}
        self._made: list[Path] = []
        self._launched = 0
        name_by(override.key_or_group for override in overrides if override.is_sweep_override())
        self._composer = composer_of(self.hydra_context, self.config)
        return self._composer

    def _parsed(self, arguments: list[str]) -> list[Override]:
        """The overrides of the sweep, those of its config first."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return parser.parse_overrides([*self._parse_config(), *arguments])

    def _launch(self, plans: Sequence[tuple[dict[Path, Cell], list[Any]]]) -> list[Sequence[JobReturn]]:
        """Launch the cells of some batches that have work left."""
        from ncflow.results.files import remove_empty
        from ncflow.runtime.progress import sweep_progress

        assert self.launcher is not None
        returns = []
        try:
            with sweep_progress([path for cells, _ in plans for path in cells]):
                for cells, _ in plans:
                    if cells:
                        todo = [cell.overrides for cell in cells.values()]
                        returns.append(self.launcher.launch(todo, initial_job_idx=self._launched))
                        self._launched += len(cells)
        finally:  # a launcher that refuses leaves nothing behind
            remove_empty(sorted(self._made, reverse=True))
        return returns

    def _plan(self, batch: Sequence[Sequence[str]]) -> tuple[dict[Path, Cell], list[Any]]:
        """Cells of a batch that have work left, by their folders, and reports of those that are settled.

        Raises:
            ConfigError: If a cell cannot be run.
        """
        from ncflow.config.compose import run_of
        from ncflow.config.identity import resolved_once
        from ncflow.config.validate import check_hydra, claim_folder
        from ncflow.results import stored
        from ncflow.training.entry import find_twin

        cells: dict[Path, Cell] = {}
        settled: dict[Path, Any] = {}
        known: Any = None
        checked: set[str] = set()
        for overrides in batch:
            cfg = self._composer.shared(overrides)
            with resolved_once(cfg):
                folder = run_of(cfg)
                path = folder.path
                check_hydra(cfg)
                claim_folder(self._claimed, path, folder.run_id)
                report = _look(folder)
                if report is not None:
                    settled[path] = report
                elif path not in cells:
                    known = stored(Path(str(cfg.runs_dir))) if known is None else known
                    twin = find_twin(folder, known)
                    if twin is None:
                        _check(cfg, overrides, checked)
                    cells[path] = Cell(overrides) if twin is None else Cell(overrides, folder, twin)
        return cells, list(settled.values())

    def _make(self, cells: dict[Path, Cell]) -> list[Any]:
        """Take over what is finished elsewhere, and make the folders of the rest, as a launcher that cannot would fail.

        Cells that are work no more leave ``cells``; their reports are returned.
        """
        from ncflow.results.files import make_folder

        reports = []
        for path, cell in list(cells.items()):
            try:
                if cell.twin is None:
                    self._made += make_folder(path)
                    continue
                reports.append(_take_over(cell, self._composer.cell(cell.overrides)))
            except OSError as error:
                reports.append(_lost(path, error))
            del cells[path]
        return reports


class NcflowOptunaSweeper(NcflowSweeper):
    """Optuna proposes the cells, some at a time, by what the objective was in those before.

    Each cell is checked and launched as one of a grid. The study is kept beside the runs: the same command goes on.

    Args:
        params: Options and their values, as on the command line.
        options: As :class:`ncflow.sweeps.search.SearchOptions` has them; the sweeper reads them of the config.
    """

    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        """Ask, launch and tell until there are enough trials, and sum up."""
        from ncflow.results.report import finish
        from ncflow.sweeps.search import Search

        parsed = self._parsed(arguments)
        search = Search(self._begin(parsed), self.config, parsed)  # type: ignore[arg-type]
        if search.is_new:
            self._check_candidates(search)
        reports: list[Any] = []
        with search.opened():
            print(search.plan(), flush=True)
            while trials := search.ask():
                found = self._train(trials)
                for trial in trials:
                    print(search.tell(trial, found[trial.folder]), flush=True)
                reports += found.values()
            code = finish(reports)
            print(search.close(), flush=True)
        if code != 0:
            raise SystemExit(code)
        return search.results

    def _check_candidates(self, search: Any) -> None:
        """Check the space at its ends, and the objective, before anything is written.

        Raises:
            ConfigError: If a cell cannot be run, or has no such measure.
        """
        self._plan(search.candidates())
        search.check_objectives()
        self._claimed.clear()

    def _train(self, trials: Sequence[Any]) -> dict[str, Any]:
        """Bring the runs of some trials to their end; return what became of each, by its folder."""
        logging.getLogger("ncflow").setLevel(logging.WARNING)  # until a run sets it: what is checked says nothing
        plan = self._plan([trial.overrides for trial in trials])
        cells, settled = plan
        reports = [*settled, *self._make(cells)]
        reports += [job.return_value for jobs in self._launch([plan]) for job in jobs]
        return {os.path.abspath(report.folder): report for report in reports}


def _check(cfg: DictConfig, overrides: Sequence[str], seen: set[str]) -> None:
    """Check a cell, building its data and model once for each distinct config, seeds and weight decay aside."""
    from ncflow.config.identity import flat_config, without_hydra
    from ncflow.config.schema import ConfigError
    from ncflow.config.validate import check_fields
    from ncflow.training.assembly import check

    try:
        check_fields(cfg)
        kind = repr({key: v for key, v in flat_config(cfg).items() if key not in ("seed", "weight_decay")})
        if kind not in seen:
            seen.add(kind)
            check(without_hydra(cfg))
    except ConfigError as error:
        raise ConfigError(f"{error} (in the cell {' '.join(overrides)})") from error


def _look(folder: Any) -> Any:
    """What is settled about a run before it starts."""
    from ncflow.training.entry import settled

    try:
        report = settled(folder)
        return None if report is None else report.of_cell()
    except OSError as error:
        return _lost(folder.path, error)


def _take_over(cell: Cell, cfg: DictConfig) -> Any:
    """Take over what another experiment has finished of a cell, whose own config is written beside the run."""
    from ncflow.config.identity import without_hydra
    from ncflow.training.entry import take_over

    return take_over(cell.folder, without_hydra(cfg), cell.twin).of_cell()


def _lost(path: Path, error: OSError) -> Any:
    from ncflow.config.explain import one_line
    from ncflow.results import Status
    from ncflow.results.report import Report

    return Report(Status.FAILED, str(path), f"the run could not be begun: {one_line(error)}")
