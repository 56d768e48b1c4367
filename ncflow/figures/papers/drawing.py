"""What a recipe is: from runs to the drawings that they allow; and the choices of runs that recipes share."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure

from ncflow.checks import ArgumentError
from ncflow.figures.style import data_label, fold, literal, words
from ncflow.figures.tables import finished, last_layer, names, trained_gamma
from ncflow.figures.varied import INSIDE, bn_series, panel_title, panels

MOST_PANELS = 24
_MOST_SETS = 4
_SIZE, _LINE = 10.5, 0.18  # of a heading in points, and what a further line of it takes in inches
_LONGEST_STEM = 180  # bytes


@dataclass(frozen=True)
class Drawing:
    """The stem of a figure's file, how the figure is drawn, or a GIF's bytes, and one sentence that says what it shows.

    The heading stands above the figure: of what setting, data and seeds it is. Which figures there will be is known
    before any of them is drawn.
    """

    name: str
    draw: Callable[[], Figure | bytes]
    caption: str
    is_animation: bool = False
    heading: str = ""

    def kinds(self, formats: Sequence[str]) -> Sequence[str]:
        """Suffixes of its files, where figures are asked for in these formats."""
        return ("gif",) if self.is_animation else formats

    @cached_property
    def content(self) -> Figure | bytes:
        """The figure; it is drawn when it is first asked for."""
        drawn = self.draw()
        if self.heading and isinstance(drawn, Figure):
            text = fold(self.heading, drawn.get_figwidth() - 0.4, _SIZE)
            drawn.set_figheight(drawn.get_figheight() + text.count("\n") * _LINE)
            drawn.suptitle(literal(text), fontsize=_SIZE)
        return drawn


def heading(runs: pd.DataFrame, title: str = "", note: str = "") -> str:
    """What setting, data and how many seeds runs are of.

    Args:
        runs: Those that a figure shows, as tables of :func:`ncflow.results.load_runs` have them.
        title: Their setting, where the figure is one of several.
        note: What else has to be known.
    """
    sets = list(dict.fromkeys(map(data_label, runs["data.name"].dropna()))) if "data.name" in runs else []
    data = ", ".join(sets) if len(sets) <= _MOST_SETS else f"{len(sets)} data sets"
    data = "" if title.split(", ")[0] == data else data  # which is told already
    return "\n".join(filter(None, (title, "; ".join(filter(None, (data, _seeds(runs), note))))))


def _seeds(runs: pd.DataFrame) -> str:
    if "seed" not in runs:
        return ""
    seeds = set(runs["seed"].dropna().tolist())
    if len(seeds) == 1:
        return f"seed {words(seeds.pop())}"
    counts = sorted({part["seed"].nunique() for _, part in panels(runs, inside=())})
    if len(counts) < 2:
        return f"{counts[0]} seeds" if counts else ""
    return f"{counts[0]} to {counts[-1]} seeds"


def per_setting(
    name: str, runs: pd.DataFrame, *shown: str, inside: Sequence[str] = ()
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(stem of a figure's file, title, runs) of each setting: what a figure does not show is the same in each.

    Args:
        name: The stem of the one setting's file, if there is but one.
        runs: Table of :func:`ncflow.results.load_runs`.
        shown: Columns whose differences the figure shows.
        inside: Further such columns.

    Raises:
        ArgumentError: If there are more settings than anybody would look at.
    """
    cut = few_panels(runs, *shown, inside=inside)
    for values, part in cut:
        title = panel_title(values)
        yield name if len(cut) == 1 else stem(name, title), title, part


def few_panels(
    runs: pd.DataFrame, *shown: str, inside: Sequence[str] = INSIDE
) -> list[tuple[dict[str, object], pd.DataFrame]]:
    """As :func:`ncflow.figures.varied.panels`, of runs that have but so many settings.

    Raises:
        ArgumentError: Naming the options that differ, if there are more.
    """
    cut = panels(runs, *shown, inside=inside)
    if len(cut) > MOST_PANELS:
        differing = {key: sorted({words(values[key]) for values, _ in cut}) for key in cut[0][0]}
        listed = ", ".join(
            f"{key} ({', '.join(found[:3])}{f' and {len(found) - 3} more' if len(found) > 3 else ''})"
            for key, found in differing.items()
        )
        raise ArgumentError(
            f"the runs must be of at most {MOST_PANELS} settings, found {len(cut)}, which differ in {listed}: name "
            "folders with fewer"
        )
    return cut


def stem(name: str, title: str) -> str:
    """Stem of a setting's file; file systems take some 255 bytes, which a user's own names may exceed."""
    whole = "_".join([name, *re.findall(r"[\w.+-]+", title)])
    return whole.encode()[:_LONGEST_STEM].decode(errors="ignore")


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
    named: dict[str, pd.Series] = {column: names(done[column], f"{column} not set") for column in _NAMES}
    named["model.norm"] = bn_series(done.assign(**named))
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
