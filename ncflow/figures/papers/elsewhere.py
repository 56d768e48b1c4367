"""Figures of models that were trained elsewhere, of whose training nothing is known but some states."""

from collections.abc import Iterator
from functools import partial

import pandas as pd

from ncflow.figures.papers.drawing import Drawing, Recipe
from ncflow.figures.plots.collapse import trajectories
from ncflow.figures.style import literal
from ncflow.figures.tables import finished, last_layer

_MOST_PANELS = 24


def measured(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Measures and loss of each model over the epochs of its states, a panel a model, data set and split."""
    done = finished(runs, "model.name", "data.name", "folder")
    shown, rows = [], []
    for split in sorted(history["split"].unique()) if len(history) else ():
        of_split = last_layer(history, split).dropna(subset=["intra_min"])
        for _, run in done[done["folder"].isin(of_split["folder"])].iterrows():
            key = f"{run['folder']}:{split}"
            own = of_split[of_split["folder"] == run["folder"]]
            rows.append(own.assign(folder=key))
            shown.append((literal(f"{run['model.name']} on {run['data.name']}, {split}"), [key]))
    if shown:
        left_out = f", the first {_MOST_PANELS} of {len(shown)}" if len(shown) > _MOST_PANELS else ""
        caption = f"Collapse and loss over the epochs that were measured, a panel a model and split{left_out}."
        chosen = shown[:_MOST_PANELS]
        yield Drawing("measured", partial(trajectories, pd.concat(rows), chosen, columns=2), caption)


FIGURES: dict[str, Recipe] = {"measured": measured}
