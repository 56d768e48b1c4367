"""Figures of models that were trained elsewhere, of whose training nothing is known but some states."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from ncflow.figures.papers.drawing import Drawing, Recipe, heading
from ncflow.figures.plots.collapse import trajectories
from ncflow.figures.plots.depth import over_layers
from ncflow.figures.style import data_label, literal, words
from ncflow.figures.tables import final_layers, finished, last_layer, with_measures
from ncflow.results.report import counted

_MOST_PANELS = 24


def measured(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Measures of each model over the epochs of its states, and layer by layer; a panel a model, data set and split."""
    done = finished(runs, "model.name", "data.name", "folder")
    titles = {
        run["folder"]: f"{words(run['model.name'])} on {data_label(run['data.name'])}" for _, run in done.iterrows()
    }
    twice = {title for title, count in Counter(titles.values()).items() if count > 1}
    titles |= {folder: f"{title} ({Path(folder).name})" for folder, title in titles.items() if title in twice}
    own = history[history["folder"].isin(list(titles))]
    epochs: dict[str, pd.DataFrame] = {}
    layers: dict[str, pd.DataFrame] = {}
    for split in sorted(own["split"].unique()):
        of_split = last_layer(own, split).dropna(subset=["intra_min"])
        epochs |= {f"{folder}:{split}": rows for folder, rows in of_split.groupby("folder", sort=False)}
        ends = final_layers(with_measures(own), split)
        layers |= {f"{folder}:{split}": rows for folder, rows in ends.groupby("folder", sort=False) if len(rows) > 1}

    def named(panels: dict[str, pd.DataFrame]) -> tuple[dict[str, str], str, str]:
        """The title of each panel, what of them is left out, and the heading of the figure."""
        shown = list(panels)[:_MOST_PANELS]
        folders = {key: key.rpartition(":")[0] for key in shown}
        left_out = f", the first {_MOST_PANELS} of {len(panels)}" if len(panels) > len(shown) else ""
        own = done[done["folder"].isin(list(folders.values()))]
        of = heading(own.drop(columns="seed", errors="ignore"), note=counted(len(own), "model"))
        return {key: literal(f"{titles[folders[key]]}, {key.rpartition(':')[2]}") for key in shown}, left_out, of

    if epochs:
        panels, left_out, of = named(epochs)
        caption = f"Collapse and loss over the epochs that were measured, a panel a model and split{left_out}."
        rows = pd.concat([epochs[key].assign(folder=key) for key in panels])
        shown = [(title, [key]) for key, title in panels.items()]
        yield Drawing("measured", partial(trajectories, rows, shown, columns=2), caption, heading=of)
    if layers:
        panels, left_out, of = named(layers)
        caption = (
            "Measures layer by layer, from the input to the classifier, of the last state that was measured; a panel a "
            f"model and split{left_out}."
        )
        draw = partial(over_layers, [(title, layers[key]) for key, title in panels.items()])
        yield Drawing("measured_layers", draw, caption, heading=of)


FIGURES: dict[str, Recipe] = {"measured": measured}
