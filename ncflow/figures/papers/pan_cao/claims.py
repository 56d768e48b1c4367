"""Claims of Pan and Cao on the end of training, and the list of all theirs. A new claim is an entry of ``CLAIMS``."""

import numpy as np
import pandas as pd

from ncflow.figures.papers.pan_cao.comparing import BY_DECAY, at_best_decays, comparisons, placements
from ncflow.figures.papers.pan_cao.over_training import bn_collapse_follows_loss, inter_rises_early_without_bn
from ncflow.figures.papers.pan_cao.thousand_classes import thousand_classes_vgg_parts_from_theory, vgg_intra_rises_too
from ncflow.figures.papers.selection import (
    INTER,
    INTRA,
    at_each_decay,
    belonging,
    by_seed,
    fitting,
    left_out,
    settings,
    slope_effect,
)
from ncflow.figures.papers.verdict import COSINE, SEEDS, Claim, Effect, Quantifier, Setting, Verdict
from ncflow.figures.style import norm_label
from ncflow.figures.tables import trained_gamma

GAMMA, NC3 = "train/gamma_norm", "train/nc3_cosine_min"
# |gamma| is compared by its logarithm to base 10: 0.05 is 12 percent.
LOG_GAMMA = 0.05
# Ours: a cosine above this is near one.
NEAR_ONE = 0.9
_AT_BEST = "at the weight decays that are best in the other seeds"


def bn_collapses_most(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 1: at its best weight decays, chosen in the other seeds, BN beats no BN at its own best."""
    measured, others = belonging(runs)

    def effects(bn: pd.DataFrame, plain: pd.DataFrame) -> tuple[Effect, ...]:
        gain = at_best_decays(bn, INTRA, INTER) - at_best_decays(plain, INTRA, INTER)
        return (
            Effect("intra with BN less intra without", COSINE, by_seed(gain[INTRA])),
            Effect("inter without BN less inter with", COSINE, by_seed(-gain[INTER])),
        )

    return Verdict(
        "pan_cao/1",
        "1. With BN and suitable weight decay collapse is strongest, without BN it is weaker",
        "Pan and Cao, section 3.2 and appendix B.2, figures 2 and 5",
        Quantifier.ALL,
        comparisons(measured, effects),
        BY_DECAY,
        f"both sides {_AT_BEST}, in mean over those that are as good; the text compares the best runs",
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
        "Pan and Cao, section 3.2 and appendix B.2, figures 2 and 5",
        Quantifier.ALL,
        comparisons(measured, effects),
        BY_DECAY,
        "a straight line over the logarithm of weight decay in each seed",
        others,
    )


def smaller_gamma_collapses_more(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 4: over interpolating runs intra falls and inter rises with a fixed gamma, at each weight decay.

    The text says "higher feature norm" where theorem and plots show the opposite; the opposite is tested.
    """
    measured, others = belonging(runs, "model.gamma")
    found, gamma = [], "model.gamma"
    for title, whole in at_each_decay(measured, gamma):
        excepted = bool((whole["data.name"] == "conic_hull").all() and (whole["model.depth"] == 6).all())
        why = "excepted by the authors: near perfect whatever |gamma|" if excepted else ""
        part = fitting(whole)
        effects = (
            slope_effect(part, gamma, INTRA, "fall of intra while gamma grows tenfold", -1),
            slope_effect(part, gamma, INTER, "rise of inter while gamma grows tenfold"),
        )
        note = "; ".join(filter(None, (why, left_out(whole))))
        found.append(Setting(title, effects, len(part), note, excepted))
    return Verdict(
        "pan_cao/4",
        "4. Smaller |gamma| gives more collapse (but for the 6-layer MLP on the conic hull)",
        "Pan and Cao, section 3.4 and appendix B.4, figures 4 and 9",
        Quantifier.MOST,
        tuple(found),
        f"experiment=pan_cao/fig4_small {SEEDS}",
        "the text prints the opposite of its theorem and plots; these are tested. The caption of figure 4 says all but "
        "the one exception, the text most configurations",
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
            effect = slope_effect(part, "weight_decay", "log_gamma", words, -1, LOG_GAMMA)
            note = left_out(of_kind)
            found.append(Setting(f"{title}, {norm_label(placement)}", (effect,), len(part), note))
    return Verdict(
        "pan_cao/gamma",
        "Larger weight decay gives a smaller |gamma| of the BN before the classifier",
        "Pan and Cao, section 3.4, a hypothesis",
        Quantifier.ALL,
        tuple(found),
        BY_DECAY,
        "",
        others,
    )


def weights_align_with_means(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """NC3 beside intra: with BN at its best weight decays the worst cosine of weights and means is near one.

    Theorem 2.2 bounds it closer to one than intra, by (C - 1)/C 4 > 2 times for C >= 3.
    """
    measured, others = belonging(runs, NC3)
    found = []
    for title, whole, _ in placements(trained_gamma(measured)):
        part = fitting(whole)
        best = at_best_decays(part, INTRA, INTER, NC3)
        effects = (
            Effect(
                f"worst cosine of weights and means with BN above {NEAR_ONE:g}", COSINE, by_seed(best[NC3] - NEAR_ONE)
            ),
            Effect("intra less that cosine", COSINE, by_seed(best[INTRA] - best[NC3]), absent=True),
        )
        found.append(Setting(title, effects, len(part), left_out(whole)))
    return Verdict(
        "pan_cao/nc3",
        "With BN and suitable weight decay NC3 comes beside intra: weights align with class means",
        "Pan and Cao, sections 2.2 and 2.3, theorem 2.2",
        Quantifier.ALL,
        tuple(found),
        BY_DECAY.replace("last,none", "last"),
        f"the text gives a bound and no experiment; near one is a worst cosine above {NEAR_ONE:g}: ours; {_AT_BEST}",
        others,
    )


CLAIMS: tuple[Claim, ...] = (
    bn_collapses_most,
    bn_collapse_grows_with_decay,
    bn_collapse_follows_loss,
    inter_rises_early_without_bn,
    smaller_gamma_collapses_more,
    thousand_classes_vgg_parts_from_theory,
    vgg_intra_rises_too,
    decay_shrinks_gamma,
    weights_align_with_means,
)
