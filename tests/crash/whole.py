"""Every point of every command, which takes a while; ``scripts/crash_test``."""

import argparse
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack

from tests.crash.client import Ncflow
from tests.crash.faults import Fault
from tests.crash.trials import KINDS, SUBJECTS, Reference, Subject, Verdict, parse_faults, points, scratch, try_faults
from tests.crash.trials import reference_of as run_undisturbed


class _Runners:
    """A warm process for each thread."""

    def __init__(self, stack: ExitStack) -> None:
        self._own, self._stack, self._lock = threading.local(), stack, threading.Lock()

    def get(self) -> Ncflow:
        if not hasattr(self._own, "ncflow"):
            with self._lock:
                self._own.ncflow = self._stack.enter_context(Ncflow())
        ncflow: Ncflow = self._own.ncflow
        return ncflow


def _try(runners: _Runners, subject: Subject, reference: Reference, faults: list[Fault]) -> Verdict:
    with scratch() as root:
        return try_faults(runners.get(), subject, reference, faults, root)


def main() -> int:
    """Try, print, and count."""
    parser = argparse.ArgumentParser(prog="scripts/crash_test", description=__doc__)
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--every", type=int, default=1, metavar="K", help="every K-th point alone")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time")
    parser.add_argument("--point", help="this one alone, for example kill:12, full:7, or kill:12,kill:3 in turn")
    options = parser.parse_args()

    started = time.monotonic()
    rows, failing, total = [], [], Counter[str]()
    with ExitStack() as stack, ThreadPoolExecutor(options.jobs) as pool:
        runners = _Runners(stack)
        for name in options.subjects:
            subject = SUBJECTS[name]
            with scratch() as root:
                reference = run_undisturbed(runners.get(), subject, root)
            chosen = [parse_faults(options.point)] if options.point else points(subject, reference, options.every)
            tried = {pool.submit(_try, runners, subject, reference, faults): faults for faults in chosen}
            counts = Counter[str]()
            for number, future in enumerate(as_completed(tried), start=1):
                verdict, faults = future.result(), tried[future]
                counts.update({kind for kind, _ in verdict.problems})
                if verdict.problems:
                    point = ",".join(map(str, faults))
                    failing.append((name, faults[0].at, point, verdict))
                if sys.stderr.isatty():
                    print(f"\r{name} {number}/{len(chosen)}, {sum(counts.values())} failing ", end="", file=sys.stderr)
            rows.append((name, len(chosen), counts))
            total.update(counts)
            total["points"] += len(chosen)
    for name, _, point, verdict in sorted(failing, key=lambda row: row[:3]):
        print(f"scripts/crash_test --subjects {name} --point {point}\n    {verdict}")
    print(" | ".join([f"{'subject':8}", "points", *KINDS]))
    for name, number, counts in rows:
        print(" | ".join([f"{name:8}", f"{number:6}", *(f"{counts[kind]:{len(kind)}}" for kind in KINDS)]))
    sums = ", ".join(f"{total[kind]} {kind}" for kind in KINDS)
    print(f"{total['points']} points tried in {time.monotonic() - started:.0f} s: {sums}")
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
