"""A process that dies, or whose disk fails, at its n-th change of a file below a folder.

An event is a system call that changes a file or a folder: opening for writing, a write, fsync, truncation, rename,
removal, a new folder or link. Python's audit events tell of most. They do not tell of writes, so files are opened here
with a ``FileIO`` of our own below Python's buffers: an event is what the system is asked to write, not what the program
says. Reading never counts. Writers in C++ are not seen; ncflow has none, as it serialises checkpoints into memory.

Nothing is imported here that takes time: a worker of a sweep arms its fault before it does anything else.
"""

import builtins
import errno
import io
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

VARIABLE = "NCFLOW_TEST_FAULT"  # in workers of a sweep: the fault, its root, and a folder for notes
_MAIN_PROCESS = "NCFLOW_MAIN_PROCESS"

KILL, FULL, DENIED = "kill", "full", "denied"
UNSYNCED = "(not synced)"  # after the path of an event: a file is renamed that a power cut would leave empty

_open = io.open
_write, _fsync = os.write, os.fsync
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Positions of path and dir_fd in the arguments of the audit events; rename has two of each, and the target counts.
_EVENTS = {
    "os.remove": ("remove", 0, 1),
    "os.rmdir": ("rmdir", 0, 1),
    "os.mkdir": ("mkdir", 0, 2),
    "os.rename": ("rename", 1, 3),
    "os.symlink": ("symlink", 1, 2),
    "os.link": ("link", 1, 3),
    "os.truncate": ("truncate", 0, None),
}


@dataclass(frozen=True)
class Fault:
    """What happens at the ``at``-th event, from 1.

    Attributes:
        kind: ``kill``: SIGKILL before the event, or in the middle of a write, half of whose bytes are there. ``full``:
            ENOSPC, half-way into a write, and from then on for everything that takes space. ``denied``: this one event
            fails, with EACCES, or with EIO where a file is open already.
        at: Which event.
    """

    kind: str
    at: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.at}"

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Of its string."""
        kind, at = text.split(":")
        return cls(kind, int(at))


class Disk:
    """Counts the events below a root, and lets a fault happen.

    Args:
        root: The folder, without links in its path.
        fault: None to count alone.
        claim: A file that the first process to reach its event makes: of several processes one is hit.
        note: A file for a line that says what was hit.
    """

    def __init__(self, root: str, fault: Fault | None, note: str | None = None, claim: str | None = None) -> None:
        self.root, self.fault, self.note, self.claim = root, fault, note, claim
        self.events: list[str] = []
        self._fails = False  # a full disk, from its event on
        self._unsynced: set[str] = set()  # what was written and would not survive the machine

    def watch(self) -> None:
        """From now on, in this process; there is no way back."""
        sys.addaudithook(self._hear)
        builtins.open = io.open = self._open_watched  # type: ignore[assignment]
        os.write, os.fsync, os.fdatasync = self._write_watched, self._fsync_watched, self._fsync_watched

    def below(self, path: Any, folder: Any = None) -> str | None:
        """Path below the root, None elsewhere."""
        try:
            path = os.fsdecode(os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path)
            if isinstance(folder, int) and folder >= 0 and not os.path.isabs(path):
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
            path = os.path.abspath(path)
        except (OSError, TypeError, ValueError):
            return None
        return os.path.relpath(path, self.root) if path.startswith(f"{self.root}{os.sep}") else None

    def event(self, kind: str, path: str) -> bool:
        """Note an event. Whether a write shall be torn; other faults happen here.

        Raises:
            OSError: If that is the fault.
        """
        self.events.append(f"{kind} {path}")
        takes_space = kind not in ("remove", "rmdir", "rename", "fsync", "truncate")
        if self._fails and takes_space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self.fault is None or len(self.events) != self.fault.at or not self._is_mine():
            return False
        self._say(f"{self.events[-1]}\n")
        if self.fault.kind == KILL:
            if kind == "write":
                return True
            die()
        if self.fault.kind == FULL:
            self._fails = True
            if kind == "write":
                return True
            if kind in ("remove", "rmdir"):  # these give space back
                return False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        number = errno.EIO if kind in ("write", "fsync") else errno.EACCES
        raise OSError(number, os.strerror(number), path)

    def _is_mine(self) -> bool:
        if self.claim is None:
            return True
        try:
            os.close(os.open(self.claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    def _say(self, line: str) -> None:
        if self.note is not None:
            descriptor = os.open(self.note, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            _write(descriptor, line.encode())
            os.close(descriptor)

    def _hear(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING and not isinstance(path, int):
                place = self.below(path)
                if place is not None:
                    self.event("open", place)
        elif name in _EVENTS:
            kind, which, folder = _EVENTS[name]
            place = self.below(arguments[which], None if folder is None else arguments[folder])
            if place is not None:
                source = self.below(arguments[0], arguments[2]) if kind == "rename" else None
                self.event(kind, place if source not in self._unsynced else f"{place} {UNSYNCED}")

    def _fsync_watched(self, descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        place = self.below(number)
        if place is not None:
            self.event("fsync", place)
            self._unsynced.discard(place)
        _fsync(number)

    def _write_watched(self, descriptor: int, content: Any) -> int:
        place = self.below(descriptor)
        return _write(descriptor, content if place is None else self.torn(place, content))

    def torn(self, place: str, content: Any) -> Any:
        """What of a write reaches the disk; a process that is to die has written half of it first."""
        self._unsynced.add(place)
        if not self.event("write", place):
            return content
        half = memoryview(content).cast("B")[: len(memoryview(content).cast("B")) // 2]
        if not half and self.fault is not None and self.fault.kind == FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
        return half

    def _open_watched(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        place = self.below(file) if {*mode} & {*"wax+"} else None
        if place is None:
            return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = _WatchedFile(self, place, file if isinstance(file, int) else os.fspath(file), mode, closefd, opener)
        binary = "b" in mode
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        if "+" in mode and raw.seekable():
            buffer: Any = io.BufferedRandom(raw, size)
        elif "+" in mode:
            raise io.UnsupportedOperation("File or stream is not seekable.")
        else:
            buffer = io.BufferedWriter(raw, size)
        if binary:
            return buffer
        text: Any = io.TextIOWrapper(buffer, encoding, errors, newline, buffering == 1)
        text.mode = mode
        return text


class _WatchedFile(io.FileIO):
    """A file whose every write is an event."""

    def __init__(self, disk: Disk, place: str, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        self._disk, self._place = disk, place
        super().__init__(file, "".join(letter for letter in mode if letter in "rwax+"), closefd, opener)

    def write(self, content: Any) -> int | None:
        """Write all, or half and die, or half and say so."""
        kept = self._disk.torn(self._place, content)
        written = super().write(kept)
        fault = self._disk.fault
        if kept is not content and fault is not None and fault.kind == KILL:
            die()
        return written

    def truncate(self, size: int | None = None) -> int:
        """Cut, which no audit event tells of."""
        self._disk.event("truncate", self._place)
        return super().truncate(size)


def die() -> None:
    """As the system does when memory runs out: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def arm_from_environment() -> None:
    """In a process of a sweep that is not its main one: watch, where the test that started the sweep asks for it."""
    if VARIABLE in os.environ and os.environ.get(_MAIN_PROCESS, str(os.getpid())) != str(os.getpid()):
        fault, root, notes = os.environ[VARIABLE].split("|")
        Disk(root, Fault.parse(fault), os.path.join(notes, "hit"), os.path.join(notes, "claim")).watch()
