"""Every module and loader of the table is measured as brute force says, or refused in one line with the way out."""

import logging
import math
from pathlib import Path

import pytest
import torch

from ncflow.checks import ArgumentError
from ncflow.measuring import notes
from tests.foreign.case import CASES, brute_force, run
from tests.foreign.table import table


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_measured_as_brute_force_says_or_refused(case, caplog):
    notes._say.cache_clear()
    caplog.set_level(logging.WARNING, "ncflow")
    fit = case.make()
    if case.refused:
        with pytest.raises((ArgumentError, NotImplementedError), match=case.says) as error:
            run(fit)
        assert "\n" not in str(error.value)
        return
    row = next(row for row in run(fit)[0].rows if row["split"] == "train")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("ncflow")]
    assert any(case.says in line for line in said) if case.says else said == []
    module = getattr(fit.module, "_orig_mod", fit.module).eval()
    with torch.no_grad():
        expected = fit.measures(module)
        if fit.truth is not None:
            expected = {**brute_force(fit.truth(module)), **expected}
    for name, value in expected.items():
        assert math.isnan(row[name]) if math.isnan(value) else row[name] == pytest.approx(value, rel=2e-4, abs=1e-5), (
            name
        )


def test_names_are_of_one_case_each():
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) > 70


def test_the_readme_has_the_table():
    """`python -m tests.foreign.table` prints it."""
    assert table() in Path(__file__).parents[2].joinpath("README.md").read_text()
