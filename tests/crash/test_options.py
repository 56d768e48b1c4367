"""Whatever the options: exit 0, or a line, and not a byte of anybody's file changed."""

import pytest

from tests.crash.client import SMALL
from tests.crash.options import WORK, Place, cases, judge, try_case
from tests.crash.trials import Verdict, changed, scratch, tree

_CASES, _PARTS = 60, 3


@pytest.fixture(scope="module")
def place(ncflow):
    with scratch("place") as folder:
        yield Place(ncflow, folder)


@pytest.mark.parametrize("part", range(_PARTS))
def test_no_option_changes_a_file_of_anybody(part, ncflow, place):
    failing = []
    chosen = cases(_CASES)[part::_PARTS]
    for arguments in chosen:
        verdict = try_case(ncflow, place, arguments)
        if verdict.problems:
            failing.append(f"ncflow {' '.join(arguments)}\n    {verdict}")
    assert not failing, f"{len(failing)} of {len(chosen)}:\n" + "\n".join(failing)


@pytest.mark.parametrize("folder", ["precious", "{precious}", "link", "precious/deep", ".", "..", "runs", ""])
@pytest.mark.parametrize("option", ["hydra.run.dir", "runs_dir"])
def test_a_misspelt_option_removes_nothing(option, folder, ncflow, place):
    verdict = try_case(ncflow, place, [f"{option}={folder}", "weight_decay=-1"])
    assert not verdict.problems, verdict


@pytest.mark.parametrize("folder", ["precious", ".", "runs", "runs/single", "{finished}", "../outside"])
def test_a_folder_of_others_is_no_run(folder, ncflow, place):
    verdict = try_case(ncflow, place, [f"hydra.run.dir={folder}", "seed=7"])
    assert not verdict.problems, verdict


def test_an_interrupted_run_that_is_refused_keeps_its_checkpoint(ncflow, place):
    with place.copy() as root:
        before = tree(root)
        command = ["seed=5", *SMALL]
        refused = ncflow.run([*command, "trainer=ddp", "trainer.num_nodes=2"], root / WORK)
        assert refused.code == 2
        assert len(refused.stderr.splitlines()) == 1
        assert "trainer.num_nodes" in refused.stderr
        assert tree(root) == before
        assert ncflow.run(command, root / WORK).code == 0


def test_the_judgement_sees_each_kind_of_harm(ncflow, place):
    """The tests above can fail."""
    with place.copy() as root:
        before = tree(root)
        fine = ncflow.run(["seed=7", *SMALL], root / WORK)
        after = tree(root)
        verdict = Verdict()
        judge(verdict, place, fine, before, after, root)
        assert fine.code == 0
        assert not verdict.problems, verdict
        thesis = f"{WORK}/precious/thesis.tex"
        for harm, kind in (
            ({**after, thesis: "file of other content"}, "lost"),
            ({path: what for path, what in after.items() if path != thesis}, "lost"),
            ({**after, f"{WORK}/precious/new.log": "file"}, "litter"),
            ({**after, f"{WORK}/precious/.hydra2": "folder"}, "litter"),
        ):
            verdict = Verdict()
            judge(verdict, place, fine, before, harm, root)
            assert [found for found, _ in verdict.problems] == [kind]
        assert changed(before, after) == []
