"""How much memory this process may still take: what is too large is refused before it is allocated.

Linux hands out more memory than there is and ends a process that uses it, so that an allocation proves nothing.
"""

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that are free on this machine, or left of the limit of this process's group, as in a container."""
    left = [_available()]
    for group in (_CGROUPS, _CGROUPS / _own_group()):
        try:
            limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
            # What the group has read of files counts as used, but makes room.
            cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
            if limit != "max":
                left.append(max(0, int(limit) - int(used) + int(cached)))
        except (OSError, ValueError, KeyError):
            continue
    return min(left)


def in_words(number: float) -> str:
    """A number of bytes for people, for example ``"1.5 GiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} PiB"


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):  # not Linux: all that the machine has
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _own_group() -> str:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")
