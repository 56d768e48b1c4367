"""Any column of the runs against any other: the picture of a question of one's own."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.pyplot import subplots

from ncflow.figures.asked import DEVIATION, MEAN, OVER_TRAINING, SEEDS, Question
from ncflow.figures.plots.panels import bottom_legend, mark_values, series_colours
from ncflow.figures.style import LABELS, SERIES, data_label, label, literal, norm_label, norm_looks, norm_order, words
from ncflow.figures.tables import is_number
from ncflow.figures.varied import panel_title

_LOG_FROM = 20.0  # times the least value
_MOST_COLUMNS = 4


def asked(question: Question, points: pd.DataFrame) -> Figure:
    """A row of panels for each y, a panel for each value of the panels' columns, a colour for each of the hue's.

    Points are means over seeds, bars one standard deviation; where x is measured a point is a run. Panels of a row
    share their scale.

    Args:
        question: As :func:`ncflow.figures.asked.understood` gives it.
        points: Of :func:`ncflow.figures.asked.points`.
    """
    cut = _panels(question, points)
    columns = min(_MOST_COLUMNS, len(cut))
    blocks = math.ceil(len(cut) / columns)
    rows = blocks * len(question.y)
    size = (max(4.6, 3.6 * columns + 0.6), 3.0 * rows + 0.7)
    figure, axes = subplots(rows, columns, figsize=size, squeeze=False)
    hues = _hues(question, points)
    for row, name in enumerate(question.y):
        for place, (title, part) in enumerate(cut):
            block, column = divmod(place, columns)
            axis = axes[block * len(question.y) + row, column]
            if place:  # before anything is drawn: later it would take the first panel's limits as they are
                axis.sharey(axes[row, 0])
            _draw(axis, question, part[part["measure"] == name], hues)
            _scale(axis, question, points, part)
            if row == 0:
                axis.set_title(literal(title))
            if row == len(question.y) - 1:
                axis.set_xlabel(_words(question.x))
            if column == 0:
                axis.set_ylabel(_words(name))
    for axis in axes[-len(question.y) :, len(cut) - (blocks - 1) * columns :].flat:
        axis.set_visible(False)
    line = "none" if question.is_cloud else "-"
    entries = [
        Line2D([], [], color=colour, marker=marker, ls=line, label=text) for text, colour, marker in hues.values()
    ]
    seeds = Line2D([], [], ls="none", label=_seeds(question, points))
    bottom_legend(figure, [*(entries if question.hue else []), seeds])
    return figure


def _seeds(question: Question, points: pd.DataFrame) -> str:
    if question.is_cloud:
        return f"a point is a run ({points['folder'].nunique()})"
    least, most = points[SEEDS].min(), points[SEEDS].max()
    counts = f"{least}" if least == most else f"{least} to {most}"
    return f"mean and standard deviation over {counts} seeds" if most > 1 else "a point is a run"


def _panels(question: Question, points: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    if not question.panel:
        return [("", points)]
    keys = [points[column].map(repr) for column in question.panel]
    return [
        (panel_title({column: part[column].iloc[0] for column in question.panel}) or "not set", part)
        for _, part in points.groupby(keys, sort=False)
    ]


def _hues(question: Question, points: pd.DataFrame) -> dict[str, tuple[str, str, str]]:
    """By the text of a hue's value: its words, colour and marker."""
    if question.hue is None:
        return {"": ("", SERIES[0], "o")}
    found = {repr(value): value for value in points[question.hue]}
    if question.hue == "model.norm":
        looks = norm_looks(found.values())
        ordered = sorted(found.items(), key=lambda item: norm_order(item[1]))
        return {key: (literal(norm_label(value)), *looks[value]) for key, value in ordered}
    colours = series_colours(found)
    is_data = question.hue == "data.name"
    return {
        key: (
            literal(data_label(value)) if is_data else f"{_label(question.hue)} = {literal(_value(value))}",
            colours[key],
            "o",
        )
        for key, value in found.items()
    }


def _draw(axis: Axes, question: Question, part: pd.DataFrame, hues: dict[str, tuple[str, str, str]]) -> None:
    for key, (_, colour, marker) in hues.items():
        own = part if question.hue is None else part[part[question.hue].map(repr) == key]
        if own.empty:
            continue
        at = own[question.x] if _is_numeric(part[question.x]) else own[question.x].map(_value)
        if question.is_cloud:
            axis.plot(at, own[MEAN], marker, color=colour, ls="none", alpha=0.8)
        elif question.x in OVER_TRAINING:
            axis.plot(at, own[MEAN], color=colour, marker=marker if len(own) == 1 else "")
            axis.fill_between(at, own[MEAN] - own[DEVIATION], own[MEAN] + own[DEVIATION], color=colour, alpha=0.2, lw=0)
        else:
            line = "-" if _is_numeric(own[question.x]) else "none"
            axis.errorbar(at, own[MEAN], yerr=own[DEVIATION], color=colour, marker=marker, ls=line, capsize=2)


def _scale(axis: Axes, question: Question, points: pd.DataFrame, part: pd.DataFrame) -> None:
    """Logarithmic where positive values span more than a decade; 0 stands apart, on the left."""
    values = points[question.x]
    if not _is_numeric(values):
        axis.margins(x=0.25)
    if not _is_numeric(values) or question.x in OVER_TRAINING:
        return
    positive = values[values > 0]
    if (values >= 0).all() and len(positive) and positive.max() >= _LOG_FROM * positive.min():
        axis.set_xscale("symlog", linthresh=positive.min()) if (values == 0).any() else axis.set_xscale("log")
    if not question.is_cloud:
        mark_values(axis, sorted(part[question.x].unique()))


def _is_numeric(values: pd.Series) -> bool:
    return bool(values.map(is_number).all()) or pd.api.types.is_float_dtype(values)


def _value(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_value, value))
    return "not set" if value is None or value != value else words(value)


def _words(column: str) -> str:
    """Words for an axis, in matplotlib's own notation: a measure with its split."""
    split = {"train/": " (training split)", "test/": " (test split)"}
    for prefix, named in split.items():
        if column.startswith(prefix):
            name = column.removeprefix(prefix)
            return "loss" + named if name == "loss" else _label(name) + named
    return _label(column.removesuffix(".name"))


def _label(column: str) -> str:
    """Words for a column; one that a user named may have a dollar sign in it."""
    text = label(column)
    return text if text in LABELS.values() else literal(text)
