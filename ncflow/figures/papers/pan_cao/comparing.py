"""What Pan and Cao's claims share: settings with and without BN, and a setting at its best weight decays."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from ncflow.figures.papers.selection import INTER, INTRA, cells_of, fitting, left_out, settings
from ncflow.figures.papers.verdict import COSINE, SEEDS, Effect, Setting
from ncflow.figures.style import norm_label
from ncflow.figures.tables import trained_gamma

BY_DECAY = f"experiment=... model.norm=last,none weight_decay=2e-4,5e-4,2e-3,5e-3,1e-2 {SEEDS}"
# Weight decays are as good as the best if intra - inter, in which two cosines count, is lower by less than this.
_AS_GOOD = COSINE / 2


def placements(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """(name, runs with a BN placement, runs without BN, perhaps none) of each setting and placement."""
    for title, part in settings(runs):
        placed = sorted(part.loc[part["bn"], "model.norm"].unique())
        for placement in placed:
            name = f"{title}, {norm_label(placement)}" if len(placed) > 1 else title
            yield name, part[part["model.norm"] == placement], part[~part["bn"]]


def comparisons(
    measured: pd.DataFrame, effects: Callable[[pd.DataFrame, pd.DataFrame], tuple[Effect, ...]]
) -> tuple[Setting, ...]:
    """The settings with and without BN, by the effects of the runs of both that interpolate, if there are any."""
    found = []
    for title, all_bn, all_plain in placements(trained_gamma(measured)):
        bn, plain = fitting(all_bn), fitting(all_plain)
        of_both = effects(bn, plain) if len(all_plain) else ()
        if of_both:
            found.append(Setting(title, of_both, len(bn) + len(plain), left_out(all_bn, all_plain)))
    return tuple(found)


def at_best_decays(part: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Measures of each seed, means over the weight decays that the *other* seeds find best: chance wins nothing.

    Best are all whose intra - inter is within ``_AS_GOOD`` of the highest: where weight decay hardly matters several
    runs of a seed count rather than a lone one, and a peak that is one weight decay wide is not averaged away, as it
    would be with the two best. It is the most that leaves "supported" at the smallest effect below 5 % for each shape
    of the dependence on weight decay that was tried: what is averaged is worse than the best by up to as much.
    """
    cells = {column: cells_of(part, "weight_decay", part[column]) for column in columns}
    seeds, values = cells[INTRA].index, {column: own.to_numpy() for column, own in cells.items()}
    spread = values[INTRA] - values[INTER]
    if spread.shape[1] < 2:
        return pd.DataFrame(columns=list(columns), dtype=float)
    known = np.isfinite(spread)
    others = known.sum(axis=0) - known
    sums = np.where(known, spread, 0.0)
    elsewhere = np.where(known & (others > 0), (sums.sum(axis=0) - sums) / np.maximum(others, 1), -np.inf)
    best = np.isfinite(elsewhere) & (elsewhere >= elsewhere.max(axis=1, keepdims=True) - _AS_GOOD)
    chosen = best.any(axis=1)
    means = {column: np.where(best, own, 0.0).sum(axis=1) / best.sum(axis=1).clip(1) for column, own in values.items()}
    return pd.DataFrame(means, seeds)[chosen]
