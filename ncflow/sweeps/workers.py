"""Work in several processes of this machine, each at one item at a time; a killed one costs its own item alone."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from ncflow.runtime import processes
from ncflow.runtime.signals import Listener

# A new process, and what is forked from it, knows nothing of the threads of this one; a fork of it could wait for ever.
# Forked ones share the imports of the process that they are forked from: seconds and hundreds of megabytes for each.
_CONTEXT: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
_ASKING = {getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)}
_SECONDS_BETWEEN_LOOKS, _SECONDS_TO_SAVE = 0.5, 30.0

Work = Callable[[Any], Any]
Environment = Callable[[int], dict[str, str]]


def side_by_side(
    work: Work,
    items: Iterable[Any],
    at_once: int,
    environment: Environment = lambda place: {},
    modules: Sequence[str] = (),
) -> Iterator[tuple[int, Any]]:
    """Work on items, some at a time; yield the place of an item and its result as they come, None of a killed one.

    A signal by which a batch system or ``kill`` asks for an end goes on to the workers, whose training saves a
    checkpoint; so does Ctrl-C, as SIGTERM.

    Args:
        work: What is done with an item, in another process; it, the items and what it returns can be pickled, and it
            does not return None.
        items: The items, taken as they are needed.
        at_once: Processes, >= 1.
        environment: What a process finds in its environment, by its place among those that there are at a time.
        modules: What the work imports, imported once for all processes.

    Raises:
        SystemExit: If a signal asked for the end; the workers have ended.
        RuntimeError: If the work itself failed, with its traceback.
    """
    _CONTEXT.set_forkserver_preload(list(modules))
    listener, crew, waiting = Listener(), _Crew(work, at_once, environment), enumerate(items)
    asking = signal.SIGTERM
    try:
        with listener.listening():
            upcoming = next(waiting, None)
            while upcoming is not None or crew.busy:
                if upcoming is not None and crew.take(*upcoming):
                    upcoming = next(waiting, None)
                    continue
                yield from crew.ended()
                if listener.received:
                    asking = signal.Signals(listener.received)
                    raise SystemExit(128 + asking)
    finally:
        crew.dismiss(asking)


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    place: int
    item: int | None = None

    def hand_over(self, number: int, item: Any) -> None:
        """Give it an item to work on."""
        self.item = number
        with suppress(OSError):  # if it has just ended, the next look tells
            self.connection.send(item)

    def result(self) -> Any:
        """What came of its item; None if it ended without a word."""
        if not self.connection.poll():
            return None
        try:
            is_done, found = self.connection.recv()
        except (EOFError, OSError):
            return None
        if not is_done:
            raise RuntimeError(found)
        return found

    def ask_to_end(self, number: int) -> None:
        """Ask it to end: by a signal if it is at work."""
        if self.item is not None and self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)
        self.connection.close()

    def end(self) -> None:
        """Wait for its end, not for ever."""
        self.process.join(_SECONDS_TO_SAVE)
        self.process.kill()
        self.process.join()
        self.process.close()


@dataclass
class _Crew:
    work: Work
    at_once: int
    environment: Environment
    workers: list[_Worker] = field(default_factory=list)

    @property
    def busy(self) -> list[_Worker]:
        """The workers that have an item."""
        return [worker for worker in self.workers if worker.item is not None]

    def take(self, number: int, item: Any) -> bool:
        """Give an item to a worker that has none, or to a new one; False if all are busy."""
        idle = next((worker for worker in self.workers if worker.item is None), None)
        if idle is None and len(self.workers) == self.at_once:
            return False
        (idle or self._new()).hand_over(number, item)
        return True

    def ended(self) -> Iterator[tuple[int, Any]]:
        """Wait a moment; items that have ended, and their results."""
        parts = [part for worker in self.busy for part in (worker.connection, worker.process.sentinel)]
        ready = wait(parts, _SECONDS_BETWEEN_LOOKS)
        for worker in self.busy:
            # Processes that it left behind may hold its end of either open.
            if worker.connection not in ready and worker.process.is_alive():
                continue
            number, result = worker.item, worker.result()
            assert number is not None
            if result is None:
                self.workers.remove(worker)
                worker.connection.close()
                worker.end()
            worker.item = None
            yield number, result

    def dismiss(self, number: int) -> None:
        """End all: they are asked first, as each may take its time."""
        for worker in self.workers:
            worker.ask_to_end(number)
        for worker in self.workers:
            worker.end()

    def _new(self) -> _Worker:
        place = min(set(range(self.at_once)) - {worker.place for worker in self.workers})
        mine, its = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(its, self.work, {**os.environ, **self.environment(place)}))
        # Ctrl-C goes to all processes of a terminal, and is the business of this one. Nor may a signal that goes to all
        # of a job end the process that workers are forked from, whose end would be taken for that of each of them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *_ASKING})
        try:
            with _nameless_main():
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            its.close()
        worker = _Worker(process, mine, place)
        self.workers.append(worker)
        return worker


@contextmanager
def _nameless_main() -> Iterator[None]:
    """In it, a spawned process does not run the main module, which may be a script that starts what this one does."""
    main = sys.modules["__main__"]
    spec, file = main.__spec__, getattr(main, "__file__", None)
    main.__spec__ = main.__file__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is None:
            del main.__file__
        else:
            main.__file__ = file


def _serve(connection: Connection, work: Work, environment: dict[str, str]) -> None:
    """What a worker does until there is nothing left."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)
    os.environ.clear()  # which may be of an earlier sweep of the same process
    os.environ.update(environment)
    parent = multiprocessing.parent_process()
    assert parent is not None
    processes.end_with(parent.is_alive)
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            done = True, work(item)
        except Exception:
            done = False, traceback.format_exc()
        processes.end_if_orphaned()
        with suppress(BrokenPipeError):  # asked to end when this was done already, and nobody waits for it
            connection.send(done)
