"""What the workers of the tests do; a module of little weight, which each of them imports."""

import os
import signal
import sys
import time
from pathlib import Path

from ncflow.runtime.signals import Listener


def square(item):
    if item == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "leave":
        sys.exit(0)
    if item == "fail":
        raise ValueError("no luck")
    if item == "ask all":
        parent = os.getppid()
        os.kill(parent, signal.SIGUSR2)
        time.sleep(0.3)
        return os.getppid() == parent
    if item == "seen":
        return os.environ["SEEN"]
    if item == "child":  # which outlives the worker, and has all of its open files
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


def slow(item):
    """Runs until a signal asks for its end, and saves then."""
    listener = Listener()
    with listener.listening():
        _until_asked(listener, item)
        time.sleep(0.3)
        Path(item).write_text(f"saved at {signal.Signals(listener.received).name}")
    raise SystemExit(1)


def asked_and_done(item):
    """Comes to its end, and returns, when a signal asks for its end."""
    listener = Listener()
    with listener.listening():
        _until_asked(listener, item)
    time.sleep(0.5)
    return "done"


def _until_asked(listener, item):
    Path(item).write_text("begun")
    while not listener.received:
        time.sleep(0.01)
