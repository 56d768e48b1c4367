"""What a verdict is: its tests against SciPy, its answers on planted tables, and failures that were seen."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ncflow.figures.papers.as_json import as_json
from ncflow.figures.papers.as_words import in_words, numbers
from ncflow.figures.papers.cbmm_117 import claims as memo
from ncflow.figures.papers.claims import CLAIMS, judge
from ncflow.figures.papers.one_sided import LEVEL, rejected
from ncflow.figures.papers.pan_cao import claims as pan_cao
from ncflow.figures.papers.pan_cao.comparing import at_best_decays
from ncflow.figures.papers.pan_thesis import claims as thesis
from ncflow.figures.papers.selection import INTER, INTRA, slope_effect
from ncflow.figures.papers.verdict import Answer, Effect, Quantifier, Setting, Verdict, judge_settings
from tests.figures.planted import history_of, runs_of

EMPTY = pd.DataFrame(columns=["folder", "epoch", "split", "layer"])


def effect(*blocks, smallest=0.02, absent=False):
    return Effect("x", smallest, dict(enumerate(blocks)), absent)


def setting(*effects, **options):
    return Setting("s", effects, 10, **options)


# --- the tests --------------------------------------------------------------------------------------------------


def test_each_test_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        blocks = rng.normal(0.02, 0.03, rng.integers(2, 7))
        found = effect(*blocks)
        assert found.p_supported == pytest.approx(stats.ttest_1samp(blocks, 0.02, alternative="greater").pvalue)
        assert found.p_contradicted == pytest.approx(stats.ttest_1samp(blocks, -0.02, alternative="less").pvalue)
        two = [
            stats.ttest_1samp(blocks, bound, alternative=side).pvalue
            for bound, side in ((0.02, "less"), (-0.02, "greater"))
        ]
        assert found.p_no_effect == pytest.approx(max(two))
        interval = stats.ttest_1samp(blocks, 0).confidence_interval(1 - 2 * LEVEL)
        assert found.estimate.interval == pytest.approx((interval.low, interval.high))
        not_there = effect(*blocks, absent=True)
        assert not_there.p_supported == pytest.approx(two[0])
        assert not_there.p_contradicted == pytest.approx(found.p_supported)


@pytest.mark.parametrize(
    ("blocks", "answer", "absent"),
    [
        ((0.1, 0.11, 0.12), Answer.SUPPORTED, Answer.CONTRADICTED),
        ((-0.1, -0.11, -0.12), Answer.CONTRADICTED, Answer.SUPPORTED),
        ((0.001, 0.0, -0.001), Answer.NO_EFFECT, Answer.SUPPORTED),
        ((0.1, -0.1, 0.05), Answer.UNDECIDED, Answer.UNDECIDED),
        ((0.5, 0.5), Answer.SUPPORTED, Answer.CONTRADICTED),
        ((0.1,), Answer.NOT_ENOUGH, Answer.NOT_ENOUGH),
        ((0.1, np.nan), Answer.NOT_ENOUGH, Answer.NOT_ENOUGH),
        ((), Answer.NOT_ENOUGH, Answer.NOT_ENOUGH),
    ],
)
def test_five_answers(blocks, answer, absent):
    assert setting(effect(*blocks)).answer == answer
    assert setting(effect(*blocks, absent=True)).answer == absent


YES, NO, NONE = (0.1, 0.11, 0.12), (-0.1, -0.11, -0.12), (0.0001, 0.0, -0.0001)
OPEN = (0.1, -0.1, 0.05)


@pytest.mark.parametrize(
    ("settings", "every", "most", "some"),
    [
        ([YES, YES, YES], Answer.SUPPORTED, Answer.SUPPORTED, Answer.SUPPORTED),
        ([YES, YES, OPEN], Answer.UNDECIDED, Answer.SUPPORTED, Answer.SUPPORTED),
        ([YES, YES, NO], Answer.CONTRADICTED, Answer.SUPPORTED, Answer.SUPPORTED),
        ([YES, NO, NO], Answer.CONTRADICTED, Answer.CONTRADICTED, Answer.SUPPORTED),
        ([NO, NO, NO], Answer.CONTRADICTED, Answer.CONTRADICTED, Answer.CONTRADICTED),
        ([YES, NONE, YES], Answer.NO_EFFECT, Answer.SUPPORTED, Answer.SUPPORTED),
        ([OPEN, OPEN], Answer.UNDECIDED, Answer.UNDECIDED, Answer.UNDECIDED),
        ([], Answer.NOT_ENOUGH, Answer.NOT_ENOUGH, Answer.NOT_ENOUGH),
    ],
)
def test_quantifiers(settings, every, most, some):
    made = [setting(effect(*blocks)) for blocks in settings]
    made.append(setting(effect(*NO), excepted=True))
    found = [judge_settings(made, quantifier) for quantifier in Quantifier]
    assert found == [every, most, some]


def test_holm_is_statsmodels_by_hand():
    assert rejected([0.04, 0.04], 2)  # both: no correction
    assert not rejected([0.04, 0.5], 1)
    assert rejected([0.02, 0.5], 1)
    assert rejected([0.01, 0.02, 0.9], 2)
    assert not rejected([0.01, 0.03, 0.9], 2)


def test_a_claim_of_two_parts_needs_both():
    assert setting(effect(*YES), effect(*YES)).answer == Answer.SUPPORTED
    assert setting(effect(*YES), effect(*OPEN)).answer == Answer.UNDECIDED
    assert setting(effect(*YES), effect(*NO)).answer == Answer.CONTRADICTED
    assert setting(effect(*YES), effect(*NONE)).answer == Answer.NO_EFFECT
    assert setting(effect(*YES), effect(0.1)).answer == Answer.NOT_ENOUGH
    # What is claimed to be absent cannot be found absent against the claim, nor be paid for.
    nothing = effect(*YES, absent=True).p_no_effect
    assert nothing == setting(effect(*NONE, absent=True)).p_no_effect == 1
    assert setting(effect(*NONE), effect(*NONE, absent=True)).p_no_effect == effect(*NONE).p_no_effect


def test_seeds_that_would_decide():
    """As many seeds of the same mean and deviation decide in about four of five cases."""
    rng = np.random.default_rng(0)

    def verdict(*blocks):
        return Verdict("p/1", "", "", Quantifier.ALL, (setting(effect(*blocks)),), "model=mlp seed=0,1,2")

    undecided = verdict(0.05, 0.0, 0.045)
    seeds = undecided.seeds_to_decide
    assert 5 < seeds < 100
    recipe = f"about {seeds} seeds would decide it, if they are like these: model=mlp 'seed=range({seeds})'"
    assert recipe in " ".join(in_words(undecided).split())
    assert "more than 1000 seeds like these" in in_words(verdict(0.021, 0.019, 0.0200001))
    few = " ".join(in_words(Verdict("p/1", "", "", Quantifier.ALL, (Setting("one", (effect(0.1),), 1),), "")).split())
    assert "x: 1 seed, two are needed; 1 seed, 1 run" in few
    mean, deviation = np.mean([0.05, 0.0, 0.045]), np.std([0.05, 0.0, 0.045], ddof=1)
    decided = [verdict(*rng.normal(mean, deviation, seeds)).answer != Answer.UNDECIDED for _ in range(400)]
    assert 0.72 < np.mean(decided) < 0.88
    assert verdict(*YES).seeds_to_decide is None
    assert verdict(0.1).seeds_to_decide is None
    assert verdict(0.021, 0.019, 0.0200001).seeds_to_decide is None


def test_a_verdict_says_all_for_people_and_machines():
    parts = (setting(effect(*YES)), Setting("two", (effect(*NO),), 4, "1 left out", True), Setting("three", (), 0))
    verdict = Verdict("p/1", "It is so", "A, section 1", Quantifier.ALL, parts, "seed=0,1", "none", {"of others": 3})
    lines = in_words(verdict).splitlines()
    assert lines[0] == "       SUPPORTED  It is so (in all settings)"
    assert max(map(len, lines)) <= 80
    text = " ".join(in_words(verdict).split())
    assert "not counted, contradicted: two" in text
    assert "x +0.110 [+0.093, +0.127] (matters from 0.02); 3 seeds, 10 runs" in text
    assert "left out: 3 of others" in text
    assert "against" not in text
    read = json.loads(json.dumps(as_json(verdict), allow_nan=False))
    assert read["answer"] == "supported"
    assert read["settings"][0]["effects"][0]["blocks"] == list(YES)
    assert read["settings"][0]["effects"][0]["seeds"] == [0, 1, 2]
    assert [part["excepted"] for part in read["settings"]] == [False, True, False]
    assert {"id", "claim", "answer", "settings", "left_out"} <= read.keys()
    assert read["against"] == []


def test_a_verdict_says_which_seeds_make_the_difference():
    """Where the answer is not the authors': the settings, parts and seeds that keep it from being supported."""
    mixed = {3: 0.1, 5: -0.1, 7: 0.02, 8: 0.3}
    low, wide = Effect("low", 0.02, mixed), Effect("wide", 0.02, {0: 0.03, 1: 0.9})
    there = Effect("there", 0.02, {0: 0.01, 4: 0.5, 6: 0.4}, absent=True)
    parts = (setting(effect(*YES)), Setting("two", (low, effect(*YES), there), 4), Setting("three", (wide,), 4))
    verdict = Verdict("p/1", "It is so", "A", Quantifier.ALL, (*parts, setting(effect(*NO), excepted=True)), "")
    lines = [line for line in numbers(verdict) if line.startswith("against: ")]
    assert lines == [
        "against: two: there: seeds 4, 6 of 3 above 0.02; low: seeds 5, 7 of 4 below 0.02",
        "against: three: wide: none by itself, the interval is too wide",
    ]
    assert [(part["setting"], part["quantity"], part["seeds"]) for part in as_json(verdict)["against"]] == [
        ("two", "there", [4, 6]),
        ("two", "low", [5, 7]),
        ("three", "wide", []),
    ]
    most = Verdict("p/1", "It is so", "A", Quantifier.SOME, parts, "")
    assert (most.answer, most.against) == (Answer.SUPPORTED, ())


# --- what claims are made of -------------------------------------------------------------------------------------


def test_a_slope_is_numpys():
    rng = np.random.default_rng(0)
    runs = runs_of(lambda norm, decay: {"intra_min": 0.0}, norms=("last", "none"), sd=1.0)
    runs.loc[rng.integers(0, len(runs), 8), "train/intra_min"] = [np.nan, np.inf, *[np.nan] * 6]
    runs.loc[runs["seed"] == 2, "weight_decay"] = [2e-4, 2e-4, 2e-4, 5e-3, 5e-3] * 2
    runs.loc[1, "weight_decay"] = np.nan
    for log in (True, False):
        found = slope_effect(runs, "weight_decay", "train/intra_min", "x", -1, log=log)
        assert list(found.blocks) == [0, 1, 3, 4]  # seed 2 has two values of what is varied
        for seed, value in found.blocks.items():
            own = runs[(runs["seed"] == seed) & np.isfinite(runs["train/intra_min"])]
            means = own.groupby("weight_decay")["train/intra_min"].mean()
            places = np.log10(means.index) if log else means.index
            assert value == pytest.approx(-np.polyfit(places, means, 1)[0])


def test_the_best_decays_are_chosen_in_the_other_seeds():
    runs = runs_of(lambda norm, decay: {"intra_min": 0.7, "inter_max": 0.0}, norms=("last",), sd=0.01)
    runs = runs.drop(index=[0, 7, 13, 20])
    found = at_best_decays(runs, INTRA, INTER)
    assert list(found.index) == list(range(5))
    for seed, chosen in found.iterrows():
        own, others = runs[runs["seed"] == seed], runs[runs["seed"] != seed]
        spread = (others[INTRA] - others[INTER]).groupby(others["weight_decay"]).mean()[sorted(own["weight_decay"])]
        best = own[own["weight_decay"].isin(spread.index[spread >= spread.max() - 0.01])]
        assert 1 <= len(best) <= 5
        assert chosen[INTRA] == pytest.approx(best[INTRA].mean())
        assert chosen[INTER] == pytest.approx(best[INTER].mean())


def test_a1_a_peak_of_one_decay_is_not_averaged_away():
    def measures(norm, decay):
        return {"intra_min": 0.75 if norm == "none" else 0.9 if -2.8 < decay < -2.6 else 0.4, "inter_max": 0.0}

    verdict = pan_cao.bn_collapses_most(runs_of(measures, sd=0.01), EMPTY)
    assert verdict.settings[0].effects[0].estimate.mean == pytest.approx(0.15, abs=0.02)


# --- Pan and Cao ------------------------------------------------------------------------------------------------


def grown(norm, decay, gain=0.1, plain=0.0):
    """Intra rises by a gain a decade with BN; without BN it is lower."""
    rise = (decay + 3) * (gain if norm == "last" else plain)
    level = 0.8 if norm == "last" else 0.5
    return {"intra_min": level + rise, "inter_max": 0.5 - level - rise, "gamma_norm": 10.0 ** (1 - 0.2 * (decay + 3))}


def answers(claim, runs, history=EMPTY):
    return claim(runs, history).answer


def test_planted_claims_of_pan_and_cao():
    runs = runs_of(grown, sd=0.002)
    assert answers(pan_cao.bn_collapses_most, runs) == Answer.SUPPORTED
    assert answers(pan_cao.bn_collapse_grows_with_decay, runs) == Answer.SUPPORTED
    assert answers(pan_cao.decay_shrinks_gamma, runs) == Answer.SUPPORTED
    swapped = runs.assign(**{"model.norm": runs["model.norm"].map({"last": "none", "none": "last"})})
    assert answers(pan_cao.bn_collapses_most, swapped) == Answer.CONTRADICTED
    falling = runs_of(lambda norm, decay: grown(norm, decay, gain=-0.1), sd=0.002)
    assert answers(pan_cao.bn_collapse_grows_with_decay, falling) == Answer.CONTRADICTED
    flat = runs_of(lambda norm, decay: grown(norm, decay, gain=0.0), sd=0.002)
    assert answers(pan_cao.bn_collapse_grows_with_decay, flat) == Answer.NO_EFFECT
    few = runs_of(grown, seeds=1)
    for claim in CLAIMS["pan_cao"]:
        assert answers(claim, few) == Answer.NOT_ENOUGH


def test_gamma_by_the_texts_most():
    def measures(norm, decay):
        return {"intra_min": 0.9, "inter_max": -0.1}

    parts = []
    for gamma in (0.1, 1.0, 10.0):
        part = runs_of(measures, norms=("last",), sd=0.002, **{"model.gamma": gamma})
        fall = 0.1 * np.log10(gamma) * (part["weight_decay"] < 8e-3)  # at one of five weight decays there is none
        part["train/intra_min"] -= fall
        part["train/inter_max"] += fall
        parts.append(part)
    runs = pd.concat(parts, ignore_index=True)
    verdict = pan_cao.smaller_gamma_collapses_more(runs, EMPTY)
    assert verdict.answer == Answer.SUPPORTED  # one of five cells without an effect does not make "most" fail
    assert [setting.answer for setting in verdict.settings].count(Answer.NO_EFFECT) == 1
    excepted = runs.assign(**{"data.name": "conic_hull", "model.depth": 6})
    assert answers(pan_cao.smaller_gamma_collapses_more, excepted) == Answer.NOT_ENOUGH


def follow(norm, time):
    """With BN intra rises until the end, without it stalls at once; the loss falls."""
    return {"loss": np.exp(-3 * time), "intra_min": 0.9 * time if norm == "last" else 0.5 * (time > 0.05)}


def test_collapse_follows_the_loss():
    runs = runs_of(grown)
    history = history_of(runs, follow)
    assert answers(pan_cao.bn_collapse_follows_loss, runs, history) == Answer.SUPPORTED
    swapped = runs.assign(**{"model.norm": runs["model.norm"].map({"last": "none", "none": "last"})})
    assert answers(pan_cao.bn_collapse_follows_loss, swapped, history) in (Answer.CONTRADICTED, Answer.NO_EFFECT)


# --- what was seen to go wrong, by name -------------------------------------------------------------------------


@pytest.mark.parametrize("rng", range(5))
def test_a1_noise_does_not_hold(rng):
    runs = runs_of(lambda *_: {"intra_min": 0.7, "inter_max": 0.0}, sd=0.01, rng=rng)
    assert answers(pan_cao.bn_collapses_most, runs) != Answer.SUPPORTED


def test_a1_a_difference_of_a_millionth_is_no_effect():
    def measures(norm, decay):
        return {"intra_min": 0.7 + 1e-6 * (norm == "last"), "inter_max": -1e-6 * (norm == "last")}

    assert answers(pan_cao.bn_collapses_most, runs_of(measures, sd=1e-8)) == Answer.NO_EFFECT


def test_a2_a_rise_without_bn_is_looked_at():
    runs = runs_of(lambda norm, decay: grown(norm, decay, plain=0.045), sd=0.001)
    assert answers(pan_cao.bn_collapse_grows_with_decay, runs) == Answer.CONTRADICTED
    only_inter = runs.assign(**{"train/intra_min": runs_of(grown, sd=0.001)["train/intra_min"]})
    assert answers(pan_cao.bn_collapse_grows_with_decay, only_inter) == Answer.CONTRADICTED


def test_a3_needs_interpolation_and_a_gain():
    runs = runs_of(grown)
    history = history_of(runs, follow)
    unfit = runs.assign(**{"train/interpolated": 0.0})
    assert answers(pan_cao.bn_collapse_follows_loss, unfit, history) == Answer.NOT_ENOUGH
    stalled = history_of(runs, lambda norm, time: follow("none", time) | {"intra_min": 0.5 + 1e-9 * time})
    assert answers(pan_cao.bn_collapse_follows_loss, runs, stalled) == Answer.NO_EFFECT


def test_a5_is_of_the_worst_class_and_absence_needs_evidence():
    def measures(norm, decay):
        return {"intra_min": 0.9, "inter_max": 0.2, "inter_quantile": 0.2}

    def thousand(model, slope, sd=0.002):
        part = runs_of(measures, norms=("last",), sd=sd, **{"model.name": model})
        part["train/classes_present"] = 1000.0
        part["train/inter_quantile"] += 0.1 * np.log10(part["weight_decay"])
        part["train/inter_max"] += slope * np.log10(part["weight_decay"])
        return part

    right = pd.concat([thousand("vgg11", 0.1), thousand("resnet18", 0.0)], ignore_index=True)
    assert answers(pan_cao.thousand_classes_vgg_parts_from_theory, right) == Answer.SUPPORTED
    worst = pd.concat([thousand("vgg11", -0.1), thousand("resnet18", 0.0)], ignore_index=True)
    assert answers(pan_cao.thousand_classes_vgg_parts_from_theory, worst) == Answer.CONTRADICTED
    noisy = pd.concat([thousand("vgg11", 0.1), thousand("resnet18", 0.0, sd=0.1)], ignore_index=True)
    assert answers(pan_cao.thousand_classes_vgg_parts_from_theory, noisy) == Answer.UNDECIDED


def kinds(affine, fixed, none, sd=1e-5, rng=0):
    """Runs of affine BN, BN with a fixed gamma and no BN, with these intra."""
    return pd.concat(
        [
            runs_of(
                lambda norm, decay, level=level: {"intra_min": level, "inter_max": 0.0},
                norms=(norm,),
                sd=sd,
                rng=3 * rng + place,
                **{"model.gamma": gamma},
            )
            for place, (level, norm, gamma) in enumerate(
                ((affine, "last", None), (fixed, "last", 1.0), (none, "none", None))
            )
        ],
        ignore_index=True,
    )


def test_thesis_312_strong_is_strong_and_each_step_counts():
    claim = thesis.only_affine_bn_collapses
    assert answers(claim, kinds(0.9, 0.7, 0.5)) == Answer.SUPPORTED
    assert answers(claim, kinds(0.2001, 0.2000, 0.1999)) in (Answer.CONTRADICTED, Answer.NO_EFFECT)
    assert answers(claim, kinds(0.7, 0.9, 0.5)) == Answer.CONTRADICTED
    assert answers(claim, kinds(0.7, 0.5, 0.9)) == Answer.CONTRADICTED
    assert answers(claim, kinds(0.9, 0.5, 0.7)) == Answer.SUPPORTED  # of non-affine BN and none it says nothing


def memo_runs(seeds, nc1, decays=(5e-3,), classes=10, nc2=1e-6, loss="square", **config):
    """Runs of the memo: ``nc1`` from weight decay and seed."""
    rows = []
    for decay in decays:
        for seed in range(seeds):
            values = {"train/rho": 30.0, "train/nc1": nc1(decay, seed), "train/interpolated": 1.0}
            values |= {f"train/nc2_{name}_weights": nc2 for name in ("equinorm", "equiangular")}
            config = {"data.num_classes": classes, "batch_size": 128, "model.norm": "none", **config}
            own = {"weight_decay": decay, "seed": seed, "loss.name": loss, "status": "done", "data.name": "digits"}
            own |= {"seconds": 10.0, "steps_per_second": 100.0}
            rows.append({**own, **config, **values, "folder": f"{decay}{seed}{config}"})
    return pd.DataFrame(rows)


def test_memo_a_mean_does_not_hide_six_seeds_of_ten():
    assert answers(memo.square_loss_collapses, memo_runs(10, lambda decay, seed: 1e-6)) == Answer.SUPPORTED
    mixed = memo_runs(10, lambda decay, seed: 1.0 if seed < 6 else 1e-6)
    assert answers(memo.square_loss_collapses, mixed) == Answer.CONTRADICTED
    assert answers(memo.square_loss_collapses, memo_runs(10, lambda decay, seed: 1.0)) == Answer.CONTRADICTED


def test_memo_nc2_of_two_classes_is_not_judged():
    two = memo_runs(5, lambda decay, seed: 1e-6, classes=2, nc2=0.9)
    verdict = memo.square_loss_collapses(two, EMPTY)
    assert verdict.answer == Answer.SUPPORTED
    assert len(verdict.settings[0].effects) == 1
    assert answers(memo.square_loss_collapses, two.assign(**{"data.num_classes": 3})) == Answer.CONTRADICTED


def test_memo_decay_is_necessary():
    claim = memo.no_collapse_without_decay
    assert answers(claim, memo_runs(5, lambda decay, seed: 1e-6 if decay else 1.01e-6, (0.0, 5e-3))) != Answer.SUPPORTED
    assert answers(claim, memo_runs(5, lambda decay, seed: 1e-6 if decay else 1.0, (0.0, 5e-3))) == Answer.SUPPORTED


def batches(loss, slope, data="digits"):
    return pd.concat(
        [
            memo_runs(
                3, lambda decay, seed, size=size: 1e-3 * size**slope, loss=loss, batch_size=size, **{"data.name": data}
            )
            for size in (16.0, 64.0, 256.0)
        ],
        ignore_index=True,
    )


def test_memo_j2_keeps_settings_apart():
    claim = memo.exponential_loss_needs_small_batches
    runs = pd.concat([batches("exponential", 0.5), batches("square", 0.0)], ignore_index=True)
    assert answers(claim, runs) == Answer.SUPPORTED
    other = memo_runs(3, lambda decay, seed: 1.0, loss="exponential", batch_size=16.0, **{"data.name": "conic_hull"})
    assert answers(claim, pd.concat([runs, other], ignore_index=True)) == Answer.SUPPORTED
    assert answers(claim, pd.concat([batches("exponential", 0.0), batches("square", 0.5)])) == Answer.CONTRADICTED


def test_runs_of_other_papers_change_no_answer():
    """Runs on another loss, on random labels, of normalised weights and of free features, in the same folder."""
    runs = runs_of(grown, sd=0.002)
    plain = pan_cao.bn_collapses_most(runs, EMPTY)
    strangers = [
        runs_of(lambda norm, decay: grown("none" if norm == "last" else "last", decay), sd=0.002, rng=1, **config)
        for config in (
            {"loss.name": "square"},
            {"data.random_labels": 0.5},
            {"model.normalization": "weight"},
            {"data.name": "sample_index"},
        )
    ]
    verdict = pan_cao.bn_collapses_most(pd.concat([runs, *strangers], ignore_index=True), EMPTY)
    assert verdict.answer == plain.answer == Answer.SUPPORTED
    assert sum(verdict.left_out.values()) == 4 * 50
    assert [found.effects for found in verdict.settings] == [found.effects for found in plain.settings]


def test_a_claim_is_judged_wherever_its_runs_came_from():
    runs = runs_of(grown, sd=0.002)
    known = {verdict.id: verdict.answer for verdict in judge(runs.assign(experiment="cbmm_117/fig2"), EMPTY)}
    assert known["pan_cao/1"] == Answer.SUPPORTED
    assert known["cbmm_117/rho-init"] == Answer.NOT_ENOUGH
    ids = [verdict.id for verdict in judge(runs, EMPTY)]
    assert len(ids) == len(set(ids))
    assert {"pan_cao/1", "pan_cao/5"} <= set(ids)
    assert "cbmm_117/rho-init" not in ids
