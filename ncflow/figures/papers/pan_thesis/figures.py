"""Figures of Pan's thesis."""

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from ncflow.figures.papers.drawing import Drawing, Recipe, measured
from ncflow.figures.plots.collapse import UNCENTRED, WORST, collapse_against
from ncflow.figures.plots.depth import profiles
from ncflow.figures.plots.geometry import classes_in_the_plane
from ncflow.figures.style import literal
from ncflow.figures.tables import bn_kind, last_rows, numbers, panel_title, panels
from ncflow.results import load_snapshots


def _with_own_measures(
    name: str, runs: pd.DataFrame, has: "pd.Series[bool]"
) -> Iterator[tuple[str, pd.DataFrame, tuple[str, str], str]]:
    """(name of the figure, runs, intra and inter, words for a figure of other measures than the thesis').

    The thesis' cosines are not centred (section 2.2). Runs that have not measured them are drawn by the centred ones,
    apart from the others.

    Args:
        name: Of the figure.
        runs: Its runs.
        has: Whether each of them has measured the thesis' own.
    """
    if has.any():
        yield name, runs[has], UNCENTRED, ""
    if not has.all():
        words = "centred cosines: these runs\nhave not measured the thesis' own"
        yield f"{name}_centred" if has.any() else name, runs[~has], WORST, words


def _kind(words: str) -> str:
    return "centred" if words else "not centred"


def fig3_1(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Worst intra and inter against weight decay with affine BN, BN with fixed gamma and none, if interpolating."""
    found = measured(runs)
    suited = found if found.empty else found[found["train/interpolated"] == 1]
    if suited.empty or suited["weight_decay"].nunique() < 2:
        return
    kinds = bn_kind(suited)
    # What tells the three apart is one thing, and a series rather than a panel.
    shown = suited["model.norm"].where(kinds != "BN with fixed gamma", "fixed")
    one_kind = suited.drop(columns=["model.gamma", "model.norm_bias"], errors="ignore").assign(**{"model.norm": shown})
    own = [f"train/{measure}" for measure in UNCENTRED]
    has = one_kind.reindex(columns=own).apply(numbers).notna().all(axis=1)
    for name, part, pair, words in _with_own_measures("fig3_1", one_kind, has):
        caption = (
            f"Min intra-class (solid) and max inter-class cosine (dashed), {_kind(words)}, against weight decay; "
            "dotted: their limits, those of inter for the class shares; "
            f"{len(found) - len(suited)} runs that miss training accuracy 1 are left out."
        )
        draw = partial(collapse_against, part, "weight_decay", (pair,))
        yield Drawing(name, partial(_titled, draw, words), caption)


def fig3_2(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """The classes of two-dimensional data."""
    for _, run in measured(runs).iterrows():
        snapshots = load_snapshots(run["folder"])
        if snapshots and snapshots[0].inputs.shape[1] == 2:
            caption = "Classes of two-dimensional training data; black: boundaries between cones."
            yield Drawing("fig3_2", partial(classes_in_the_plane, snapshots[0]), caption)
            return


def fig3_3(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """NCC accuracy, min intra and max inter layer by layer, a panel a weight decay."""
    suited = measured(runs)
    layers = {folder: last_rows(history, folder) for folder in suited["folder"]}
    suited = suited[suited["folder"].map(lambda folder: len(layers[folder]) > 2).astype(bool)]
    own = [bool(layers[folder][[*UNCENTRED]].notna().any(axis=None)) for folder in suited["folder"]]
    has = pd.Series(own, index=suited.index, dtype=bool)
    for name, of_kind, pair, words in _with_own_measures("fig3_3", suited, has):
        cut = panels(of_kind)
        for number, (values, part) in enumerate(cut, start=1):
            for _, of_norm in part.groupby("model.norm"):
                caption = (
                    f"Layer by layer at the end of training, cosines {_kind(words)}; mean and range over seeds; "
                    "dotted: the limit of inter for the class shares."
                )
                title = "; ".join(text for text in (panel_title(values), words) if text)
                draw = partial(_titled, partial(profiles, of_norm, history, pair), title)
                yield Drawing(name if len(cut) == 1 else f"{name}_{number}", draw, caption)


def _titled(draw: Callable[[], Figure], title: str) -> Figure:
    figure = draw()
    if title:
        figure.suptitle(literal(title))
    return figure


FIGURES: dict[str, Recipe] = {"fig3_1": fig3_1, "fig3_2": fig3_2, "fig3_3": fig3_3}
