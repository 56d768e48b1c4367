"""Hydra sweeper that searches. Every Hydra application imports this module at its start, so it imports little."""

import logging
import os
from collections.abc import Sequence
from typing import Any

from hydra_plugins.ncflow_sweeper import NcflowSweeper
from omegaconf import DictConfig


class NcflowOptunaSweeper(NcflowSweeper):  # type: ignore[misc]
    """Optuna proposes the cells, some at a time, by what the objective was in those before.

    Each cell is checked and launched as one of a grid. The study is kept beside the runs: the same command goes on.

    Args:
        params: Options and their values, as on the command line.
        options: As :class:`ncflow.sweeps.search.SearchOptions` has them; the sweeper reads them of the config.
    """

    def __init__(self, params: DictConfig | None, **options: Any) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        """Ask, launch and tell until there are enough trials, and sum up."""
        from ncflow.results.report import finish
        from ncflow.sweeps.search import Search

        search = Search(self._begin(), self.config, self._parsed(arguments))
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
