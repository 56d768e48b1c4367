"""The packs of a sweep on their way into SLURM's queue, which may be smaller than the sweep."""

import io
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ncflow.checks import error_line
from ncflow.config.compose import folder_of, looked_at
from ncflow.config.identity import describe, experiment_name
from ncflow.config.schema import ConfigError
from ncflow.results import JOB, read_json, write_json
from ncflow.runtime.code import digest
from ncflow.sweeps import snapshot
from ncflow.sweeps.packs import Pack, Task
from ncflow.sweeps.squeue import largest_array

THEN = "then.json"
_FIGURES_MINUTES = 60
# While a job imports, submitit does not listen yet, and the signal of a preemption would end the job for good.
_DEAF = """bash -c 'trap "" TERM USR1 USR2; exec "$0" "$@"'"""
# MaxSubmitJobs and GrpSubmitJobs (https://slurm.schedmd.com/resource_limits.html), MaxJobCount.
_FULL = re.compile(r"(Max|Grp)SubmitJob|job submit limit|temporarily unable to accept", re.IGNORECASE)
# Of submitit's options, those that are not SLURM's alone; and ours, which it does not know.
_COMMON = ["timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name"]
_COMMON += ["stderr_to_stdout"]
_OURS = ["wait", "pack", "pack_at_once", "gpu_mem_gb", "max_group", "may_differ", "modules", "submitit_folder"]
_OURS += ["max_num_timeout", "snapshot", "then", "retry"]


class Submission:
    """Packs of a sweep on their way into SLURM's queue, in arrays that are as large as it takes.

    Arrays follow each other where all packs together are more than may be at work at a time.

    Args:
        configs: Of the runs, with Hydra's own part; perhaps each composed when it is asked for.
        packs: The packs, by places in ``configs``.
        options: As :class:`ncflow.sweeps.slurm.SlurmOptions` has them.
        task: Hydra's task function.
        queued: Ids of the sweep's jobs that are in the queue already.

    Attributes:
        left: Packs that are not submitted.
        jobs: submitit's jobs of those that were, by the folders of their runs.

    Raises:
        ConfigError: If submitit is not installed.
    """

    def __init__(
        self,
        configs: Sequence[DictConfig],
        packs: Sequence[Pack],
        options: Mapping[str, Any],
        task: Task,
        queued: Sequence[str] = (),
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise ConfigError("hydra/launcher=slurm needs submitit: pip install 'ncflow[slurm]'") from None
        self._submitit = submitit
        self._configs, self._options, self._task = configs, options, task
        self.left, self.jobs = list(packs), dict[Path, Any]()
        self._arrays = list(dict.fromkeys(job.partition("_")[0] for job in queued))
        self._in_turns = len(packs) + len(queued) > options["array_parallelism"]
        self._largest = largest_array()
        self._folder = Path(options["submitit_folder"]).parent
        code = snapshot.code_to_run()
        self._lines = [f"module load {module}" for module in options["modules"]] + options["setup"]
        if options["snapshot"]:
            self._lines += snapshot.lines_to_run(snapshot.take(code, self._folder / "code").absolute())
            code = {}
        self._code = {name: (place, digest(place)) for name, place in code.items()}

    def submit(self, at_most: int | None = None) -> dict[Path, Any]:
        """Submit as many packs as the queue takes; return their jobs, by the folders of their runs.

        Args:
            at_most: How many in an array; None for as many as SLURM allows.

        Raises:
            ConfigError: If SLURM refuses the jobs for another reason.
        """
        found: dict[Path, Any] = {}
        size = min(self._largest, at_most or self._largest)
        while self.left and size > 0:
            part = self.left[:size]
            packed = [[self._configs[index] for index in pack.cells] for pack in part]
            jobs = self._submit(part, packed)
            if jobs is None:  # perhaps it has room for some
                size = len(part) // 2
                continue
            self.left = self.left[len(part) :]
            self._arrays.append(jobs[0].job_id.partition("_")[0])
            for pack, configs, job in zip(part, packed, jobs, strict=True):
                for turn, cfg in enumerate(configs):
                    folder = folder_of(cfg)
                    note_job(folder, cfg, job, 0 if pack.is_stacked else turn // self._options["pack_at_once"])
                    found[folder] = job
        self.jobs |= found
        return found

    def note_left(self) -> list[Path]:
        """Leave word in the folders of the runs that are not submitted, and return them."""
        found = []
        for cfg in looked_at(self._configs, [index for pack in self.left for index in pack.cells]):
            found.append(folder_of(cfg))
            note_waiting(found[-1], cfg)
        return found

    def draw(self, sweep: Path) -> str | None:
        """Submit the job that draws the figures of a sweep once all of its jobs have ended; its id, if there is room.

        Args:
            sweep: Folder of the sweep.

        Raises:
            ConfigError: If SLURM refuses the job for another reason.
        """
        requests = {"name": f"figures:{self._experiment()}", "timeout_min": _FIGURES_MINUTES, "cpus_per_task": 1}
        requests |= {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": None}
        command = [sys.executable, "-m", "ncflow.cli.figures", str(sweep), "--html"]
        jobs = self._hand_over([self._submitit.helpers.CommandFunction(command)], requests, self._arrays)
        if jobs is None:
            return None
        (job,) = jobs
        write_json(self._folder / THEN, {"job": job.job_id, "log": str(job.paths.stdout)})
        return str(job.job_id)

    def _submit(self, packs: Sequence[Pack], packed: Sequence[Sequence[DictConfig]]) -> Sequence[Any] | None:
        """An array with a job for each pack; None if the queue is too full."""
        from ncflow.sweeps.job import PackJob

        options, pairs = self._options, zip(packs, packed, strict=True)
        jobs = [PackJob(configs, pack.is_stacked, self._task, options, self._code) for pack, configs in pairs]
        numbers = [cfg.hydra.job.num for configs in packed for cfg in configs]
        name = options["name"] or f"{self._experiment()}:{min(numbers)}-{max(numbers)}"
        requests = {"name": name, "cpus_per_task": options["cpus_per_task"] * options["pack_at_once"]}
        return self._hand_over(jobs, requests, self._arrays[-1:] if self._in_turns else [])

    def _experiment(self) -> str:
        return experiment_name(self._configs[0]).replace("/", ".")

    def _hand_over(
        self, jobs: Sequence[Any], requests: Mapping[str, Any], after: Sequence[str]
    ) -> Sequence[Any] | None:
        """Submit an array, which begins when others have ended; None if there are too many jobs of this user.

        Raises:
            ConfigError: If SLURM refuses it for another reason.
        """
        options = self._options
        asked = {name: value for name, value in options.items() if name not in _OURS}
        asked |= {"setup": self._lines, **requests}
        if after:
            more = dict(options["additional_parameters"])
            ends = f"afterany:{':'.join(after)}"
            more["dependency"] = f"{more['dependency']},{ends}" if more.get("dependency") else ends
            asked["additional_parameters"] = more
        executor = self._submitit.AutoExecutor(
            options["submitit_folder"],
            cluster="slurm",
            slurm_max_num_timeout=options["max_num_timeout"],
            slurm_python=f"{_DEAF} {shlex.quote(sys.executable)}",
        )
        executor.update_parameters(
            **{name if name in _COMMON else f"slurm_{name}": value for name, value in asked.items()},
            # A process of a run that ends alone ends the run.
            slurm_srun_args=["--kill-on-bad-exit=1"],
        )
        before = self._unsent()
        try:
            with redirect_stderr(io.StringIO()):  # what sbatch says is in the error
                submitted: Sequence[Any] = executor.submit_array(jobs)
                return submitted
        except self._submitit.core.utils.FailedJobError as error:
            for path in self._unsent() - before:  # submitit writes them before it asks SLURM
                with suppress(OSError):
                    path.unlink()
            if _FULL.search(str(error)):
                return None
            raise ConfigError(f"SLURM refuses the jobs: {error_line(error)}") from error

    def _unsent(self) -> set[Path]:
        """What submitit has written for jobs that have no number yet."""
        return {path for path in self._folder.glob("*") if path.suffix in (".pkl", ".sh") and path.is_file()}


def note_job(folder: Path, cfg: DictConfig, job: Any, turn: int) -> None:
    """Leave word in a run's folder that it was submitted, for ``ncflow-status`` and the next submission.

    Args:
        folder: The run's folder.
        cfg: Its config, with Hydra's own part.
        job: Of submitit.
        turn: After how many others of the job it is its turn.
    """
    description = describe(cfg, experiment_name(cfg), folder)
    write_json(folder / JOB, {**description, "job": job.job_id, "turn": turn, "log": str(job.paths.stdout)})


def note_waiting(folder: Path, cfg: DictConfig) -> None:
    """Leave word in a run's folder that it is to be submitted by this same command, once there is room in the queue.

    Args:
        folder: The run's folder.
        cfg: Its config, with Hydra's own part.
    """
    command = {"arguments": sys.argv[1:], "working_directory": os.getcwd()}
    write_json(folder / JOB, {**describe(cfg, experiment_name(cfg), folder), "job": None, "command": command})


def drawing(sweep_jobs: Path) -> str | None:
    """Id of the job that draws the figures of a sweep, whose jobs' logs are in a folder; None if there was none."""
    job = (read_json(sweep_jobs / THEN) or {}).get("job")
    return job if isinstance(job, str) else None
