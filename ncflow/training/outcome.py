"""How a run ends: what its result says, and who is told."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch

import ncflow
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
    result = {**measured, **time, **versions(), **record}
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


def versions() -> dict[str, str]:
    """Versions that a run's numbers may depend on."""
    return {
        "version/ncflow": ncflow.__version__,
        "version/python": platform.python_version(),
        "version/torch": str(torch.__version__),
        "version/lightning": lightning.__version__,
    }


def hardware(device: torch.device, cells: int | None = None) -> dict[str, str]:
    """What else a run's numbers may depend on: the processors, and with how many others it was trained.

    Args:
        device: On which it was trained.
        cells: Of the group in which it was trained; None if it was trained alone.
    """
    found = {
        "version/cpu": f"{_cpu_model()}, {torch.backends.cpu.get_cpu_capability()}",
        "version/trained_with": "alone" if cells is None else f"{cells} cells as one",
    }
    return found | ({"version/gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
