"""A planter for each claim on optimisers, as those of tests/figures/planted_pan.py are."""

from functools import partial

import numpy as np
import pandas as pd

from ncflow.figures.papers.optimizers import claims
from ncflow.figures.papers.optimizers.claims import FROM_THE_LAW
from ncflow.figures.papers.verdict import FACTOR_TWO
from ncflow.results import LAST_LAYER
from tests.figures.planted import EPOCHS, runs_of

# Of log10 NC1 on optimizers/*_small, 5 seeds: 0.02 to 0.12 of single runs, once 0.2.
SPREAD = 0.1
DECAYS = (5e-4, 5e-3)
NO_HISTORY = pd.DataFrame(columns=["folder", "epoch", "split", "layer"])


def _runs(levels, seeds, sd, rng, decays, **config):
    """Runs whose NC1 and relative NC0 are 10 to a level and noise; ``levels`` by coupled share."""
    parts = []
    for place, (share, level) in enumerate(levels.items()):
        measures = {"nc1": level, "nc0_relative": level, "intra_min": 0.0, "inter_max": 0.0}
        config |= {"weight_decay_coupling": share}
        own = runs_of(lambda *_, m=measures: m, seeds, sd, rng, decays, ("last",), place, **config)
        parts.append(own.assign(**{f"train/{name}": 10 ** own[f"train/{name}"] for name in ("nc1", "nc0_relative")}))
    return pd.concat(parts, ignore_index=True)


def coupled(size, seeds=5, sd=SPREAD, rng=0, decays=DECAYS, name="adam"):
    """What collapses more with coupled decay than with decoupled, of an optimiser of this name."""
    levels = {0.0: -1.0, 1.0: -1.0 - size * FACTOR_TWO}
    return _runs(levels, seeds, sd, rng, decays, **{"optimizer.name": name}), NO_HISTORY


signum = partial(coupled, name="signum")


def by_share(size, seeds=5, sd=SPREAD, rng=0, decays=DECAYS):
    """NC1 falls evenly with the coupled share."""
    levels = {share: -1.0 - share * size * FACTOR_TWO for share in (0.0, 0.5, 1.0)}
    return _runs(levels, seeds, sd, rng, decays, **{"optimizer.name": "adam"}), NO_HISTORY


def at_equal_loss(size, seeds=5, sd=SPREAD, rng=0, decays=DECAYS):
    """With momentum the loss falls further, and at each loss NC1 is lower."""
    noise, found, histories = np.random.default_rng(rng), [], []
    for momentum in (0.0, 0.9):
        runs = _runs({1.0: -1.0}, seeds, 0.0, rng, decays, **{"optimizer.name": "sgd", "optimizer.lr": 0.1})
        runs = runs.assign(**{"optimizer.momentum": momentum, "folder": runs["folder"] + f"mu{momentum}"})
        found.append(runs)
        for folder in runs["folder"]:
            time = EPOCHS[1:] / EPOCHS[-1]
            loss = -time * (3 if momentum else 2)
            off = noise.normal(0, sd) - size * FACTOR_TWO * (momentum > 0)
            own = {"loss": 10**loss, "nc1": 10 ** (loss / 2 + off), "epoch": EPOCHS[1:]}
            histories.append(pd.DataFrame({"folder": folder, "split": "train", "layer": LAST_LAYER, **own}))
    return pd.concat(found, ignore_index=True), pd.concat(histories, ignore_index=True)


def off_the_law(size, seeds=5, sd=0.05 * FROM_THE_LAW, rng=0, decays=DECAYS):
    """NC0 of SGD is off the law by what just matters up to size 1, above it by less, and by more below 0."""
    noise = np.random.default_rng(rng)
    runs = _runs({1.0: -1.0}, seeds, 0.0, rng, decays, **{"optimizer.name": "sgd", "optimizer.lr": 0.1})
    histories = []
    for folder in runs["folder"]:
        predicted = 10 ** (-2 * EPOCHS / EPOCHS[-1])
        apart = FROM_THE_LAW * (2 if size < 0 else 1 / max(size, 1)) + noise.normal(0, sd)
        own = {"nc0": predicted * 10**apart, "nc0_predicted": predicted, "weight_norm": 1.0, "epoch": EPOCHS}
        histories.append(pd.DataFrame({"folder": folder, "split": "train", "layer": LAST_LAYER, **own}))
    return runs, pd.concat(histories, ignore_index=True)


PLANTERS = {
    claims.decoupled_adam_collapses_less: coupled,
    claims.collapse_grows_with_the_coupled_share: by_share,
    claims.decoupled_signs_keep_nc0: signum,
    claims.momentum_collapses_more_at_equal_loss: at_equal_loss,
    claims.nc0_of_sgd_is_known_beforehand: off_the_law,
}
