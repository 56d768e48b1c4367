"""A sample of the points that ``scripts/crash_test`` tries: whatever ends a run, the same command finishes it."""

import pytest

from tests.crash.faults import KILL, UNSYNCED, Fault
from tests.crash.trials import SUBJECTS, points, reference_of, sample, scratch, try_faults

# One point in so many.
_EVERY = {"single": 17, "rich": 29, "sweep": 100, "twin": 240, "stacked": 130}


@pytest.fixture(scope="module")
def reference(ncflow):
    known = {}

    def of(name):
        if name not in known:
            with scratch() as root:
                known[name] = reference_of(ncflow, SUBJECTS[name], root)
        return known[name]

    return of


@pytest.mark.parametrize("name", _EVERY)
def test_whatever_ends_it_the_same_command_finishes_it(name, ncflow, reference):
    subject = SUBJECTS[name]
    failing = []
    chosen = sample(points(subject, reference(name)), _EVERY[name])
    for faults in chosen:
        with scratch() as root:
            verdict = try_faults(ncflow, subject, reference(name), faults, root)
        if verdict.problems:
            point = ",".join(map(str, faults))
            failing.append(f"scripts/crash_test --subjects {name} --point {point}\n  {verdict}")
    assert not failing, f"{len(failing)} of {len(chosen)} points:\n" + "\n".join(failing)


def test_a_worker_that_dies_takes_no_other_run_with_it(ncflow, reference):
    """As the system ends one when memory runs out."""
    with scratch() as root:
        verdict = try_faults(ncflow, SUBJECTS["local"], reference("local"), [Fault(KILL, 25)], root)
    assert not verdict.problems, verdict


@pytest.mark.parametrize("name", _EVERY)
def test_what_is_renamed_into_place_would_survive_a_power_cut(name, reference):
    assert [event for event in reference(name).events if event.endswith(UNSYNCED)] == []
