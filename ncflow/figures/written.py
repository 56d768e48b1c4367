"""Tables of means and deviations as text: CSV for a program, LaTeX for a paper, columns for a terminal."""

import math
from collections.abc import Sequence
from typing import Literal

import pandas as pd

from ncflow.figures.asked import DEVIATION, MEAN, SEEDS, Question
from ncflow.figures.compared import DIFFERENCE, HIGH, LOW, A, B
from ncflow.figures.style import words

Form = Literal["csv", "latex", "text"]
_ESCAPED = {"\\": r"\textbackslash{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}, "~": r"\textasciitilde{}"}
_ESCAPED |= {"^": r"\textasciicircum{}"}


def table_of_points(question: Question, points: pd.DataFrame, form: Form) -> str:
    """A row for each x of each series, the measures side by side: mean, sd and number of seeds.

    Args:
        question: As :func:`ncflow.figures.asked.understood` gives it.
        points: Of :func:`ncflow.figures.asked.points`.
        form: CSV has numbers in full, the other forms ``mean ± sd``, the sd in two digits.
    """
    by = [*dict.fromkeys([*question.shown, question.x])]
    if question.is_cloud:
        by.append("folder")
    keys = points[by].map(repr).agg("\0".join, axis=1)
    rows = []
    for _, part in points.groupby(keys, sort=False):
        row = part[by].iloc[0].to_dict()
        for name in question.y:
            found = part[part["measure"] == name]
            mean, sd, seeds = found.iloc[0][[MEAN, DEVIATION, SEEDS]] if len(found) else (math.nan, math.nan, 0)
            if form == "csv":
                row |= {name: mean} if question.is_cloud else {name: mean, f"{name} sd": sd, f"{name} seeds": seeds}
            else:
                row |= {name: _mean_and_sd(mean, sd if seeds > 1 else math.nan, form)}
                if not question.is_cloud:
                    row |= {SEEDS: max(int(seeds), int(row.get(SEEDS, 0)))}
        rows.append(row)
    return _written(pd.DataFrame(rows), form)


def table_of_differences(table: pd.DataFrame, form: Form) -> str:
    """A row for each setting and measure: A, B, their difference with its interval of 95 %, the paired seeds.

    Args:
        table: Of :func:`ncflow.figures.compared.compare`.
        form: As for :func:`table_of_points`.
    """
    if form == "csv":
        return _written(table, form)
    own = [A, f"{A} sd", f"{A} runs", B, f"{B} sd", f"{B} runs", DIFFERENCE, LOW, HIGH, SEEDS]
    shown = table[[column for column in table if column not in own]].copy()
    for name in (A, B):
        sds = table[f"{name} sd"]
        shown[name] = [_mean_and_sd(m, s, form) for m, s in zip(table[name], sds, strict=True)]
    ends = zip(table[DIFFERENCE], table[LOW], table[HIGH], strict=True)
    shown[f"{DIFFERENCE} [95 %]"] = [_interval(*three, form) for three in ends]
    shown[SEEDS] = [
        str(paired) if paired else f"{mine}, {theirs}"
        for paired, mine, theirs in zip(table[SEEDS], table[f"{A} runs"], table[f"{B} runs"], strict=True)
    ]
    return _written(shown, form)


def _decimals(scale: float) -> int:
    """So that a number of this size has two digits."""
    return 4 if not math.isfinite(scale) or scale == 0 else min(12, max(0, 1 - math.floor(math.log10(abs(scale)))))


def _number(value: float, decimals: int, form: Form) -> str:
    if not math.isfinite(value):
        return "--" if form == "latex" else "-"
    text = f"{value:.{decimals}f}"
    return f"${text}$" if form == "latex" else text


def _mean_and_sd(mean: float, sd: float, form: Form) -> str:
    if not math.isfinite(sd):
        return _number(mean, _decimals(mean) + 1, form)
    decimals = _decimals(sd)
    if form == "latex":
        return rf"${mean:.{decimals}f} \pm {sd:.{decimals}f}$"
    return f"{mean:.{decimals}f} ± {sd:.{decimals}f}"


def _interval(difference: float, low: float, high: float, form: Form) -> str:
    if not math.isfinite(low):
        return _number(difference, _decimals(difference) + 1, form)
    decimals = _decimals(high - low)
    text = f"{difference:+.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
    return f"${text}$" if form == "latex" else text


def _written(table: pd.DataFrame, form: Form) -> str:
    if form == "csv":
        return table.to_csv(index=False)
    cells = [[_cell(value, form) for value in row] for row in table.itertuples(index=False)]
    heads = [_cell(str(column), form) for column in table]
    if form == "latex":
        head, *body = (" & ".join(row) + r" \\" for row in (heads, *cells))
        begin, end = rf"\begin{{tabular}}{{{'l' * len(heads)}}}", r"\end{tabular}"
        return "\n".join([begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", end, ""])
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    return "".join(_line(row, widths) + "\n" for row in (heads, *cells))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _cell(value: object, form: Form) -> str:
    text = "-" if value is None or value != value else words(value)
    if form != "latex" or (text.startswith("$") and text.endswith("$")) or text == "--":
        return text
    return "".join(_ESCAPED.get(letter, letter) for letter in text)
