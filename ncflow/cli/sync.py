"""``ncflow-sync DIR ...``: send the W&B runs that were kept offline below some folders, several at a time."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ncflow.results import JOB, RESULT, RUN, Status
from ncflow.runtime.environment import load_environment
from ncflow.runtime.wandb_server import server_problem
from ncflow.runtime.wandb_sync import OfflineRun, offline_runs, send
from ncflow.sweeps.status import survey

_MOST_JOBS = 64
_SENT, _BEFORE, _TRAINING, _FAILED = "sent", "sent before", "still training", "failed"


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_JOBS):
        raise argparse.ArgumentTypeError(f"must be a number in 1..{_MOST_JOBS}, found {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ncflow-sync",
        description="Send the W&B runs that were kept offline. The same command again goes on with what was not sent.",
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder with runs at any depth")
    parser.add_argument("--jobs", type=_jobs, default=4, metavar="N", help="runs at a time, 4 by default")
    return parser


def _training(runs: Sequence[OfflineRun]) -> set[Path]:
    """The folders whose run is at work, by its lock or by SLURM; what is no run of ncflow is none."""
    own = [run.folder for run in runs if any((run.folder / name).exists() for name in (RESULT, RUN, JOB))]
    found = survey(own).runs if own else []
    return {Path(run.folder).resolve() for run in found if run.status == Status.RUNNING}


def _sync(runs: Sequence[OfflineRun], jobs: int) -> Counter[str]:
    """Send them, with a line a run; how many there are of each outcome."""
    unsent = [run for run in runs if run.unsent()]
    training = _training(unsent)
    ready = [run for run in unsent if run.folder.resolve() not in training]
    counts = Counter({_BEFORE: len(runs) - len(unsent), _TRAINING: len(unsent) - len(ready)})
    for run in unsent:
        if run not in ready:
            print(f"{_TRAINING}: {run.folder}", flush=True)
    problem = server_problem() if ready else None
    if problem is not None:
        raise ConnectionError(f"W&B: {problem}: nothing was sent")
    with closing(send(ready, jobs)) as ended:
        for run, complaint in ended:
            outcome = _SENT if complaint is None else _FAILED
            counts[outcome] += 1
            print(f"{outcome}: {run.folder}" + ("" if complaint is None else f": {complaint}"), flush=True)
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``ncflow-sync``."""
    parsed = _parser().parse_args(arguments)
    load_environment()
    try:
        runs = offline_runs(*parsed.folders)
        if not runs:
            raise FileNotFoundError(f"no offline W&B runs below {', '.join(parsed.folders)}")
        counts = _sync(runs, parsed.jobs)
    except OSError as error:
        print(f"ncflow-sync: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("ncflow-sync: stopped; the same command goes on with what was not sent", file=sys.stderr)
        raise SystemExit(130) from None
    shown = [f"{counts[name]} {name}" for name in (_SENT, _BEFORE, _TRAINING, _FAILED) if counts[name] or name == _SENT]
    print(f"{len(runs)} run{'s' * (len(runs) != 1)}: {', '.join(shown)}")
    if counts[_FAILED]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
