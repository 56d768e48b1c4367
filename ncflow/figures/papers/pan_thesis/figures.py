"""Figures of Pan's thesis."""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from ncflow.figures.papers.drawing import Drawing, Recipe, few_panels, heading, measured, per_setting
from ncflow.figures.plots.collapse import UNCENTRED, WORST, collapse_against
from ncflow.figures.plots.depth import profiles
from ncflow.figures.plots.geometry import classes_in_the_plane
from ncflow.figures.tables import bn_kind, last_rows, numbers
from ncflow.figures.varied import bn_series
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
        words = "centred cosines: these runs have not measured the thesis' own"
        yield f"{name}_centred" if has.any() else name, runs[~has], WORST, words


def _kind(words: str) -> str:
    return "centred" if words else "not centred"


def fig3_1(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Worst intra and inter against weight decay with affine BN, BN with fixed gamma and none, if interpolating."""
    found = measured(runs)
    suited = found if found.empty else found[found["train/interpolated"] == 1]
    if suited.empty or suited["weight_decay"].nunique() < 2:
        return
    # What tells the three apart is one thing, and a series rather than a panel.
    placed = found["model.norm"].str.partition(", ")[0]
    placed = placed.where(bn_kind(found.assign(**{"model.norm": placed})) != "BN with fixed gamma", "fixed")
    kinds = bn_series(suited.assign(**{"model.norm": placed, "placed": found["model.norm"]}), "model.gamma", "placed")
    one_kind = suited.drop(columns=["model.gamma"], errors="ignore").assign(**{"model.norm": kinds})
    missing = len(found) - len(suited)
    left_out = f"{missing} of {len(found)} runs miss training accuracy 1, and are left out" if missing else ""
    own = [f"train/{measure}" for measure in UNCENTRED]
    has = one_kind.reindex(columns=own).apply(numbers).notna().all(axis=1)
    for name, part, pair, words in _with_own_measures("fig3_1", one_kind, has):
        caption = (
            f"Min intra-class (solid) and max inter-class cosine (dashed), {_kind(words)}, against weight decay; "
            "dotted: their limits, those of inter for the class shares; "
            f"{missing} runs that miss training accuracy 1 are left out."
        )
        few_panels(part)
        draw = partial(collapse_against, part, "weight_decay", (pair,))
        yield Drawing(name, draw, caption, heading=heading(part, words, left_out))


def fig3_2(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """The classes of two-dimensional data."""
    for _, run in measured(runs).iterrows():
        snapshots = load_snapshots(run["folder"])
        if snapshots and snapshots[0].inputs.shape[1] == 2:
            caption = "Classes of two-dimensional training data; black: boundaries between cones."
            of = heading(run.to_frame().T)
            yield Drawing("fig3_2", partial(classes_in_the_plane, snapshots[0]), caption, heading=of)
            return


def fig3_3(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """NCC accuracy, min intra and max inter layer by layer, a panel a weight decay."""
    suited = measured(runs)
    whose = set(suited["folder"])
    layers = {str(folder): last_rows(own, str(folder)) for folder, own in history.groupby("folder") if folder in whose}
    suited = suited[suited["folder"].map(lambda folder: len(layers.get(folder, ())) > 2).astype(bool)]
    own = [bool(layers[folder][[*UNCENTRED]].notna().any(axis=None)) for folder in suited["folder"]]
    has = pd.Series(own, index=suited.index, dtype=bool)
    for name, of_kind, pair, words in _with_own_measures("fig3_3", suited, has):
        for own_name, title, part in per_setting(name, of_kind, inside=("weight_decay",)):
            caption = (
                f"Layer by layer at the end of training, cosines {_kind(words)}; mean and range over seeds; "
                "dotted: the limit of inter for the class shares."
            )
            draw = partial(profiles, part, history, pair)
            yield Drawing(own_name, draw, caption, heading=heading(part, title, words))


FIGURES: dict[str, Recipe] = {"fig3_1": fig3_1, "fig3_2": fig3_2, "fig3_3": fig3_3}
