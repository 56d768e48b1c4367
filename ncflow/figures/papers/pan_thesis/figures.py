"""Figures of Pan's thesis."""

from collections.abc import Iterator
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from ncflow.figures.papers.drawing import Drawing, Recipe, measured
from ncflow.figures.plots.collapse import collapse_against
from ncflow.figures.plots.depth import profiles
from ncflow.figures.plots.geometry import classes_in_the_plane
from ncflow.figures.style import literal
from ncflow.figures.tables import bn_kind, last_rows, panel_title, panels
from ncflow.results import load_snapshots


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
    caption = (
        "Min intra-class (solid) and max inter-class cosine (dashed) against weight decay; "
        f"{len(found) - len(suited)} runs that miss training accuracy 1 are left out."
    )
    yield Drawing("fig3_1", partial(collapse_against, one_kind, "weight_decay"), caption)


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
    layered = [len(last_rows(history, folder)) > 2 for folder in suited["folder"]]
    cut = panels(suited[layered])
    for number, (values, part) in enumerate(cut, start=1):
        for _, of_norm in part.groupby("model.norm"):
            caption = "Layer by layer at the end of training; mean and range over seeds; dotted: the limit of inter."
            draw = partial(_titled_profiles, of_norm, history, panel_title(values))
            yield Drawing("fig3_3" if len(cut) == 1 else f"fig3_3_{number}", draw, caption)


def _titled_profiles(runs: pd.DataFrame, history: pd.DataFrame, title: str) -> Figure:
    figure = profiles(runs, history)
    figure.suptitle(literal(title))
    return figure


FIGURES: dict[str, Recipe] = {"fig3_1": fig3_1, "fig3_2": fig3_2, "fig3_3": fig3_3}
