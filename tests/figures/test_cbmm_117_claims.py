"""The claims of CBMM Memo 117 on planted sweeps: true, false, no effect, too few, among strangers; and their parts."""

import statistics
from math import log10

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from ncflow.figures.papers.as_words import numbers
from ncflow.figures.papers.cbmm_117 import claims as memo
from ncflow.figures.papers.cbmm_117.seed_spread import pseudo_values
from ncflow.figures.papers.verdict import Answer
from tests.figures.planted_memo import NO_HISTORY, PLANTERS

NORMALISED = {  # the memo's theory is of normalised weights too
    memo.norms_rest_at_equilibrium,
    memo.square_loss_collapses,
    memo.square_loss_makes_dual,
    memo.square_loss_chooses_nearest_mean,
    memo.poor_margins_collapse,
    memo.random_labels_collapse,
    memo.quasi_interpolation_fixes_the_classifier,
}
RANDOM = {
    memo.norms_rest_at_equilibrium,
    memo.random_labels_raise_rho,
    memo.random_labels_shrink_margins,
    memo.random_labels_raise_test_error,
    memo.poor_margins_collapse,
    memo.random_labels_collapse,
    memo.quasi_interpolation_fixes_the_classifier,
}
every_claim = pytest.mark.parametrize("claim", PLANTERS, ids=lambda claim: claim.__name__)


def test_every_claim_has_a_planter():
    assert set(PLANTERS) == set(memo.CLAIMS)


@every_claim
def test_true_false_none_and_too_few(claim):
    plant = PLANTERS[claim]
    assert claim(*plant(4)).answer == Answer.SUPPORTED
    assert claim(*plant(-4)).answer == Answer.CONTRADICTED
    assert claim(*plant(0, seeds=25)).answer == Answer.NO_EFFECT
    few = claim(*plant(4, seeds=1))
    assert few.answer == Answer.NOT_ENOUGH
    assert f"needs {few.needs}" in numbers(few)
    nothing = claim(pd.DataFrame(), NO_HISTORY)
    assert nothing.answer == Answer.NOT_ENOUGH
    assert not nothing.settings


@every_claim
def test_strangers_change_nothing_and_are_counted(claim):
    """Runs of other papers, which say the opposite, in the same folder."""
    runs, history = PLANTERS[claim](4)
    plain = claim(runs, history)
    others = [
        {"loss.name": "cross_entropy"},
        {"data.name": "sample_index"},
        {"optimizer.name": "adamw"},
        {"model.simplex": 1.0},
        {"status": "diverged"},
    ]
    others += [{"model.normalization": "weight"}] if claim not in NORMALISED else []
    others += [{"data.random_labels": 0.5}] if claim not in RANDOM else []
    tables, histories = [runs], [history]
    for number, config in enumerate(others):
        foreign, its_history = PLANTERS[claim](-4, rng=1)
        tables.append(foreign.assign(**config, folder=foreign["folder"] + f"#{number}"))
        histories.append(its_history.assign(folder=its_history["folder"] + f"#{number}"))
    verdict = claim(pd.concat(tables, ignore_index=True), pd.concat(histories, ignore_index=True))
    assert [part.effects for part in verdict.settings] == [part.effects for part in plain.settings]
    assert verdict.answer == plain.answer == Answer.SUPPORTED
    assert plain.left_out == {}
    assert sum(verdict.left_out.values()) == len(runs) * len(others)
    assert len(verdict.left_out) == len(others)


@pytest.mark.parametrize("claim", [memo.decay_frees_rho_of_its_start, memo.random_labels_collapse])
def test_networks_with_bn_and_without_are_settings_of_their_own(claim):
    runs, history = PLANTERS[claim](4)
    other, other_history = PLANTERS[claim](-4, rng=1)
    other["folder"], other_history["folder"] = other["folder"] + "#", other_history["folder"] + "#"
    both = pd.concat([runs, other.assign(**{"model.norm": "none"})], ignore_index=True)
    verdict = claim(both, pd.concat([history, other_history], ignore_index=True))
    answers = {part.answer for part in verdict.settings if "BN none" in part.name}
    assert Answer.CONTRADICTED in answers
    assert {part.answer for part in verdict.settings if "BN all" in part.name} == {Answer.SUPPORTED}


def test_runs_that_do_not_interpolate_are_left_out_and_counted():
    runs, history = PLANTERS[memo.decay_frees_rho_of_its_start](4)
    stray = (runs["model.init_norm"] == 5) & (runs["weight_decay"] > 0)
    runs.loc[stray, ["train/rho", "train/interpolated"]] = [1e6, 0.0]
    verdict = memo.decay_frees_rho_of_its_start(runs, history)
    assert verdict.answer == Answer.SUPPORTED
    assert f"{stray.sum()} of {len(runs)} runs do not interpolate, left out" in numbers(verdict)[0]


def test_one_seed_that_did_not_collapse_is_not_made_up_for():
    runs, history = PLANTERS[memo.square_loss_collapses](2, sd=1e-7)
    runs.loc[runs["seed"] == 0, "train/nc1"] = 1.0
    assert memo.square_loss_collapses(runs, history).answer == Answer.UNDECIDED


def test_nc2_of_two_classes_is_not_judged():
    runs, history = PLANTERS[memo.square_loss_collapses](4)
    runs["train/nc2_equinorm_weights"] = 0.9
    assert memo.square_loss_collapses(runs, history).answer == Answer.CONTRADICTED
    for claim in (memo.square_loss_collapses, memo.poor_margins_collapse):
        verdict = claim(runs.assign(**{"data.num_classes": 2}), history)
        assert verdict.answer == Answer.SUPPORTED
        assert not [effect for effect in verdict.settings[0].effects if "nc2" in effect.quantity]


def test_good_margins_say_nothing_of_poor_ones():
    runs, history = PLANTERS[memo.poor_margins_collapse](4)
    alike = runs.assign(**{"train/normalized_margin_mean": 0.01 - 0.001 * (runs["weight_decay"] < 0.001)})
    assert memo.poor_margins_collapse(alike, history).answer == Answer.NOT_ENOUGH


# --- J.2 --------------------------------------------------------------------------------------------------------


def test_j2_compares_equal_steps_and_leaves_equal_epochs_out():
    """At equal epochs the small batches have had more steps, here 100 times as many."""
    claim = memo.exponential_loss_needs_small_batches
    runs, history = PLANTERS[claim](4)
    verdict = claim(runs, history)
    assert [part.name.split(", ")[-1] for part in verdict.settings] == ["about 4e+03 steps"]
    equal_epochs = PLANTERS[claim](-4, rng=1)[0].assign(epochs=10)
    batches = np.ceil(1000 / equal_epochs["batch_size"].fillna(1000))
    equal_epochs["steps_per_second"] = 10 * batches / equal_epochs["seconds"]
    mixed = claim(pd.concat([runs, equal_epochs], ignore_index=True), history)
    assert mixed.answer == Answer.SUPPORTED
    assert [part.effects for part in mixed.settings] == [part.effects for part in verdict.settings]
    assert sum(mixed.left_out.values()) == len(equal_epochs)
    assert all("three batch sizes at equal steps" in reason for reason in mixed.left_out)
    assert claim(equal_epochs, history).answer == Answer.NOT_ENOUGH


def test_j2_takes_steps_as_equal_that_whole_epochs_round():
    claim = memo.exponential_loss_needs_small_batches
    runs, history = PLANTERS[claim](4)
    jittered = runs.assign(steps_per_second=runs["steps_per_second"] * (1 + 0.008 * (runs["batch_size"] == 50)))
    assert claim(jittered, history).answer == Answer.SUPPORTED
    assert len(claim(jittered, history).settings) == 1
    apart = runs.assign(steps_per_second=runs["steps_per_second"] * (1 + 0.1 * (runs["batch_size"] >= 50)))
    assert claim(apart, history).answer == Answer.NOT_ENOUGH


@pytest.mark.parametrize("loss", ["exponential", "square_signs"])
def test_j2_needs_both_losses(loss):
    claim = memo.exponential_loss_needs_small_batches
    runs, history = PLANTERS[claim](4)
    own = runs["loss.name"] == loss
    assert claim(runs[own], history).answer == Answer.NOT_ENOUGH
    stalled = runs.assign(**{"train/interpolated": own.astype(float)})
    assert claim(stalled, history).answer == Answer.NOT_ENOUGH


# --- quantities against other ways to compute them ---------------------------------------------------------------


def test_pseudo_values_are_the_jackknifes_of_the_log_ratio():
    rng = np.random.default_rng(0)
    ends = pd.DataFrame({"least": rng.normal(0, 1, 6), "largest": rng.normal(0, 7, 6)}, index=[3, 1, 4, 0, 5, 9])

    def ratio(table):
        return log10(statistics.stdev(table["largest"]) / statistics.stdev(table["least"]))

    found = pseudo_values(ends)
    for seed in ends.index:
        expected = 6 * ratio(ends) - 5 * ratio(ends.drop(index=seed))
        assert found[seed] == pytest.approx(expected, abs=1e-5)  # the floor of 0.001
    assert found.mean() == pytest.approx(log10(7), abs=0.5)
    assert pseudo_values(ends[:3]).empty


def test_runs_that_all_end_alike_have_no_spread():
    runs, history = PLANTERS[memo.large_norms_scatter_accuracy](4)
    verdict = memo.large_norms_scatter_accuracy(runs.assign(**{"test/accuracy": 1.0}), history)
    assert verdict.answer == Answer.NO_EFFECT


def test_fishers_z_is_of_scipys_correlation():
    runs, history = PLANTERS[memo.margins_anticorrelate_with_accuracy](1)
    (setting,) = memo.margins_anticorrelate_with_accuracy(runs, history).settings
    for seed, own in runs.groupby("seed"):
        r = -pearsonr(-np.log10(own["train/rho"]), own["test/accuracy"]).statistic
        expected = 0.5 * np.log((1 + r) / (1 - r)) - r / 12
        assert setting.effects[0].blocks[seed] == pytest.approx(expected, rel=1e-9)


def test_a_monotone_path_is_ups_less_downs():
    runs, _ = PLANTERS[memo.rho_is_monotone_without_decay](4, seeds=2)
    paths = {0.01: [0, 1, 2, 1.5, 3, 4, 5, 6, 7], 5.0: [7, 6, 5, 4, 3, 2, 1, 0.5, 0]}
    rows = [
        {"folder": folder, "epoch": epoch, "rho": 10**value, "split": "train", "layer": "last"}
        for folder, norm in zip(runs["folder"], runs["model.init_norm"], strict=True)
        for epoch, value in enumerate(paths[norm])
    ]
    (setting,) = memo.rho_is_monotone_without_decay(runs, pd.DataFrame(rows)[::-1]).settings
    assert [effect.estimate.mean for effect in setting.effects] == pytest.approx([7 / 8 - 0.7, 1 - 0.7])


def test_norms_too_near_each_other_are_not_small_and_large():
    runs, history = PLANTERS[memo.small_norms_reach_less_loss](4)
    near = runs.assign(**{"model.init_norm": runs["model.init_norm"].map({0.01: 4.0, 1.0: 4.5, 5.0: 5.0})})
    assert memo.small_norms_reach_less_loss(near, history).answer == Answer.NOT_ENOUGH


def test_rho_that_decay_does_not_move_is_not_at_rest_by_eq_11():
    """Within ten percent of rho_eq, as any rho of outputs that interpolate, but at rho_0."""
    runs, history = PLANTERS[memo.norms_rest_at_equilibrium](4)
    without = runs["train/normalized_output_mean"] / runs["train/normalized_output_square"]
    close = runs.assign(**{"train/rho": without, "train/rho_eq": without / 1.01})
    assert memo.norms_rest_at_equilibrium(close, history).answer == Answer.CONTRADICTED
