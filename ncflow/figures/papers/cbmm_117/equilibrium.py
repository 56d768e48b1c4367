"""The memo's central equation on runs: at rest rho is rho_eq = mu/(M + lambda) (eq. 11)."""

from math import log10

import pandas as pd

from ncflow.figures.papers.cbmm_117.own import INIT, RHO, SOURCE, by_decay, square
from ncflow.figures.papers.selection import by_seed, decades
from ncflow.figures.papers.verdict import SEEDS, Effect, Quantifier, Setting, Verdict

_MEAN, _SQUARE = "train/normalized_output_mean", "train/normalized_output_square"
_RHO_EQ = "train/rho_eq"
# Ours: rho is rho_eq within ten percent.
_NEAR = log10(1.1)
# Ours: of the way from rho_eq to rho_0 rho has gone 0.3 at most, so that it is nearer to rho_eq by 0.4 of the way.
NEARER = 0.4


def norms_rest_at_equilibrium(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Eq. 11: rho ends at rho_eq, and not at rho_0 = mu/M, to which it would go without weight decay.

    Outputs that interpolate have rho near mu/M whatever the decay does. What eq. 11 says beyond that is that decay
    moves rho from rho_0 to rho_eq.
    """
    measured, others = square(runs, RHO, _RHO_EQ, _MEAN, _SQUARE, random_labels=True, normalised=True)
    found = []
    for title, whole, decay in by_decay(measured, INIT):
        part = whole[(whole["weight_decay"] == decay) & (whole[[RHO, _RHO_EQ, _MEAN, _SQUARE]] > 0).all(axis=1)]
        rho, at_rest = decades(part[RHO]), decades(part[_RHO_EQ])
        without = decades(part[_MEAN]) - decades(part[_SQUARE])
        away = (rho - at_rest).abs()
        nearer = ((rho - without).abs() - away) / (without - at_rest).abs()
        effects = (
            Effect("decades between rho and rho_eq", _NEAR, by_seed(away.groupby(part["seed"]).mean()), absent=True),
            Effect(
                "how much nearer rho is to rho_eq than to rho_0, of their distance",
                NEARER,
                by_seed(nearer.groupby(part["seed"]).mean()),
            ),
        )
        found.append(Setting(title, effects, len(part)))
    return Verdict(
        "cbmm_117/eq11",
        "Eq. 11: weight decay leads rho to rho_eq = mu/(M + lambda)",
        f"{SOURCE}section 3.4.3, eq. 11",
        Quantifier.ALL,
        tuple(found),
        f"experiment=... model.normalization=lagrange model.norm=none batch_size=null weight_decay=0.01 {SEEDS}",
        "lambda is that at which the last layer is at rest, which is the text's where the others are held at norm 1 "
        f"(model.normalization=lagrange); at rest is ours: rho within {10**_NEAR - 1:.0%} of rho_eq, and nearer to it "
        "than to rho_0 = mu/M",
        others,
    )
