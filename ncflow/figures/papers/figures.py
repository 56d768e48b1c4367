"""Which figures a set of runs allows, and how each is drawn. A new figure is a recipe and an entry of ``FIGURES``."""

import re
from collections.abc import Iterator
from typing import Any

import pandas as pd

from ncflow.figures.papers.cbmm_117 import figures as cbmm_117
from ncflow.figures.papers.drawing import Drawing, Recipe
from ncflow.figures.papers.elsewhere import FIGURES as ELSEWHERE
from ncflow.figures.papers.optimizers import figures as optimizers
from ncflow.figures.papers.pan_cao import figures as pan_cao
from ncflow.figures.papers.pan_thesis import figures as pan_thesis
from ncflow.figures.varied import trained_once

FIGURES: dict[str, Recipe] = {
    **pan_cao.FIGURES,
    **pan_thesis.FIGURES,
    **cbmm_117.FIGURES,
    **optimizers.FIGURES,
    **ELSEWHERE,
}

_ANY_RUNS = ("fig1", "fig2", "fig4", "trajectories", "gap")
_ANY_IMAGE_RUNS = ("fig1", "fig4", "fig5", "trajectories", "gap")
_ANY_1000_CLASS_RUNS = ("fig6", "trajectories", "gap")


def choose(
    runs: pd.DataFrame, history: pd.DataFrame, names: list[str] | None = None
) -> Iterator[tuple[str, Recipe, pd.DataFrame]]:
    """(name, recipe, runs) of named figures, from all runs, or of those that the runs were made for.

    Runs of an experiment are drawn as its ``figures`` say; others by what they are. Those that were trained alike, and
    measured differently, are one.
    """
    if names is not None:
        for name in dict.fromkeys(names):
            yield name, FIGURES[name], trained_once(runs, history, name)
        return
    made_for = _figures_of(runs)
    for name, recipe in FIGURES.items():
        suited = runs[[name in figures for figures in made_for]]
        if not suited.empty:
            yield name, recipe, trained_once(suited, history, name)


def drawings(runs: pd.DataFrame, history: pd.DataFrame, names: list[str] | None = None) -> Iterator[Drawing]:
    """Draw the figures that :func:`choose` chooses."""
    for _, recipe, suited in choose(runs, history, names):
        yield from recipe(suited, history)


def asked_for(runs: pd.DataFrame) -> list[tuple[str, ...]]:
    """The names of figures that each run's experiment asks for; none if it names none."""
    asked = runs["figures"] if "figures" in runs else [()] * len(runs)
    return [tuple(map(str, names)) if isinstance(names, list) else () for names in asked]


def unknown(runs: pd.DataFrame) -> list[str]:
    """The figures that experiments ask for and that there are not."""
    return sorted({name for asked in asked_for(runs) for name in asked} - set(FIGURES))


def _figures_of(runs: pd.DataFrame) -> list[tuple[str, ...]]:
    classes, models = (
        runs[name] if name in runs else [None] * len(runs) for name in ("train/classes_present", "model.name")
    )
    return [
        asked or _what_they_are(count, model)
        for asked, count, model in zip(asked_for(runs), classes, models, strict=True)
    ]


def _what_they_are(classes: Any, model: Any) -> tuple[str, ...]:
    """The figures of a run whose experiment names none."""
    if classes == 1000:
        return _ANY_1000_CLASS_RUNS
    return _ANY_IMAGE_RUNS if re.match(r"vgg|resnet", str(model)) else _ANY_RUNS
