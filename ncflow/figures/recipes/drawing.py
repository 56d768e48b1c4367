"""What a recipe is: from runs to the drawings that they allow; and the choices of runs that recipes share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from ncflow.figures.tables import finished, trained_gamma


@dataclass(frozen=True)
class Drawing:
    """A figure, or a GIF's bytes, the stem of its file, and one sentence that says what it shows."""

    name: str
    content: Figure | bytes
    caption: str


Recipe = Callable[[pd.DataFrame, pd.DataFrame], Iterator[Drawing]]


def measured(runs: pd.DataFrame) -> pd.DataFrame:
    """Finished runs with measures and what every figure sorts by; none where a column is missing altogether."""
    return finished(runs, "train/intra_min", "train/inter_max", "model.norm", "weight_decay", "seed")


def over_decay(runs: pd.DataFrame, *measures: str) -> pd.DataFrame:
    """Measured runs of a trained gamma, if they have more than one weight decay."""
    suited = trained_gamma(measured(runs))
    if suited.empty or suited["weight_decay"].nunique() < 2 or not {f"train/{m}" for m in measures} <= set(suited):
        return suited.iloc[:0]
    return suited
