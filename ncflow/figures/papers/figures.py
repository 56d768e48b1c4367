"""Which figures a set of runs allows, and how each is drawn. A new figure is a recipe and an entry of ``FIGURES``."""

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from ncflow.figures.papers.cbmm_117 import figures as cbmm_117
from ncflow.figures.papers.drawing import Drawing, Recipe
from ncflow.figures.papers.pan_cao import figures as pan_cao
from ncflow.figures.papers.pan_thesis import figures as pan_thesis

FIGURES: dict[str, Recipe] = {**pan_cao.FIGURES, **pan_thesis.FIGURES, **cbmm_117.FIGURES}
# Before the name of a paper's figure, where another paper has one of the same number.
_PREFIX = {"pan_cao": "", "pan_thesis": "", "cbmm_117": "cbmm_"}

_ANY_RUNS = ("fig1", "fig2", "fig4", "trajectories", "gap")
_ANY_IMAGE_RUNS = ("fig1", "fig4", "fig5", "trajectories", "gap")
_ANY_1000_CLASS_RUNS = ("fig6", "trajectories", "gap")


def choose(runs: pd.DataFrame, names: list[str] | None = None) -> Iterator[tuple[str, Recipe, pd.DataFrame]]:
    """(name, recipe, runs) of named figures, from all runs, or of those that the runs were made for.

    Runs of ``experiment=pan_cao/fig5`` or ``fig5_small`` are drawn as figure 5; others by what they are. The gap to the
    theory's optimum is drawn over all runs.
    """
    if names is not None:
        yield from ((name, FIGURES[name], runs) for name in dict.fromkeys(names))
        return
    made_for = [_figures_of(run) for _, run in runs.iterrows()]
    for name, recipe in FIGURES.items():
        suited = runs[[name in figures for figures in made_for]]
        if not suited.empty:
            yield name, recipe, suited


def drawings(runs: pd.DataFrame, history: pd.DataFrame, names: list[str] | None = None) -> Iterator[Drawing]:
    """Draw the figures that :func:`choose` chooses."""
    for _, recipe, suited in choose(runs, names):
        yield from recipe(suited, history)


def _figures_of(run: "pd.Series[Any]") -> tuple[str, ...]:
    experiment = re.sub(r"_small$", "", str(run.get("experiment")))
    paper, _, figure = experiment.rpartition("/")
    if paper in _PREFIX and _PREFIX[paper] + figure in FIGURES:
        # The theory behind the gap is of the cross-entropy.
        return (_PREFIX[paper] + figure, *(() if paper == "cbmm_117" else ("gap",)))
    if run.get("train/classes_present") == 1000:
        return _ANY_1000_CLASS_RUNS
    images = re.match(r"vgg|resnet", str(run.get("model.name")))
    return _ANY_IMAGE_RUNS if images else _ANY_RUNS
