"""Hydra launcher for one machine. Every Hydra application imports this module at its start, so it imports little."""

import time
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

try:
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
except ImportError:
    JoblibLauncher = None


class NcflowLocalLauncher(JoblibLauncher or Launcher):  # type: ignore[misc]
    """hydra-joblib-launcher, where a process that the system kills costs no run but its own.

    With it joblib ends all processes and the sweep. Here the runs that were not at work then go on as before, and those
    that were are tried once more, each by itself, so that the one whose process is killed again is known.

    Args:
        options: Those of ``joblib.Parallel``.
    """

    def __init__(self, **options: Any) -> None:
        if JoblibLauncher is None:
            from ncflow.config.schema import ConfigError

            raise ConfigError("hydra/launcher=local needs joblib: pip install 'ncflow[local]'")
        super().__init__(**options)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all, whatever happens to a process."""
        returned: dict[int, JobReturn] = {}
        since = time.time()
        folders: list[Any] = []
        left, suspects = list(range(len(job_overrides))), list[int]()
        while left or suspects:
            now = left or suspects[:1]
            jobs = self._try([job_overrides[index] for index in now], initial_job_idx, alone=not left)
            if jobs is not None:
                returned |= dict(zip(now, jobs, strict=True))
            else:
                folders = folders or [self._folder(overrides) for overrides in job_overrides]
                for index in now:
                    report = folders[index].ended(since, killed=not left)
                    if report is not None:
                        returned[index] = JobReturn(status=JobStatus.COMPLETED, _return_value=report)
                    elif folders[index].has_begun():
                        suspects.append(index)
            left = [index for index in left if index not in returned and index not in suspects]
            suspects = [index for index in suspects if index not in returned]
        return [returned[index] for index in range(len(job_overrides))]

    def _try(self, cells: Sequence[Sequence[str]], first: int, alone: bool) -> Sequence[JobReturn] | None:
        """Run some cells; None if a process was killed."""
        from joblib.externals.loky.process_executor import BrokenProcessPool

        options: dict[str, Any] = self.joblib  # type: ignore[has-type]
        if alone:
            self.joblib = {**options, "n_jobs": 2}  # with one, it would run here
        try:
            return super().launch(cells, first)
        except BrokenProcessPool:
            return None
        finally:
            self.joblib = options

    def _folder(self, overrides: Sequence[str]) -> Any:
        from ncflow.config.compose import compose, folder_of
        from ncflow.config.identity import describe, experiment_name
        from ncflow.results import RunFolder

        assert self.hydra_context is not None
        cfg = compose(self.hydra_context, self.config, overrides)
        return RunFolder(folder_of(cfg), describe(cfg, experiment_name(cfg)))
