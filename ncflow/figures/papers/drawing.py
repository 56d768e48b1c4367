"""What a recipe is: from runs to the drawings that they allow; and the choices of runs that recipes share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure

from ncflow.figures.tables import finished, last_layer, names, trained_gamma


@dataclass(frozen=True)
class Drawing:
    """The stem of a figure's file, how the figure is drawn, or a GIF's bytes, and one sentence that says what it shows.

    Which figures there will be is known before any of them is drawn.
    """

    name: str
    draw: Callable[[], Figure | bytes]
    caption: str
    is_animation: bool = False

    def kinds(self, formats: Sequence[str]) -> Sequence[str]:
        """Suffixes of its files, where figures are asked for in these formats."""
        return ("gif",) if self.is_animation else formats

    @cached_property
    def content(self) -> Figure | bytes:
        """The figure; it is drawn when it is first asked for."""
        return self.draw()


_NAMES = ("model.norm", "model.name", "data.name")
_MEASURES = ("train/interpolated", "train/classes_present")

Recipe = Callable[[pd.DataFrame, pd.DataFrame], Iterator[Drawing]]


def measured(runs: pd.DataFrame) -> pd.DataFrame:
    """Finished runs with measures and what every figure sorts by; none where a column is missing altogether.

    The model of a user's own need not have a norm, nor a name.
    """
    done = finished(runs, "train/intra_min", "train/inter_max", "weight_decay", "seed")
    absent = [*_NAMES, *_MEASURES]
    done = done.assign(**{column: None for column in absent if column not in done})
    named = {column: names(done[column], f"{column} not set") for column in _NAMES}
    return done.assign(**named, **{column: done[column].astype(float) for column in _MEASURES})


def with_history(runs: pd.DataFrame, history: pd.DataFrame, *measures: str) -> pd.DataFrame:
    """The runs whose history has training rows of the last layer with a value of each of the measures."""
    return runs[runs["folder"].isin(last_layer(history).dropna(subset=list(measures))["folder"])]


def over_decay(runs: pd.DataFrame, *measures: str) -> pd.DataFrame:
    """Measured runs of a trained gamma, if they have more than one weight decay."""
    suited = trained_gamma(measured(runs))
    if suited.empty or suited["weight_decay"].nunique() < 2 or not {f"train/{m}" for m in measures} <= set(suited):
        return suited.iloc[:0]
    return suited
