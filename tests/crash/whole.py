"""Every point of every command, every damaged file and a thousand odd commands; ``scripts/crash_test``."""

import argparse
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

from tests.crash import damage, options
from tests.crash.client import Ncflow
from tests.crash.trials import (
    KINDS,
    SUBJECTS,
    Verdict,
    parse_faults,
    points,
    reference_of,
    sample,
    scratch,
    try_faults,
)

DAMAGE = ("damage", "flips")
OPTIONS = "options"
_CASES = 1000

# What is tried, by the name with which one trial is asked for again.
Trials = dict[str, Callable[[Ncflow], Verdict]]


def _points(ncflow: Ncflow, name: str, point: str | None) -> Trials:
    subject = SUBJECTS[name]
    with scratch() as root:
        reference = reference_of(ncflow, subject, root)

    def trial(faults: str) -> Callable[[Ncflow], Verdict]:
        def run(warm: Ncflow) -> Verdict:
            with scratch() as root:
                return try_faults(warm, subject, reference, parse_faults(faults), root)

        return run

    chosen = [point] if point else [",".join(map(str, faults)) for faults in points(subject, reference)]
    return {text: trial(text) for text in chosen}


def _damages(left: dict[str, damage.State]) -> Trials:
    def trial(state: damage.State, one: damage.Damage) -> Callable[[Ncflow], Verdict]:
        def run(warm: Ncflow) -> Verdict:
            with scratch() as root:
                return damage.try_damage(warm, state, one, root)

        return run

    return {
        f"{name}: {Path(one.path).relative_to(state.group if one.is_of_group else state.victim)}"
        f"{' of the group' * one.is_of_group} is {one.how}": trial(state, one)
        for name, state in left.items()
        for one in damage.damages(state)
    }


def _flips(left: dict[str, damage.State]) -> Trials:
    def trial(state: damage.State, byte: int, bit: int) -> Callable[[Ncflow], Verdict]:
        def run(warm: Ncflow) -> Verdict:
            with scratch() as root:
                return damage.try_flip(warm, state, byte, bit, root)

        return run

    return {
        f"{name}: bit {bit} of byte {byte}": trial(state, byte, bit)
        for name, state in left.items()
        if state.name != "finished"
        for byte, bit in damage.flips(state.checkpoint, damage.FLIPS)
    }


def _options(place: options.Place) -> Trials:
    def trial(arguments: list[str]) -> Callable[[Ncflow], Verdict]:
        return lambda warm: options.try_case(warm, place, arguments)

    return {f"ncflow {' '.join(arguments)}": trial(arguments) for arguments in options.cases(_CASES)}


def main() -> int:
    """Try, print, and count."""
    everything = [*SUBJECTS, *DAMAGE, OPTIONS]
    parser = argparse.ArgumentParser(prog="scripts/crash_test", description=__doc__)
    parser.add_argument("--subjects", nargs="+", choices=everything, default=everything)
    parser.add_argument("--every", type=int, default=1, metavar="K", help="one trial in K, the same ones each time")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument(
        "--point", help="this one alone: kill:12, full:7, kill:12,kill:3 in turn, or the words of a trial"
    )
    asked = parser.parse_args()

    started = time.monotonic()
    rows, failing, total = [], [], Counter[str]()
    with ExitStack() as stack, ThreadPoolExecutor(asked.jobs) as pool:
        own, lock = threading.local(), threading.Lock()

        def warm() -> Ncflow:
            """This thread's."""
            if not hasattr(own, "ncflow"):
                with lock:
                    own.ncflow = stack.enter_context(Ncflow())
            found: Ncflow = own.ncflow
            return found

        left: dict[str, damage.State] = {}
        for name in asked.subjects:
            if name in DAMAGE and not left:
                left = damage.states(warm(), stack.enter_context(scratch("states")))
            if name in SUBJECTS:
                trials = _points(warm(), name, asked.point)
            elif name == OPTIONS:
                trials = _options(options.Place(warm(), stack.enter_context(scratch("place"))))
            else:
                trials = _damages(left) if name == "damage" else _flips(left)
            if asked.point is not None and asked.point not in trials:
                parser.error(f"--subjects {name} has no --point {asked.point!r}")
            chosen = sample(list(trials), asked.every) if asked.point is None else [asked.point]
            tried = {pool.submit(lambda run: run(warm()), trials[text]): text for text in chosen}
            counts = Counter[str]()
            for number, future in enumerate(as_completed(tried), start=1):
                verdict = future.result()
                counts.update({kind for kind, _ in verdict.problems})
                if verdict.problems:
                    failing.append(
                        (asked.subjects.index(name), chosen.index(tried[future]), name, tried[future], verdict)
                    )
                if sys.stderr.isatty():
                    print(f"\r{name} {number}/{len(chosen)}, {sum(counts.values())} failing ", end="", file=sys.stderr)
            rows.append((name, len(chosen), counts))
            total.update(counts)
            total["points"] += len(chosen)
    for *_, name, text, verdict in sorted(failing, key=lambda row: row[:2]):
        print(f"scripts/crash_test --subjects {name} --point {shlex.quote(text)}\n    {verdict}")
    print(" | ".join([f"{'subject':8}", "points", *KINDS]))
    for name, number, counts in rows:
        print(" | ".join([f"{name:8}", f"{number:6}", *(f"{counts[kind]:{len(kind)}}" for kind in KINDS)]))
    sums = ", ".join(f"{total[kind]} {kind}" for kind in KINDS)
    print(f"{total['points']} points tried in {time.monotonic() - started:.0f} s: {sums}")
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
