"""What the claims of CBMM Memo 117 share: which runs they are about, and levels and smallest effects that are ours."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ncflow.figures.papers.selection import belonging, by_seed, cells_of, settings
from ncflow.figures.papers.verdict import SEEDS, Effect

INIT, RANDOM_LABELS, RHO, NC1 = "model.init_norm", "data.random_labels", "train/rho", "train/nc1"
MARGIN, TEST_ACCURACY, LOSS = "train/normalized_margin_mean", "test/accuracy", "train/loss"
SOURCE = "CBMM Memo 117, "
DECAYS = f"experiment=cbmm_117/... weight_decay=0,5e-3 {SEEDS}"
INITS = f"{DECAYS} model.init_norm=0.1,1,5"
TENTH = 0.1
"""Decades, 26 percent: for norms and margins, which seeds move by some percent."""
APART = 3.0
"""Small and large are initial norms of which one is so many times the other at least; the memo's are 0.01, 1 and 5."""


def square(
    runs: pd.DataFrame, *columns: str, random_labels: bool = False, normalised: bool = False, loss: str = "square"
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The runs that a claim is about, and how many are not, by the reason; networks with BN are settings of their own.

    Their weight decay is a part of the loss, as in the memo.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        columns: What they must have measured or been set to.
        random_labels: Whether labels may be random.
        normalised: Whether weight matrices may be normalised. The memo's experiments have BN instead; its theory is of
            either.
        loss: What their loss's name begins with.
    """
    left, reasons = belonging(_with_batch_norm(runs), *columns, loss=loss, random_labels=random_labels, norm=False)
    foreign = {}
    if not normalised and "model.normalization" in left:
        foreign["of normalised weights"] = left["model.normalization"].notna()
    for reason, flags in foreign.items():
        found = flags.reindex(left.index)
        if found.any():
            reasons[reason] = int(found.sum())
            left = left[~found]
    return left, reasons


def _with_batch_norm(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with what tells those with BN apart, which is no part of a setting elsewhere, and all batch sizes."""
    added: dict[str, Any] = {"batch_size": np.inf}
    if "batch_size" in runs:
        added["batch_size"] = runs["batch_size"].fillna(np.inf)  # full batches
    if "model.norm" in runs:
        trained = runs["model.affine"].tolist() if "model.affine" in runs else [None] * len(runs)
        both = zip(runs["model.norm"].tolist(), trained, strict=True)
        added["BN"] = [f"{norm}, trained" if own is True and norm != "none" else norm for norm, own in both]
    return runs.assign(**added)


def by_decay(runs: pd.DataFrame, *inside: str) -> Iterator[tuple[str, pd.DataFrame, float]]:
    """(name, all its runs, a weight decay above 0) of each setting, as of :func:`settings`, and decay."""
    for title, part in settings(runs, *inside):
        for decay in sorted(set(part["weight_decay"]) - {0}):
            yield f"{title}, weight decay {decay:g}", part, decay


def least_and_largest(part: pd.DataFrame, values: "pd.Series[float]") -> pd.DataFrame:
    """Values, one a run, by seed at the least and at the largest initial norm, as ``least`` and ``largest``.

    There are none if the two norms are not so far apart that one is small and the other large.
    """
    own = part[INIT] > 0
    table = cells_of(part[own], INIT, values[own]).dropna(axis=1, how="all")
    norms = list(map(float, table.columns))
    if not norms or norms[-1] < APART * norms[0]:
        return pd.DataFrame(columns=["least", "largest"], dtype=float)
    return table[[norms[0], norms[-1]]].set_axis(["least", "largest"], axis=1).dropna()


def below(part: pd.DataFrame, measure: str, words: str, level: float) -> Effect:
    """How far a measure is below a level, by the worst run of each seed; what matters is half of the level.

    Not by its logarithm: one seed at 1e-6 would make up for another that is at 1.
    """
    worst = part.groupby("seed")[measure].max()
    return Effect(f"how far {words} is below {level:g}", level / 2, by_seed(level - worst))
