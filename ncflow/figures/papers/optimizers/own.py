"""What the claims and figures on optimisers share: which runs they are about, and how a run is told from its like."""

import numpy as np
import pandas as pd

from ncflow.figures.papers.selection import COUPLING, belonging, family, with_coupling
from ncflow.figures.tables import numbers

NC1, NC0 = "train/nc1", "train/nc0_relative"
MOMENTUM, RATE, EFFECTIVE = "optimizer.momentum", "optimizer.lr", "lr/(1 - momentum)"
OPTIMIZER = "optimizer.name"
SOURCE = "Zhao, Cheng, Masarczyk and Lucchi (ICLR 2026), "
COUPLED, DECOUPLED = 1.0, 0.0


def of_optimizers(runs: pd.DataFrame, *columns: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """The runs with weight decay that a claim is about, as :func:`told_apart` has them, and how many are not.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        columns: What they must have measured or been set to.
    """
    left, others = belonging(told_apart(runs), "weight_decay", COUPLING, *columns, norm=False, coupled=False)
    decayed = left["weight_decay"] > 0
    if not decayed.all():
        others["without weight decay"] = int((~decayed).sum())
    return left[decayed], others


def told_apart(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with their coupled share as it is, Adam and AdamW under one name, and what tells BN apart.

    With them the momentum, 0 where it is not known, and lr/(1 - momentum).
    """
    if runs.empty or OPTIMIZER not in runs:
        return runs.assign(**{COUPLING: np.nan, OPTIMIZER: None})
    runs = with_coupling(runs)
    names = family(runs)
    unknown = pd.Series(np.nan, index=runs.index)
    momentum = (numbers(runs[MOMENTUM]) if MOMENTUM in runs else unknown).fillna(0.0)
    rate = numbers(runs[RATE]) if RATE in runs else unknown
    placed = runs["model.norm"].map(str) if "model.norm" in runs else "none"
    own = {OPTIMIZER: names, "BN": placed, MOMENTUM: momentum}
    # Rounded to what a config's decimal fractions mean: 0.3 (1 - 0.9) is no 0.03.
    effective = (rate / (1 - momentum)).map(lambda value: float(f"{value:.6g}"))
    dropped = [column for column in ("optimizer._target_", "optimizer.fused", "optimizer.foreach") if column in runs]
    return runs.assign(**own, **{EFFECTIVE: effective}).drop(columns=dropped)
