"""Claims of Pan and Cao and of the thesis on planted tables: true, false, no effect, too few, among others' runs."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from ncflow.figures.papers.as_words import numbers
from ncflow.figures.papers.claims import CLAIMS
from ncflow.figures.papers.pan_cao import over_training, thousand_classes
from ncflow.figures.papers.verdict import Answer
from tests.figures.planted import EPOCHS, history_of, runs_of
from tests.figures.planted_pan import PLANTERS, rises_early, thousand

CLEAR = {"seeds": 5, "sd": 0.002}
STRANGERS = (
    {"loss.name": "square"},
    {"data.random_labels": 0.5},
    {"model.normalization": "weight"},
    {"model.simplex": 1.0},
    {"loss.label_smoothing": 0.1},
    {"data.name": "sample_index"},
    {"status": "failed"},
)


def contaminated(planter):
    """What supports a claim, in one table with as many runs of each kind of other papers that contradict it."""
    tables = [planter(5, **CLEAR)]
    for place, config in enumerate(STRANGERS):
        runs, history = planter(-5, **CLEAR)
        strange = {"folder": runs["folder"] + f"#{place}", **config}
        tables.append((runs.assign(**strange), history.assign(folder=history["folder"] + f"#{place}")))
    return tuple(pd.concat(parts, ignore_index=True) for parts in zip(*tables, strict=True))


KINDS = {
    "true": (lambda planter: planter(5, **CLEAR), Answer.SUPPORTED),
    "false": (lambda planter: planter(-5, **CLEAR), Answer.CONTRADICTED),
    "no effect": (lambda planter: planter(0, **CLEAR), Answer.NO_EFFECT),
    "too few": (lambda planter: planter(5, **CLEAR | {"seeds": 1}), Answer.NOT_ENOUGH),
    "contaminated": (contaminated, Answer.SUPPORTED),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("claim", PLANTERS, ids=lambda claim: claim.__name__)
def test_planted(claim, kind):
    plant, answer = KINDS[kind]
    verdict = claim(*plant(PLANTERS[claim]))
    assert verdict.answer == answer
    lines = numbers(verdict)
    assert any(line.startswith("against: ") for line in lines) == (answer in (Answer.CONTRADICTED, Answer.NO_EFFECT))
    assert any(line.startswith("needs experiment=") for line in lines) == (answer == Answer.NOT_ENOUGH)
    if kind == "contaminated":
        alone = claim(*KINDS["true"][0](PLANTERS[claim]))
        assert [setting.effects for setting in verdict.settings] == [setting.effects for setting in alone.settings]
        strange = len(STRANGERS) * len(PLANTERS[claim](-5, **CLEAR)[0])
        assert sum(verdict.left_out.values()) - sum(alone.left_out.values()) == strange


def test_every_claim_has_a_planter_and_an_id_of_its_own():
    of_pan = [claim for paper in ("pan_cao", "pan_thesis") for claim in CLAIMS[paper]]
    assert set(of_pan) == set(PLANTERS)
    ids = [claim(*PLANTERS[claim](0, **CLEAR)).id for claim in of_pan]
    assert len(ids) == len(set(ids))
    assert {f"pan_cao/{number}" for number in range(1, 6)} <= set(ids)


def test_the_quantiles_of_figure_6_are_told_and_do_not_judge():
    runs, history = thousand(5, **CLEAR)
    worst = runs.assign(**{"train/inter_max": -runs["train/inter_max"], "train/intra_min": -runs["train/intra_min"]})
    for claim in (thousand_classes.thousand_classes_vgg_parts_from_theory, thousand_classes.vgg_intra_rises_too):
        verdict = claim(worst, history)
        assert verdict.answer == Answer.CONTRADICTED
        vgg = next(setting for setting in verdict.settings if "vgg" in setting.effects[0].quantity)
        assert "by the quantiles of the figure supported: rise of the 9" in vgg.note.replace("5 % q", "95 % q")


def test_early_inter_is_of_real_data_and_of_the_first_quarter():
    claim = over_training.inter_rises_early_without_bn
    runs, history = rises_early(5, **CLEAR)
    synthetic = claim(runs.assign(**{"data.name": "conic_hull"}), history)
    assert synthetic.answer == Answer.NOT_ENOUGH
    assert numbers(synthetic)[0].startswith("not counted, supported: ")
    late = history.assign(inter_max=np.where(history["epoch"] <= 25, 0.0, 0.9))
    assert claim(runs, late).answer == Answer.NO_EFFECT
    assert claim(runs, history.assign(loss=1.0)).answer == Answer.NO_EFFECT
    unfit = claim(runs.assign(**{"train/interpolated": 0.0}), history)
    assert unfit.answer == Answer.SUPPORTED
    assert f"{len(runs)} of {len(runs)} runs do not interpolate" in numbers(unfit)[0]


def test_following_the_loss_is_scipys_spearman():
    runs = runs_of(lambda *_: {"intra_min": 0.5, "inter_max": 0.0}, seeds=3)
    history = history_of(runs, lambda norm, time: {"loss": time, "intra_min": time}, sd=0.3)
    history["intra_min"] = history["intra_min"].round(1)  # with ties
    history = history.sample(frac=1, random_state=0)
    verdict = over_training.bn_collapse_follows_loss(runs, history)
    follows, gain, without = verdict.settings[0].effects
    found = {}
    for norm in ("last", "none"):
        for seed in range(3):
            own = runs[(runs["model.norm"] == norm) & (runs["seed"] == seed)]["folder"]
            paths = [history[history["folder"] == folder].sort_values("epoch").iloc[1:] for folder in own]
            found[norm, seed] = (
                -np.mean([spearmanr(path["loss"], path["intra_min"]).statistic for path in paths]),
                np.mean([path["intra_min"].iloc[-1] - path["intra_min"][path["epoch"] == 30].item() for path in paths]),
            )
    assert list(EPOCHS[1:4]) == [10, 20, 30]
    for seed in range(3):
        assert follows.blocks[seed] == pytest.approx(found["last", seed][0])
        assert gain.blocks[seed] == pytest.approx(found["last", seed][1])
        assert without.blocks[seed] == pytest.approx(found["none", seed][1])
