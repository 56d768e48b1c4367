"""Damaged files of runs: the same command heals the run or says in a line that it cannot, and finishes the others."""

import shutil

import pytest

from tests.crash import damage
from tests.crash.damage import FLIPS, damages, flips, states, try_damage, try_flip
from tests.crash.trials import sample, scratch, tree


@pytest.fixture(scope="module")
def left(ncflow):
    with scratch("states") as place:
        yield states(ncflow, place)


def _all_fine(failing, tried):
    assert not failing, f"{len(failing)} of {tried}:\n" + "\n".join(failing)


@pytest.mark.parametrize(("name", "every"), [("finished", 10), ("sweep stopped", 11), ("stacked stopped", 12)])
def test_a_damaged_file_is_healed_or_named_and_the_other_runs_finish(name, every, ncflow, left):
    failing = []
    chosen = sample(damages(left[name]), every)
    for one in chosen:
        with scratch() as root:
            verdict = try_damage(ncflow, left[name], one, root)
        if verdict.problems:
            failing.append(f"{one}: {verdict}")
    _all_fine(failing, len(chosen))


@pytest.mark.parametrize("how", ["half", "empty", "garbage", "deleted", "another run's"])
def test_the_history_of_a_finished_run_is_not_damaged_in_silence(how, ncflow, left):
    """The numbers of a run are in its history; success must not be said of a run without."""
    state = left["finished"]
    with scratch() as root:
        shutil.copytree(state.folder, root, symlinks=True, dirs_exist_ok=True)
        other = next(path for path in state.reference.cells if path != state.victim)
        damage.OF_FILES[how](root / state.victim / "history.csv", root / other / "history.csv")
        again = ncflow.run(state.subject.command, root)
        assert "Traceback" not in again.stderr
        assert again.code == 1 or not state.reference.problems(root)


@pytest.mark.parametrize("name", ["sweep stopped", "stacked stopped"])
def test_a_flipped_bit_of_a_checkpoint_changes_no_number(name, ncflow, left):
    state = left[name]
    failing = []
    chosen = list(flips(state.checkpoint, FLIPS))[:: 8 if state.group else 4]
    for byte, bit in chosen:
        with scratch() as root:
            verdict = try_flip(ncflow, state, byte, bit, root)
        if verdict.problems:
            failing.append(str(verdict))
    _all_fine(failing, len(chosen))


def test_the_damages_are_real(tmp_path):
    """Each changes what is there, else the tests above would say nothing."""
    other = tmp_path / "other"
    other.write_text("of another run")
    for number, how in enumerate([*damage.OF_FILES, *damage.OF_FOLDERS]):
        place = tmp_path / str(number)
        (place / "checkpoints").mkdir(parents=True)
        (place / "checkpoints" / "last.ckpt").write_text("weights")
        before = tree(place)
        if number < len(damage.OF_FILES):
            damage.OF_FILES[how](place / "checkpoints" / "last.ckpt", other)
        else:
            damage.OF_FOLDERS[how](place / "checkpoints", other)
        assert tree(place) != before, how
