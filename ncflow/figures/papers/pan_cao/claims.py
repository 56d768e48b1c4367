"""Claims of Pan and Cao. A new claim is an entry of ``CLAIMS``."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from ncflow.figures.papers.selection import (
    FITS,
    INTER,
    INTRA,
    belonging,
    by_seed,
    fitting,
    left_out,
    settings,
    slope_effect,
)
from ncflow.figures.papers.verdict import COSINE, Claim, Effect, Quantifier, Setting, Verdict
from ncflow.figures.style import norm_label
from ncflow.figures.tables import last_layer, trained_gamma

GAMMA = "train/gamma_norm"
# |gamma| is compared by its logarithm to base 10: 0.05 is 12 percent.
_LOG_GAMMA = 0.05
# Spearman's correlation of loss and intra over the epochs of a run.
_FOLLOWS = 0.5
_FEWEST_EPOCHS = 8
_SEEDS = "seed=0,1,2,3,4"
_BY_DECAY = f"experiment=... model.norm=last,none weight_decay=2e-4,5e-4,2e-3,5e-3,1e-2 {_SEEDS}"


def _against_no_bn(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """(name, runs with a BN placement, runs without BN) for each setting and placement that has both."""
    for title, part in settings(runs):
        plain = part[~part["bn"]]
        placements = sorted(part.loc[part["bn"], "model.norm"].unique())
        for placement in placements if len(plain) else ():
            name = f"{title}, {norm_label(placement)}" if len(placements) > 1 else title
            yield name, part[part["model.norm"] == placement], plain


def _comparisons(
    measured: pd.DataFrame, effects: Callable[[pd.DataFrame, pd.DataFrame], tuple[Effect, ...]]
) -> tuple[Setting, ...]:
    """The settings with and without BN, by the effects of the runs of both that interpolate, if there are any."""
    found = []
    for title, all_bn, all_plain in _against_no_bn(trained_gamma(measured)):
        bn, plain = fitting(all_bn), fitting(all_plain)
        of_both = effects(bn, plain)
        if of_both:
            found.append(Setting(title, of_both, len(bn) + len(plain), left_out(all_bn, all_plain)))
    return tuple(found)


def _at_best_decay(part: pd.DataFrame) -> pd.DataFrame:
    """Intra and inter of each seed, at the weight decay that is best in the other seeds: chance wins nothing."""
    cells = part.groupby(["seed", "weight_decay"])[[INTRA, INTER]].mean()
    spread = (cells[INTRA] - cells[INTER]).unstack("weight_decay")
    found = {}
    for seed in spread.index if spread.shape[1] > 1 else ():
        elsewhere = spread.drop(index=seed).mean()[spread.loc[seed].dropna().index].dropna()
        if len(elsewhere):
            found[seed] = cells.loc[(seed, elsewhere.idxmax())]
    return pd.DataFrame(found).T if found else pd.DataFrame(columns=[INTRA, INTER])


def bn_collapses_most(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 1: at its best weight decay, chosen in the other seeds, BN beats no BN at its own best."""
    measured, others = belonging(runs)

    def effects(bn: pd.DataFrame, plain: pd.DataFrame) -> tuple[Effect, ...]:
        gain = (_at_best_decay(bn) - _at_best_decay(plain)).dropna()
        return (
            Effect("intra with BN less intra without", COSINE, by_seed(gain[INTRA])),
            Effect("inter without BN less inter with", COSINE, by_seed(-gain[INTER])),
        )

    return Verdict(
        "pan_cao/1",
        "1. With BN and suitable weight decay collapse is strongest, without BN it is weaker",
        "Pan and Cao, section 3, figures 2 and 3",
        Quantifier.ALL,
        _comparisons(measured, effects),
        _BY_DECAY,
        "both sides at the weight decay that is best in the other seeds; the text compares the best runs",
        others,
    )


def bn_collapse_grows_with_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 2: over interpolating runs collapse grows with the logarithm of weight decay with BN, and not without."""
    measured, others = belonging(runs)

    def effects(bn: pd.DataFrame, plain: pd.DataFrame) -> tuple[Effect, ...]:
        decay = "weight_decay"
        return (
            slope_effect(bn, decay, INTRA, "rise of intra per decade of weight decay with BN"),
            slope_effect(bn, decay, INTER, "fall of inter per decade with BN", -1),
            slope_effect(plain, decay, INTRA, "rise of intra per decade without BN", absent=True),
            slope_effect(plain, decay, INTER, "fall of inter per decade without BN", -1, absent=True),
        )

    return Verdict(
        "pan_cao/2",
        "2. With BN collapse grows with weight decay while the model interpolates, without BN it is unsteady or falls",
        "Pan and Cao, section 3, figures 2 and 3",
        Quantifier.ALL,
        _comparisons(measured, effects),
        _BY_DECAY,
        "a straight line over the logarithm of weight decay in each seed",
        others,
    )


def bn_collapse_follows_loss(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 3: over the epochs of an interpolating run with BN intra rises as the loss falls, and it goes on to rise.

    Without BN it stalls: after a quarter of the training it gains nothing that matters.
    """
    rows = last_layer(history)
    measured, others = belonging(runs)

    def effects(bn: pd.DataFrame, plain: pd.DataFrame) -> tuple[Effect, ...]:
        (follows, gains), (_, gains_without) = (_over_seeds(part, rows) for part in (bn, plain))
        quarter = "of intra after a quarter of training"
        found = (
            Effect("minus the rank correlation of loss and intra over epochs with BN", _FOLLOWS, follows),
            Effect(f"gain {quarter} with BN", COSINE, gains),
            Effect(f"gain {quarter} without BN", COSINE, gains_without, absent=True),
        )
        return found if all(effect.blocks for effect in found) else ()

    return Verdict(
        "pan_cao/3",
        "3. With BN collapse follows the training loss down, without BN it stalls after the first epochs",
        "Pan and Cao, section 3, figure 3",
        Quantifier.ALL,
        _comparisons(measured, effects),
        f"{_BY_DECAY} (measured at {_FEWEST_EPOCHS} epochs or more)",
        "means over the weight decays of a seed",
        others,
    )


def _path(rows: pd.DataFrame, folder: str) -> tuple[float, float] | None:
    """Of a run: minus Spearman's correlation of loss and intra, and the gain of intra after a quarter of training."""
    path = rows[(rows["folder"] == folder) & (rows["epoch"] > 0)].sort_values("epoch")
    path = path.dropna(subset=["loss", "intra_min"])
    if len(path) < _FEWEST_EPOCHS:
        return None
    after = path.loc[path["epoch"] >= path["epoch"].max() / 4, "intra_min"]
    varies = path["loss"].nunique() > 1 and path["intra_min"].nunique() > 1
    correlation = float(spearmanr(path["loss"], path["intra_min"]).statistic) if varies else 0.0
    return -correlation, float(after.iloc[-1] - after.iloc[0])


def _over_seeds(part: pd.DataFrame, rows: pd.DataFrame) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The two of :func:`_path` in each seed, means over its runs."""
    paths = [
        (seed, *path)
        for seed, folder in zip(part["seed"], part["folder"], strict=True)
        if (path := _path(rows, folder)) is not None
    ]
    means = pd.DataFrame(paths, columns=["seed", "follows", "gain"]).groupby("seed").mean()
    return by_seed(means["follows"]), by_seed(means["gain"])


def smaller_gamma_collapses_more(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 4: over interpolating runs intra falls and inter rises with a fixed gamma, at each weight decay.

    The text says "higher feature norm" where theorem and plots show the opposite; the opposite is tested.
    """
    measured, others = belonging(runs, "model.gamma")
    found, gamma = [], "model.gamma"
    for title, part in settings(measured, gamma):
        excepted = (part["data.name"] == "conic_hull").all() and (part["model.depth"] == 6).all()
        for decay, whole in part.groupby("weight_decay"):
            cell = fitting(whole)
            effects = (
                slope_effect(cell, gamma, INTRA, "fall of intra while gamma grows tenfold", -1),
                slope_effect(cell, gamma, INTER, "rise of inter while gamma grows tenfold"),
            )
            name = f"{title}, weight decay {decay:g}"
            found.append(Setting(name, effects, len(cell), left_out(whole), bool(excepted)))
    return Verdict(
        "pan_cao/4",
        "4. Smaller |gamma| gives more collapse (but for the 6-layer MLP on the conic hull)",
        "Pan and Cao, section 3, figures 4 and 5",
        Quantifier.MOST,
        tuple(found),
        f"experiment=... model.norm=last model.gamma=0.1,1,10 {_SEEDS}",
        "the text prints the opposite of its theorem and plots; these are tested",
        others,
    )


def thousand_classes_vgg_parts_from_theory(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 5: with 1000 classes the worst inter rises with weight decay for VGG, not for ResNet.

    Runs that do not interpolate count, as in the published figure, and are told.
    """
    classes = "train/classes_present"
    measured, others = belonging(runs, classes, "model.name")
    thousand = trained_gamma(measured[measured[classes] == 1000] if len(measured) else measured)
    found, families = [], set()
    for title, part in settings(thousand):
        family = next((name for name in ("vgg", "resnet") if part["model.name"].iloc[0].startswith(name)), None)
        if family is None:
            continue
        words = f"rise of the worst inter per decade of weight decay, {family}"
        effect = slope_effect(part, "weight_decay", INTER, words, absent=family == "resnet")
        missed = int((part[FITS] != 1).sum())
        found.append(Setting(title, (effect,), len(part), f"{missed} of {len(part)} runs do not interpolate"))
        families.add(family)
    return Verdict(
        "pan_cao/5",
        "5. With 1000 classes VGG's inter rises with weight decay, against the theory, ResNet's does not",
        "Pan and Cao, appendix, figures 8 and 9",
        Quantifier.ALL,
        tuple(found) if len(families) == 2 else (),
        f"experiment=pan_cao/fig9 model=vgg11,resnet18 {_SEEDS}",
        "",
        others,
    )


def decay_shrinks_gamma(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """The mechanism: with BN a larger weight decay gives a smaller |gamma|, by which theorem 2.2 bounds collapse."""
    measured, others = belonging(runs, GAMMA)
    found = []
    for title, whole in settings(trained_gamma(measured[measured["bn"]]), "model.norm"):
        for placement, of_kind in whole.groupby("model.norm"):
            part = fitting(of_kind)
            part = part.assign(log_gamma=np.log10(part[GAMMA].where(part[GAMMA] > 0)))
            words = "fall of log10 |gamma| per decade of weight decay"
            effect = slope_effect(part, "weight_decay", "log_gamma", words, -1, _LOG_GAMMA)
            note = left_out(of_kind)
            found.append(Setting(f"{title}, {norm_label(placement)}", (effect,), len(part), note))
    return Verdict(
        "pan_cao/gamma",
        "Larger weight decay gives a smaller |gamma| of the BN before the classifier",
        "Pan and Cao, section 2.3 after theorem 2.2",
        Quantifier.ALL,
        tuple(found),
        _BY_DECAY,
        "",
        others,
    )


CLAIMS: tuple[Claim, ...] = (
    bn_collapses_most,
    bn_collapse_grows_with_decay,
    bn_collapse_follows_loss,
    smaller_gamma_collapses_more,
    thousand_classes_vgg_parts_from_theory,
    decay_shrinks_gamma,
)
