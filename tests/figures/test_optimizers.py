"""The claims and figures on optimisers: planted tables, what a run is told by, and the pictures' data."""

import numpy as np
import pandas as pd
import pytest

from ncflow.figures.papers.as_words import numbers
from ncflow.figures.papers.claims import CLAIMS, judge
from ncflow.figures.papers.optimizers import claims, figures
from ncflow.figures.papers.optimizers.own import EFFECTIVE, told_apart
from ncflow.figures.papers.verdict import Answer
from tests.figures.planted_optimizers import NO_HISTORY, PLANTERS, at_equal_loss, by_share, coupled, off_the_law, signum
from tests.figures.rates import STANDARD, count, too_often

every_claim = pytest.mark.parametrize("claim", PLANTERS, ids=lambda claim: claim.__name__)
LAW = claims.nc0_of_sgd_is_known_beforehand
STRANGERS = (
    {"loss.name": "square"},
    {"data.random_labels": 0.5},
    {"data.name": "sample_index"},
    {"status": "failed"},
    {"weight_decay": 0.0},
)


def test_every_claim_has_a_planter_and_an_id_of_its_own():
    assert set(CLAIMS["optimizers"]) == set(PLANTERS)
    ids = [claim(*planter(0)).id for claim, planter in PLANTERS.items()]
    assert len(ids) == len(set(ids))
    assert {"optimizers/1", "optimizers/2", "optimizers/3"} <= set(ids)


@every_claim
def test_true_false_none_and_too_few(claim):
    plant = PLANTERS[claim]
    assert claim(*plant(5)).answer == Answer.SUPPORTED
    assert claim(*plant(-5)).answer == Answer.CONTRADICTED
    assert claim(*plant(0)).answer == (Answer.UNDECIDED if claim is LAW else Answer.NO_EFFECT)
    few = claim(*plant(5, seeds=1))
    assert few.answer == Answer.NOT_ENOUGH
    assert f"needs {few.needs}" in numbers(few)
    assert claim(pd.DataFrame(), NO_HISTORY).answer == Answer.NOT_ENOUGH


@every_claim
def test_strangers_change_nothing_and_are_counted(claim):
    runs, history = PLANTERS[claim](5)
    plain = claim(runs, history)
    tables, histories = [runs], [history]
    for number, config in enumerate(STRANGERS):
        foreign, of_foreign = PLANTERS[claim](-5, rng=1)
        tables.append(foreign.assign(**config, folder=foreign["folder"] + f"#{number}"))
        histories.append(of_foreign.assign(folder=of_foreign["folder"] + f"#{number}"))
    verdict = claim(pd.concat(tables, ignore_index=True), pd.concat(histories, ignore_index=True))
    assert [part.effects for part in verdict.settings] == [part.effects for part in plain.settings]
    assert sum(verdict.left_out.values()) - sum(plain.left_out.values()) == len(runs) * len(STRANGERS)


@pytest.mark.parametrize("claim", [claims.decoupled_adam_collapses_less, claims.momentum_collapses_more_at_equal_loss])
def test_answers_come_as_often_as_they_should(claim):
    counts = {size: count(claim, PLANTERS[claim], size, STANDARD, range(40)) for size in (0, 1, 2)}
    assert too_often(counts) == []
    assert counts[2][Answer.SUPPORTED] >= 28


def test_adam_and_adamw_are_two_ends_of_one():
    """As they are by default, under their own names, without the option."""
    runs, history = coupled(5)
    names = runs["weight_decay_coupling"].map({0.0: "adamw", 1.0: "adam"})
    targets = runs["weight_decay_coupling"].map({0.0: "torch.optim.AdamW", 1.0: "torch.optim.Adam"})
    plain = runs.drop(columns="weight_decay_coupling").assign(**{"optimizer.name": names})
    claim = claims.decoupled_adam_collapses_less
    for own in (plain, plain.assign(**{"optimizer._target_": targets, "weight_decay_coupling": None})):
        assert claim(own, history).answer == Answer.SUPPORTED
        assert [part.effects for part in claim(own, history).settings] == [
            part.effects for part in claim(runs, history).settings
        ]
    assert claim(runs.assign(**{"optimizer.name": "sgd"}), history).answer == Answer.NOT_ENOUGH


def test_other_papers_leave_out_decoupled_decay_and_these_claims_other_papers_runs():
    runs, history = coupled(5)
    runs = runs.assign(experiment="pan_cao/fig2")
    answers = {verdict.id: verdict for verdict in judge(runs, history)}
    assert answers["pan_cao/1"].left_out == {"of decay apart from the loss": 10}
    assert answers["optimizers/1"].answer == Answer.SUPPORTED


def test_nc1_at_equal_loss_is_read_between_measurements():
    curve = pd.DataFrame({"loss": [1.0, 0.1, 0.01], "nc1": [1.0, 0.1, 0.001]})
    assert claims._when_first(curve, 0.1) == pytest.approx(-1)
    assert claims._when_first(curve, 10**-1.5) == pytest.approx(-2)
    assert claims._when_first(curve, 5.0) == 0.0
    runs, history = at_equal_loss(2, sd=0.0)
    (effect,) = claims.momentum_collapses_more_at_equal_loss(runs, history).settings[0].effects
    assert list(effect.blocks.values()) == pytest.approx([2 * np.log10(2)] * 5)


def test_one_rate_and_one_length_are_settings_of_their_own():
    runs, _ = at_equal_loss(2)
    runs.loc[runs["optimizer.momentum"] == 0.9, "optimizer.lr"] = 0.01
    assert set(told_apart(runs)[EFFECTIVE]) == {0.1}
    verdict = claims.momentum_collapses_more_at_equal_loss(runs, at_equal_loss(2)[1])
    assert {setting.name.rpartition(", ")[2] for setting in verdict.settings} == {"lr/(1 - momentum) 0.1"}


@pytest.mark.parametrize(
    ("recipe", "planter", "names"),
    [
        (figures.coupling, by_share, ["coupling"]),
        (figures.optimizers, signum, ["optimizers"]),
        (figures.optimizers, off_the_law, []),  # one optimiser, one share
        (figures.nc0, off_the_law, ["nc0"]),
        (figures.nc0, at_equal_loss, []),  # without NC0
        (figures.equal_loss, at_equal_loss, ["equal_loss"]),
        (figures.equal_loss, by_share, []),
        (figures.coupling, at_equal_loss, []),
    ],
)
def test_a_figure_is_drawn_where_runs_allow_it(recipe, planter, names):
    drawn = list(recipe(*planter(2)))
    assert [drawing.name for drawing in drawn] == names
    for drawing in drawn:
        assert drawing.content.axes[0].lines
        assert "5 seeds" in drawing.heading


def test_optimisers_are_drawn_over_weight_decay():
    (drawing,) = figures.optimizers(*signum(2))
    assert [axis.get_xlabel() for axis in drawing.content.axes] == ["", "weight decay $\\lambda$"]
    (first, *_) = drawing.content.axes[0].containers
    assert list(first.lines[0].get_xdata()) == [5e-4, 5e-3]


def test_the_law_is_drawn_on_what_was_measured():
    runs, history = off_the_law(5, seeds=2, sd=0.0)
    runs = runs.assign(seconds=10.0 + 1e-9 * np.arange(len(runs)), steps_per_second=30.0)
    (drawing,) = figures.nc0(runs, history)
    assert "2 seeds" in drawing.heading
    measured, law = drawing.content.axes[0].lines[:2]
    assert measured.get_xdata()[-1] == pytest.approx(300)
    assert law.get_linestyle() == ":"
    ratio = measured.get_ydata() / law.get_ydata()
    assert ratio == pytest.approx(10 ** (claims.FROM_THE_LAW / 5))
