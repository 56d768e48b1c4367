"""How a run ends: what its result says, and who is told."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ncflow.results import History, RunFolder, final_measures
from ncflow.results.report import Report, line_of
from ncflow.training.checkpoints import OUTCOME


def end(
    folder: RunFolder,
    loggers: Iterable[Any],
    status: str,
    rows: Sequence[Mapping[str, Any]],
    seconds: float,
    steps: int,
    record: Mapping[str, str],
) -> Report:
    """End a run's loggers, and say in its folder that it is finished.

    Args:
        folder: The run's folder.
        loggers: The run's own.
        status: How it ended, ``done`` or ``diverged``.
        rows: Of its last measurement.
        seconds: Of training, over all attempts.
        steps: Of the optimiser.
        record: What it was trained on and with, and the digests of its tables, under the names in ``result.json``.
    """
    time = {"seconds": round(seconds, 3), "steps_per_second": round(steps / seconds, 2) if seconds > 0 else None}
    measured = {**folder.described, "status": str(status), **final_measures(rows)}
    result = {**measured, **time, **record}
    for logger in loggers:
        logger.finish({**result, "epoch": rows[0]["epoch"]})
    folder.finish(result)
    report = Report(status, str(folder.path), values=result)
    folder.note(line_of(report))
    return report


def ended_with(saved: Mapping[str, Any], history: History | None) -> dict[str, Any] | None:
    """How a run ended that was trained with others, for :func:`end`; None if its checkpoint is not of a run's end.

    It is None, too, if the run's history is not whole.

    Args:
        saved: The run's own checkpoint.
        history: The run's table, None if it keeps none.
    """
    kept = saved.get(OUTCOME)
    if kept is None or (history is not None and not history.agrees(kept["history"])):
        return None
    return {**{key: kept[key] for key in ("status", "rows", "seconds", "record")}, "steps": saved["global_step"]}
