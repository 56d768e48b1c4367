"""A question of one's own about runs: any column against any other, by colour and panel, as points or as a table."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import yaml

from ncflow.checks import ArgumentError
from ncflow.figures.tables import is_number, last_layer, numbers
from ncflow.figures.varied import place_of, varied
from ncflow.results import Status, one_line
from ncflow.results.columns import SPLITS

OVER_TRAINING = ("epoch", "step")
MEAN, DEVIATION, SEEDS = "mean", "sd", "seeds"
_MEASURED = (*SPLITS, "seconds", "steps_per_second")
_MOST_SHOWN = 5


@dataclass(frozen=True)
class Question:
    """What is drawn against what.

    Attributes:
        x: A column of the runs, or ``epoch`` or ``step`` of their history.
        y: Columns of numbers, a row of panels each.
        hue: Column of the colours; None for one colour.
        panel: Columns of the panels.
    """

    x: str
    y: tuple[str, ...]
    hue: str | None = None
    panel: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """The columns that tell series and panels apart."""
        return (*self.panel, *(() if self.hue is None else (self.hue,)))

    @property
    def is_cloud(self) -> bool:
        """Whether each run is a point of its own, as x is measured and no option that runs share."""
        return self.x.startswith(_MEASURED)


def stem(question: Question) -> str:
    """Name of the figure's file, without its suffix."""
    parts = ["+".join(question.y), "against", question.x, *(f"by_{column}" for column in question.shown)]
    return "_".join("".join(c if c.isalnum() or c in "._+" else "_" for c in part) for part in parts)[:180]


def understood(question: Question, runs: pd.DataFrame) -> Question:
    """The question with each column under its whole name.

    Args:
        question: A column may be given by its end (``lr``), and a measure without its split, of training then.
        runs: Table of :func:`ncflow.results.load_runs`.

    Raises:
        ArgumentError: Naming what is no column of these runs, or no number, and what is like it.
    """
    x = question.x if question.x in OVER_TRAINING else column_named("x", question.x, runs)
    y = tuple(column_named("y", name, runs) for name in question.y)
    for name in y:
        if not numbers(runs[name]).notna().any():
            raise ArgumentError(f"y must be a column of numbers, found {name} of {values_of(runs[name])}")
        if x in OVER_TRAINING and not name.startswith(SPLITS):
            raise ArgumentError(f"y must be a measure where x is {x}, found {name}")
    hue = None if question.hue is None else column_named("hue", question.hue, runs)
    return Question(x, y, hue, tuple(column_named("panel", name, runs) for name in question.panel))


def column_named(argument: str, name: str, runs: pd.DataFrame) -> str:
    """The one column of a name, which may be its end or lack ``train/``.

    Raises:
        ArgumentError: If there is none, or several.
    """
    columns = [str(column) for column in runs.columns]
    for candidate in (name, f"train/{name}"):
        if candidate in columns:
            return candidate
    ends = [column for column in columns if column.endswith(f".{name}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ArgumentError(f"{argument} must be one column, found {name!r}, the end of {', '.join(sorted(ends))}")
    parts = {column: column for column in columns} | {column.rpartition(".")[2]: column for column in columns}
    like = [parts[close] for close in difflib.get_close_matches(name.removeprefix("train/"), parts, n=3)]
    like += [c for c in difflib.get_close_matches(f"train/{name}", columns, n=2) if c not in like]
    hint = f": did you mean {', '.join(like[:3])}?" if like else ""
    raise ArgumentError(f"{argument} must be a column of these runs, found {one_line(name, 60)!r}{hint}")


def where(runs: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The runs that meet every condition.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        conditions: ``COLUMN=VALUE`` or ``COLUMN=VALUE,VALUE``, as on the command line of a run.

    Raises:
        ArgumentError: If one is no condition, names no column, or no run meets it.
    """
    for condition in conditions:
        name, equals, values = condition.partition("=")
        if not equals:
            raise ArgumentError(f"where must be COLUMN=VALUE, found {one_line(condition, 60)!r}")
        column = column_named("where", name, runs)
        wanted = {_canonical(_read(value)) for value in values.split(",")}
        met = runs[runs[column].map(_canonical).isin(wanted)]
        if met.empty:
            raise ArgumentError(f"where must leave a run, found {condition}: {column} is {values_of(runs[column])}")
        runs = met
    return runs


def _read(text: str) -> object:
    """A value as the command line of a run has it: 1e-3 is a number, which it is not in YAML."""
    try:
        return float(text)
    except ValueError:
        return yaml.safe_load(text)


def points(question: Question, runs: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """A row a point: the question's columns, ``measure`` (which y), ``mean``, ``sd`` (divisor n - 1), ``seeds``.

    Runs that differ in their seed alone are one point. Where x is itself a measure each run is a point.

    Args:
        question: As :func:`understood` gives it.
        runs: Table of :func:`ncflow.results.load_runs`, each run once; those that are not done are left out.
        history: Table of :func:`ncflow.results.load_history`.

    Raises:
        ArgumentError: If runs of one point differ in more than their seed, or there is no point.
    """
    done = runs[runs["status"] == Status.DONE]
    by = [*dict.fromkeys([*question.shown, question.x])]
    rows = done
    if question.x in OVER_TRAINING:
        rows = _over_training(question, done, history)
    elif not question.is_cloud:
        _refuse_mixtures(done, by)
    else:
        rows = done.assign(**{question.x: numbers(done[question.x])})
    found = []
    for name in question.y:
        part = rows.assign(measure=name, **{MEAN: numbers(rows[name])}).dropna(subset=[MEAN])
        if question.is_cloud:
            found.append(part.dropna(subset=[question.x])[[*by, "measure", MEAN, "folder"]].assign(sd=0.0, seeds=1))
            continue
        keys = [part[column].map(key_of) for column in by]
        grouped = part.groupby(keys, sort=False)
        table = grouped[[*by, "measure"]].first().reset_index(drop=True)
        values = grouped[MEAN].agg([MEAN, "std", "count"]).reset_index(drop=True)
        found.append(table.assign(mean=values[MEAN], sd=values["std"].fillna(0.0), seeds=values["count"]))
    table = pd.concat(found, ignore_index=True)
    if table.empty:
        named = ", ".join([question.x, *question.y])
        raise ArgumentError(f"x and y must have numbers in a run that is done, found none in {named}")
    return table.sort_values([*question.shown, question.x], key=_order, kind="stable", ignore_index=True)


def _over_training(question: Question, done: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """The history, a row a run and measurement, with the columns of the runs that tell series apart."""
    _refuse_mixtures(done, [*question.shown])
    if question.x not in history:
        raise ArgumentError(f"x must be in the history of these runs, found {question.x}")
    keys = ["folder", question.x]
    table = done[["folder", *question.shown]].merge(history[keys].drop_duplicates(), on="folder")
    for name in question.y:
        split, measure = name.split("/", 1)
        rows = last_layer(history, split, (measure,))
        table = table.merge(rows[[*keys, measure]].rename(columns={measure: name}), on=keys, how="left")
    return table


def _refuse_mixtures(runs: pd.DataFrame, by: Sequence[str]) -> None:
    """Raise where runs of one point differ in more than their seed."""
    groups = list(zip(*(runs[column].map(key_of) for column in by), strict=True)) or [()] * len(runs)
    mixed = [column for column in varied(runs, groups) if column not in by]
    mixed = [column for column in mixed if column.endswith(".name")] or mixed  # the rest may come with the name
    if mixed:
        named = "; ".join(f"{column} ({values_of(runs[column])})" for column in mixed[:3])
        more = f", and {len(mixed) - 3} more" if len(mixed) > 3 else ""
        rule = "the runs of a point must differ in their seed alone"
        way = f"show it with --hue or --panel, or choose with --where {mixed[0]}=VALUE"
        raise ArgumentError(f"{rule}, found that {named}{more} varies: {way}")
    if "seed" in runs:
        keyed = pd.DataFrame({"group": groups, "seed": runs["seed"].map(key_of).to_numpy()})
        twice = keyed.duplicated(keep=False).to_numpy()
        if twice.any():
            first = keyed[twice].iloc[0]
            same = runs[((keyed["group"] == first["group"]) & (keyed["seed"] == first["seed"])).to_numpy()]
            folders = " and ".join(one_line(folder, 200) for folder in same["folder"].iloc[:2])
            raise ArgumentError(f"a point must have one run of each seed, found two: {folders}")


def key_of(value: object) -> str:
    """A text that is equal for equal values of a config column."""
    return repr(_canonical(value))


def _canonical(value: object) -> object:
    """1 and 1.0 are the same value, a list counts by what is in it, and missing is missing."""
    if isinstance(value, list | tuple):
        return tuple(map(_canonical, value))
    if value is None or value != value:
        return None
    return float(value) if is_number(value) else value  # type: ignore[arg-type]


def _order(values: pd.Series) -> pd.Series:
    """A rank for each value: numbers by size, then names, then what is missing."""
    places = values.map(place_of)
    return places.map({place: rank for rank, place in enumerate(sorted(set(places)))})


def values_of(column: pd.Series) -> str:
    """The values in it, a few of them, in words."""
    known = sorted(set(map(_canonical, column)), key=place_of)
    words = ["missing" if value is None else f"{value:g}" if is_number(value) else str(value) for value in known]
    shown = ", ".join(one_line(word, 40) for word in words[:_MOST_SHOWN])
    return shown + (", ..." if len(words) > _MOST_SHOWN else "")
