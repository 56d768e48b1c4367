"""What a run's numbers may depend on beside its config: code, packages and machine."""

import platform
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import ncflow
from ncflow.results import RunFolder
from ncflow.results.columns import SOURCE
from ncflow.results.files import CODE_DIFF
from ncflow.runtime.code import code_of, own_digest
from ncflow.training.entry import targets

_PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "numpy", "scipy", "scikit-learn")
_DRIVER = Path("/proc/driver/nvidia/version")
_NOTHING = "none"
_THEN = ", then "


def provenance(described: Mapping[str, Any], device: torch.device, cells: int | None = None) -> dict[str, str]:
    """What the numbers of a run may depend on, under its names in ``result.json``.

    ``code/<package>`` is the commit of ncflow's code, or of a package of the user's that the config names, and a digest
    of what was changed since, ``source/<package>`` a digest of what it has, whatever its commit; ``version/<package>``
    are installed ones.

    Args:
        described: The run's flat description.
        device: On which it is trained.
        cells: Of the group in which it is trained; None if it is trained alone.
    """
    found = {"version/ncflow": ncflow.__version__, "version/python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[f"version/{name}"] = version(name)
    for name in _named(described):
        own = own_digest(name)
        if own is not None:
            found[f"{SOURCE}{name}"] = own
        code, package = code_of(name), sys.modules.get(name)
        if code is not None:
            found[f"code/{name}"] = code.state
        elif name != "ncflow" and isinstance(installed := getattr(package, "__version__", None), str):
            found.setdefault(f"version/{name}", installed)
    found["version/cpu"] = f"{_cpu_model()}, {torch.backends.cpu.get_cpu_capability()}"
    found["version/trained_with"] = "alone" if cells is None else f"{cells} cells as one"
    return found | (_gpu(device) if device.type == "cuda" else {})


def recorder(
    described: Mapping[str, Any], cells: int | None = None
) -> Callable[[Mapping[str, str], torch.device], dict[str, str]]:
    """For :class:`ncflow.callbacks.resume.SaveForResume`: :func:`provenance`, after what earlier attempts noted."""
    return lambda before, device: joined(before, provenance(described, device, cells))


def leave_diffs(folder: RunFolder) -> None:
    """Leave in a run's folder what was changed in its code since the commit.

    Raises:
        OSError: If it cannot be written.
    """
    for name in _named(folder.described):
        code = code_of(name)
        if code is not None and code.diff:
            folder.leave(CODE_DIFF.replace("*", code.state.rpartition(" ")[2]), code.diff)


def joined(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Of a run that goes on: what it was trained with before and, where that differs, now.

    Args:
        before: What :func:`provenance` or this gave for earlier attempts; empty if there is none.
        now: Of this attempt.
    """
    if not before:
        return dict(now)
    found = {}
    for key in [*now, *(key for key in before if key not in now)]:
        old, new = before.get(key, _NOTHING), now.get(key, _NOTHING)
        found[key] = old if old.split(_THEN)[-1] == new else f"{old}{_THEN}{new}"
    return found


def _named(described: Mapping[str, Any]) -> list[str]:
    """ncflow, and other packages that the config takes something from, or that a model was built by."""
    return list(dict.fromkeys(["ncflow", *(target.partition(".")[0] for target in targets(described))]))


def _gpu(device: torch.device) -> dict[str, str]:
    found = {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": _cudnn(),
        "driver": _driver(),
    }
    return {f"version/{name}": value for name, value in found.items() if value is not None}


def _cudnn() -> str | None:
    number = torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None
    return None if number is None else str(number)


def _driver() -> str | None:
    """Of NVIDIA; None where the system does not say."""
    with suppress(OSError, IndexError):
        line = _DRIVER.read_text().splitlines()[0]  # NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  ...
        return next((word for word in line.split() if word[0].isdigit() and "." in word), None)
    return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
