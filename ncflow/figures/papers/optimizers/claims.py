"""Claims on optimisers: coupled and decoupled weight decay, NC0, momentum. A new claim is an entry of ``CLAIMS``."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ncflow.figures.papers.optimizers.own import (
    COUPLED,
    DECOUPLED,
    EFFECTIVE,
    MOMENTUM,
    NC0,
    NC1,
    OPTIMIZER,
    RATE,
    SOURCE,
    of_optimizers,
)
from ncflow.figures.papers.selection import (
    COUPLING,
    at_each_decay,
    by_seed,
    cells_of,
    decades,
    fitting,
    left_out,
    slope_effect,
)
from ncflow.figures.papers.verdict import FACTOR_TWO, SEEDS, Claim, Effect, Quantifier, Setting, Verdict
from ncflow.figures.tables import last_layer
from ncflow.figures.varied import panel_title

FROM_THE_LAW = 0.01
"""Decades, 2 percent: what a float32 run's NC0 may be off by, and more than 60 times what was measured."""
ROUNDING = 1e-4
"""Of |W|: below it NC0 is what rounding leaves of a sum in float32, by which no law goes."""
_SHARES = "experiment=optimizers/coupling_small weight_decay_coupling=0,0.5,1"


def decoupled_adam_collapses_less(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 1: with Adam NC1 is larger if the same weight decay is decoupled (AdamW) than if it is coupled."""
    measured, others = of_optimizers(runs, NC1)
    return Verdict(
        "optimizers/1",
        "1. Adaptive optimisers do not collapse under decoupled weight decay (AdamW), but do under coupled (Adam)",
        f"{SOURCE}abstract and first claim",
        Quantifier.ALL,
        tuple(_coupled_against_decoupled(measured, "adam", NC1, "NC1")),
        f"{_SHARES} {SEEDS}",
        "collapse is compared at the same decay, decoupled with coupled: what is none at all, the abstract does not "
        "say; the authors' code gives AdamW PyTorch's decay of 0.01, whatever the config says",
        others,
    )


def collapse_grows_with_the_coupled_share(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 1, second part: with Adam, at one weight decay in all, NC1 falls with the share that is coupled."""
    measured, others = of_optimizers(runs, NC1)
    found = []
    for title, whole in at_each_decay(measured[measured[OPTIMIZER] == "adam"], COUPLING):
        part = fitting(whole)
        words = "decades by which NC1 falls from share 0 to 1, by the slope over the share"
        effect = slope_effect(part.assign(log=decades(part[NC1])), COUPLING, "log", words, -1, FACTOR_TWO, log=False)
        if effect.blocks:
            found.append(Setting(title, (effect,), len(part), left_out(whole)))
    return Verdict(
        "optimizers/share",
        "With Adam collapse grows with the share of the weight decay that is coupled",
        f"{SOURCE}abstract and first claim",
        Quantifier.ALL,
        tuple(found),
        f"{_SHARES} {SEEDS}",
        "a straight line over the share in each seed",
        others,
    )


def decoupled_signs_keep_nc0(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 2: under steps by sign NC0 stays up where weight decay is decoupled, and falls where it is coupled."""
    measured, others = of_optimizers(runs, NC0)
    return Verdict(
        "optimizers/2",
        "2. Under SignGD with decoupled weight decay NC0 does not go to 0 as it does with coupled decay",
        f"{SOURCE}section on NC0",
        Quantifier.ALL,
        tuple(_coupled_against_decoupled(measured, "signum", NC0, "relative NC0")),
        f"experiment=optimizers/grid_small recipe/optimizer=signum weight_decay_coupling=0,1 {SEEDS}",
        "by |1^T W|/|W|, as a W that shrinks as a whole collapses no more for it; with the momentum of the runs",
        others,
    )


def _coupled_against_decoupled(measured: pd.DataFrame, name: str, measure: str, words: str) -> Iterator[Setting]:
    for title, whole in at_each_decay(measured[measured[OPTIMIZER] == name], COUPLING):
        part = fitting(whole)
        cells = cells_of(part, COUPLING, decades(part[measure]))
        if not {COUPLED, DECOUPLED} <= set(whole[COUPLING]):
            continue
        ends = cells.reindex(columns=[DECOUPLED, COUPLED])
        gain = ends[DECOUPLED] - ends[COUPLED]
        effect = Effect(f"decades by which {words} is lower with coupled decay", FACTOR_TWO, by_seed(gain))
        of_both = int(part[COUPLING].isin([COUPLED, DECOUPLED]).sum())
        yield Setting(title, (effect,), of_both, left_out(whole))


def nc0_of_sgd_is_known_beforehand(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Under SGD and cross-entropy NC0 is what learning rates, decay and momentum make of its start: an exact law."""
    measured, others = of_optimizers(runs, NC0, "folder")
    rows = last_layer(history)
    rows = rows[(rows["nc0_predicted"] > ROUNDING * rows["weight_norm"]) & (rows["epoch"] > 0) & (rows["nc0"] > 0)]
    off = (np.log10(rows["nc0"]) - np.log10(rows["nc0_predicted"])).abs().groupby(rows["folder"]).max()
    found = []
    own = measured[(measured[OPTIMIZER] == "sgd") & measured["folder"].isin(off.index)]
    for title, part in at_each_decay(own, COUPLING, MOMENTUM, RATE, EFFECTIVE):
        worst = part["folder"].map(off).groupby(part["seed"]).max()
        effect = Effect("most decades between NC0 and the law, over epochs", FROM_THE_LAW, by_seed(worst), absent=True)
        found.append(Setting(title, (effect,), len(part)))
    return Verdict(
        "optimizers/law",
        "Under SGD NC0 goes as learning rate, weight decay and momentum alone have it",
        "ours: the gradient of W sums to 0 over classes under cross-entropy",
        Quantifier.ALL,
        tuple(found),
        f"experiment=optimizers/momentum_small {SEEDS}",
        f"while the law has it above {ROUNDING:g} |W|: below, it is what rounding leaves",
        others,
    )


def momentum_collapses_more_at_equal_loss(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 3: when two runs of a seed first have the same training loss, that with momentum has the lower NC1."""
    measured, others = of_optimizers(runs, NC1, MOMENTUM, RATE, "folder")
    rows = last_layer(history)
    rows = rows.loc[(rows["epoch"] > 0) & (rows["loss"] > 0) & (rows["nc1"] > 0), ["folder", "epoch", "loss", "nc1"]]
    found = []
    own = measured[(measured[OPTIMIZER] == "sgd") & measured["folder"].isin(rows["folder"])]
    for fixed in (RATE, EFFECTIVE):
        inside = (COUPLING, MOMENTUM, RATE, EFFECTIVE)
        for title, at_decay in at_each_decay(own, *inside):
            for (rate, share), part in at_decay.groupby([fixed, COUPLING]):
                momenta = sorted(part[MOMENTUM].unique())
                if len(momenta) < 2:
                    continue
                held = panel_title({COUPLING: share}) if own[COUPLING].nunique() > 1 else ""
                named = f"{'learning rate' if fixed == RATE else EFFECTIVE} {rate:g}"
                words = f"decades by which NC1 is lower at equal loss with momentum {momenta[-1]:g} than {momenta[0]:g}"
                effect = Effect(words, FACTOR_TWO, by_seed(_gain_at_equal_loss(part, rows, momenta[0], momenta[-1])))
                ends = part[part[MOMENTUM].isin([momenta[0], momenta[-1]])]
                found.append(Setting(", ".join(filter(None, (title, named, held))), (effect,), len(ends)))
    return Verdict(
        "optimizers/3",
        "3. Momentum brings SGD nearer to collapse than the lower training loss explains",
        f"{SOURCE}third claim",
        Quantifier.ALL,
        tuple(found),
        f"experiment=optimizers/momentum_small {SEEDS}",
        "the most momentum against the least, when each first reaches the lowest loss that both do; the text holds "
        "neither the learning rate nor lr/(1 - momentum) fixed by name: both are judged",
        others,
    )


def _gain_at_equal_loss(part: pd.DataFrame, rows: pd.DataFrame, least: float, most: float) -> dict[float, float]:
    """Decades of NC1 by seed: of the least momentum less that of the most, at the lowest loss that both reach."""
    gains = {}
    for seed in sorted(set(part["seed"])):
        of_seed = part[part["seed"] == seed]
        curves = {}
        for momentum in (least, most):
            folders = of_seed.loc[of_seed[MOMENTUM] == momentum, "folder"]
            if len(folders):
                curves[momentum] = rows[rows["folder"] == folders.iloc[0]].sort_values("epoch")
        if len(curves) == 2:
            level = max(float(curve["loss"].min()) for curve in curves.values())
            gains[float(seed)] = _when_first(curves[least], level) - _when_first(curves[most], level)
    return gains


def _when_first(curve: pd.DataFrame, level: float) -> float:
    """log10 NC1 where the loss first falls to a level, between two measurements by their logarithms."""
    loss, nc1 = np.log10(curve["loss"].to_numpy(float)), np.log10(curve["nc1"].to_numpy(float))
    first = int(np.argmax(loss <= np.log10(level) + 1e-12))
    if first == 0 or loss[first] == loss[first - 1]:
        return float(nc1[first])
    share = (loss[first - 1] - np.log10(level)) / (loss[first - 1] - loss[first])
    return float(nc1[first - 1] + share * (nc1[first] - nc1[first - 1]))


CLAIMS: tuple[Claim, ...] = (
    decoupled_adam_collapses_less,
    collapse_grows_with_the_coupled_share,
    decoupled_signs_keep_nc0,
    momentum_collapses_more_at_equal_loss,
    nc0_of_sgd_is_known_beforehand,
)
