"""Claims of Pan's thesis on BN and weight decay: its section 3.1; and the list of all of its claims."""

import pandas as pd

from ncflow.figures.papers.pan_thesis.layers import (
    collapse_sharpens_with_depth,
    effective_depth_falls_with_decay,
    inter_exceeds_zero_between,
    layers_improve_with_few_exceptions,
)
from ncflow.figures.papers.pan_thesis.own import (
    AFFINE,
    BY_DECAY,
    CENTRED,
    D_MATTERS,
    D_PER_DECADE,
    EPSILON,
    FIXED,
    NONE,
    ON_HULL,
    each,
    falls,
    not_meant,
    setting,
    with_bn,
    with_d,
)
from ncflow.figures.papers.selection import belonging, by_seed, cells_of, fitting, left_out, settings, slope_effect
from ncflow.figures.papers.verdict import COSINE, Claim, Effect, Quantifier, Setting, Verdict
from ncflow.figures.tables import bn_kind, numbers

# Ours: intra above this is strong collapse.
STRONG = 0.5


def only_affine_bn_collapses(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 3.1.2: strong collapse with affine BN at enough decay, less without its affine part at every decay.

    And less without BN; for this the text says no more than that BN is critical.
    """
    measured, others = belonging(runs)
    found = []
    for title, whole in settings(measured, "model.gamma"):
        part, note = with_d(fitting(whole), "train/")
        kinds = bn_kind(part)
        for placement, placed in part[part["model.norm"].isin(["last", "all"])].groupby("model.norm"):
            affine = placed[kinds[placed.index] == AFFINE]
            fixed = placed[kinds[placed.index] == FIXED]
            fixed = fixed[numbers(fixed["model.gamma"]) == 1] if len(fixed) else fixed
            none = part[kinds == NONE]
            if not (len(affine) and len(fixed) and len(none)):
                continue
            collapse, unscaled, plain = (cells_of(kind, "weight_decay", kind["D"]) for kind in (affine, fixed, none))
            strong = cells_of(affine, "weight_decay", affine["intra"]).ffill(axis=1).iloc[:, -1]
            less = {f"weight decay {decay:g}": dict(own) for decay, own in (collapse - unscaled).items()}
            effects = (
                Effect(
                    f"intra with affine BN at the largest weight decay above {STRONG:g}",
                    COSINE,
                    by_seed(strong - STRONG),
                ),
                *each("D with affine BN less with non-affine", D_MATTERS, less),
                Effect("D with affine BN less without BN", D_MATTERS, by_seed((collapse - plain).mean(axis=1))),
            )
            notes = "; ".join(filter(None, (left_out(whole), note)))
            where = f", BN {placement}" if part["model.norm"].nunique() > 2 else ""
            found.append(Setting(f"{title}{where}", effects, len(affine) + len(fixed) + len(none), notes))
    return Verdict(
        "pan_thesis/3.1.2",
        "3.1.2 With affine BN and enough weight decay collapse is strong; without the affine part it is less under all "
        "weight decays, and without BN it is less",
        "Pan's thesis, section 3.1.2, figure 3.1",
        Quantifier.ALL,
        tuple(found),
        BY_DECAY,
        f"strong is intra above {STRONG:g}: ours; {CENTRED}; D is min intra - max inter, non-affine has gamma 1",
        others,
    )


def collapse_improves_with_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Conjecture 3.1.1: D(lambda_2) - D(lambda_1) >= -epsilon log(lambda_2/lambda_1), and D rises on the whole.

    From each weight decay to the next; what holds so far adds up to all pairs. A D that never changes satisfies the
    inequality with any epsilon, so that the improvement that the conjecture's name claims is tested beside it.
    """
    measured, others = belonging(runs)
    found = []
    for title, _, _, whole in with_bn(measured):
        part, note = with_d(fitting(whole), "train/")
        part = part[part["weight_decay"] > 0]
        cells = cells_of(part, "weight_decay", part["D"])
        effects = (
            slope_effect(part, "weight_decay", "D", "rise of D per decade of weight decay", 1, D_PER_DECADE, fewest=2),
            *each("fall of D per unit of log lambda", EPSILON, falls(cells, per_log=True), absent=True),
        )
        found.append(setting(title, effects, whole, not_meant(whole), note))
    return Verdict(
        "pan_thesis/3.1.1",
        f"3.1.1 With BN collapse improves with weight decay (epsilon {EPSILON:g})",
        "Pan's thesis, section 3.1, conjecture 3.1.1",
        Quantifier.ALL,
        tuple(found),
        f"{BY_DECAY} bn=affine {ON_HULL}",
        f"epsilon is {EPSILON:g}, where the text says that a small one exists; each step in mean over seeds; that D "
        f"rises on the whole is tested too, in a straight line over log lambda; {CENTRED}",
        others,
    )


def decay_harms_without_bn(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 3.1.2: without BN, collapse falls as weight decay grows."""
    measured, others = belonging(runs)
    found = []
    for title, whole in settings(measured[~measured["bn"]]):
        part, note = with_d(fitting(whole), "train/")
        words = "fall of D per decade of weight decay without BN"
        effect = slope_effect(part, "weight_decay", "D", words, -1, D_PER_DECADE)
        found.append(setting(title, (effect,), whole, "", note))
    return Verdict(
        "pan_thesis/3.1-without",
        "Without BN weight decay harms collapse",
        "Pan's thesis, section 3.1.2, figure 3.1",
        Quantifier.ALL,
        tuple(found),
        f"{BY_DECAY} bn=none",
        f"a straight line over log lambda; {CENTRED}",
        others,
    )


CLAIMS: tuple[Claim, ...] = (
    only_affine_bn_collapses,
    collapse_improves_with_decay,
    collapse_sharpens_with_depth,
    effective_depth_falls_with_decay,
    decay_harms_without_bn,
    inter_exceeds_zero_between,
    layers_improve_with_few_exceptions,
)
