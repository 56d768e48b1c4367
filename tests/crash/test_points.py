"""A sample of the points that ``scripts/crash_test`` tries: whatever ends a run, the same command finishes it."""

import pytest

from tests.crash.client import Ncflow
from tests.crash.trials import SUBJECTS, points, reference_of, scratch, try_faults

# Every how manieth point; odd to the four kinds of trials at an event, so that each of them has its turn.
_EVERY = {"single": 13, "rich": 23, "sweep": 67, "stacked": 87}


@pytest.fixture(scope="module")
def ncflow():
    with Ncflow() as running:
        yield running


@pytest.mark.parametrize("name", _EVERY)
def test_whatever_ends_it_the_same_command_finishes_it(name, ncflow):
    subject = SUBJECTS[name]
    with scratch() as root:
        reference = reference_of(ncflow, subject, root)
    failing = []
    chosen = points(subject, reference, _EVERY[name])
    for faults in chosen:
        with scratch() as root:
            verdict = try_faults(ncflow, subject, reference, faults, root)
        if verdict.problems:
            failing.append(f"scripts/crash_test --subjects {name} --point {','.join(map(str, faults))}\n  {verdict}")
    assert not failing, f"{len(failing)} of {len(chosen)} points:\n" + "\n".join(failing)
