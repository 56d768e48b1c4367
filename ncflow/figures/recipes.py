"""Which figures a set of runs allows, and how each is drawn from it. A new figure is an entry of ``FIGURES``."""

import re
from collections.abc import Callable, Iterator

import pandas as pd
from matplotlib.figure import Figure

from ncflow.figures.plots import collapse_against, panel_title, trajectories
from ncflow.figures.style import NORM_LABELS
from ncflow.figures.tables import finished, panels

Recipe = Callable[[pd.DataFrame, pd.DataFrame], Iterator[tuple[str, Figure]]]


def _measured(runs: pd.DataFrame) -> pd.DataFrame:
    """Finished runs with measures and what every figure sorts by; none where a column is missing altogether."""
    done = finished(runs)
    needed = ["train/intra_min", "train/inter_max", "model.norm", "weight_decay", "seed"]
    return done.dropna(subset=needed) if all(column in done for column in needed) else done.iloc[:0]


def fig2(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Min intra and max inter against weight decay, with and without BN (Pan, Cao, figure 2)."""
    suited = _measured(runs)
    suited = suited[~_fixed_gamma(suited)]
    if not suited.empty and suited["weight_decay"].nunique() > 1:
        yield "fig2", collapse_against(suited, "weight_decay")


def fig4(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Min intra and max inter against a fixed gamma (Pan, Cao, figure 4)."""
    suited = _measured(runs)
    suited = suited[_fixed_gamma(suited)]
    if not suited.empty and suited["model.gamma"].nunique() > 1:
        yield "fig4", collapse_against(suited, "model.gamma")


def _fixed_gamma(runs: pd.DataFrame) -> pd.Series:
    if "model.gamma" not in runs:
        return pd.Series(False, index=runs.index)
    return runs["model.gamma"].notna()


def training(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Measures and loss over epochs, a figure a setting (Pan, Cao, figures 3, 7 and 8).

    Of each BN placement the lowest seed is drawn, at the smallest, the middle and the largest weight decay.
    """
    suited = _measured(runs)
    rows = history[(history["split"] == "train") & (history["layer"] == "last")].dropna(subset=["intra_min"])
    suited = suited[suited["folder"].isin(rows["folder"])]
    if suited.empty:
        return
    for values, part in panels(suited):
        part = part[part["seed"] == part["seed"].min()]
        decays = sorted(part["weight_decay"].unique())
        chosen = [decays[i] for i in sorted({0, len(decays) // 2, len(decays) - 1})]
        shown = part[part["weight_decay"].isin(chosen)].sort_values(["weight_decay", "model.norm"])
        titles = [
            (
                run["folder"],
                f"{NORM_LABELS.get(run['model.norm'], run['model.norm'])}, $\\lambda$ = {run['weight_decay']:g}",
            )
            for _, run in shown.iterrows()
        ]
        figure = trajectories(rows, titles)
        title = panel_title(values)
        figure.suptitle(title)
        yield "_".join(["trajectories", *re.findall(r"[\w.+-]+", title)]), figure


FIGURES: dict[str, Recipe] = {"fig2": fig2, "fig4": fig4, "trajectories": training}
