"""Hydra sweeper of ncflow. Every Hydra application imports this module at its start, so it imports little."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf


class NcflowSweeper(BasicSweeper):
    """Hydra's grid sweeper, with three differences.

    Every cell is checked before the first run starts; finished cells are not launched; a failed cell does not end
    the sweep, which closes with a list of the failed ones and exits with 1.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Check, launch and sum up."""
        from ncflow.progress import sweep_progress
        from ncflow.reports import finish

        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        batches = self.split_arguments(overrides, self.max_batch_size)
        self._claimed: dict[str, str] = {}
        plans = [self._plan(batch) for batch in batches]
        waiting = [folder for _, folders, _ in plans for folder in folders]
        reports = [report for _, _, finished in plans for report in finished]
        print(f"{len(reports) + len(waiting)} runs: {len(reports)} finished already, {len(waiting)} to do", flush=True)

        sweep_dir = Path(self.config.hydra.sweep.dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, sweep_dir / "multirun.yaml")
        returns, launched = [], 0
        with sweep_progress(waiting):
            for cells, _, _ in plans:
                if cells:
                    returns.append(self.launcher.launch(cells, initial_job_idx=launched))
                    launched += len(cells)
        reports += [job.return_value for jobs in returns for job in jobs]
        code = finish(reports)
        if code != 0:
            raise SystemExit(code)
        return returns

    def _plan(self, batch: Sequence[Sequence[str]]) -> tuple[list[Sequence[str]], list[Path], list[Any]]:
        """Cells of a batch that have work left, their folders, and reports of the finished ones."""
        from ncflow.cells import compose, folder_of
        from ncflow.config import claim_folder, run_id
        from ncflow.reports import SKIPPED, Report
        from ncflow.results import RESULT, read_json

        assert self.hydra_context is not None
        assert self.config is not None

        cells: dict[Path, tuple[Sequence[str], DictConfig]] = {}
        finished: list[Any] = []
        for overrides in batch:
            cfg = compose(self.hydra_context, self.config, overrides)
            folder = folder_of(cfg)
            claim_folder(self._claimed, folder, run_id(cfg))
            result = read_json(folder / RESULT)
            if result is not None and result["run_id"] == run_id(cfg):
                finished.append(Report(SKIPPED, str(folder)))
            else:
                cells.setdefault(folder, (overrides, cfg))
        self._check(list(cells.values()))
        return [overrides for overrides, _ in cells.values()], list(cells), finished

    def _check(self, cells: Sequence[tuple[Sequence[str], DictConfig]]) -> None:
        """Build data and model once for each distinct config, seeds and weight decay aside."""
        if not cells:
            return
        from ncflow.assembly import prepare
        from ncflow.config import ConfigError, check_fields, flat_config, without_hydra

        seen = set()
        for overrides, cfg in cells:
            task_cfg = without_hydra(cfg)
            try:
                check_fields(task_cfg)
                flat = {key: v for key, v in flat_config(task_cfg).items() if key not in ("seed", "weight_decay")}
                if repr(flat) not in seen:
                    seen.add(repr(flat))
                    prepare(task_cfg)
            except ConfigError as error:
                raise ConfigError(f"{error} (in the cell {' '.join(overrides)})") from error
