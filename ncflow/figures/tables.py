"""Rows and values of the tables of runs and histories, and their cut into panels and series."""

from typing import Any

import pandas as pd

from ncflow.results import DONE, LAST_LAYER

# What varies inside a panel, or is no part of the experiment's description.
_NOT_A_PANEL = (
    "seed",
    "weight_decay",
    "model.norm",
    "model.norm_bias",
    "model.affine",
    "run_id",
    "name",
    "folder",
    "status",
    "error",
    "runs_dir",
    "seconds",
    "steps_per_second",
    "experiment",
)
_NOT_PREFIXES = ("train/", "test/", "version/", "trainer.", "logger.", "measure.")


def finished(runs: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The runs that reached their end and have a value in each of the columns; none where a column is missing."""
    done = runs[runs["status"] == DONE] if "status" in runs else runs
    return done.dropna(subset=list(columns)) if all(column in done for column in columns) else done.iloc[:0]


def last_layer(history: pd.DataFrame, split: str = "train") -> pd.DataFrame:
    """The rows of the classifier's input on a split.

    Args:
        history: Table of :func:`ncflow.results.load_history`.
        split: ``train`` or ``test``.
    """
    return history[(history["layer"] == LAST_LAYER) & (history["split"] == split)]


def fixed_gamma(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each run's gamma is fixed."""
    return runs["model.gamma"].notna() if "model.gamma" in runs else pd.Series(False, index=runs.index, dtype=bool)


def trained_gamma(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose BN, if any, trains its gamma."""
    return runs[~fixed_gamma(runs)]


def bn_kind(runs: pd.DataFrame) -> "pd.Series[str]":
    """Whether each run's BN trains a gamma: ``affine BN``, ``BN with fixed gamma`` or ``no BN``."""
    kinds = fixed_gamma(runs).map({True: "BN with fixed gamma", False: "affine BN"})
    return kinds.where(runs["model.norm"] != "none", "no BN").rename("bn kind")


def is_number(value: Any) -> bool:
    """Whether a cell is a number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def panel_keys(runs: pd.DataFrame, *more: str) -> list[str]:
    """Config columns that differ between the runs and are neither an axis nor a series of a panel.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        more: Further columns that vary inside a panel.
    """
    keys = [
        column
        for column in runs.columns
        if column not in _NOT_A_PANEL and column not in more and not column.startswith(_NOT_PREFIXES)
    ]
    # An option that only some data sets or models have differs by being absent; the name says that already.
    named = [key for key in keys if key.endswith(".name") and runs[key].nunique(dropna=False) > 1]
    varied = [key for key in keys if not key.endswith((".name", "._target_")) and _varies(runs, key, named)]
    return [*named, *varied]


def _varies(runs: pd.DataFrame, key: str, named: list[str]) -> bool:
    groups = [group for _, group in runs.groupby(named)] if named else [runs]
    return any(group[key].map(repr).nunique() > 1 for group in groups)


def panels(runs: pd.DataFrame, *more: str) -> list[tuple[dict[str, object], pd.DataFrame]]:
    """(what distinguishes the panel, its runs), in a stable order; one nameless panel where nothing varies.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`; an empty one has no panels.
        more: Further columns that vary inside a panel.
    """
    if runs.empty:
        return []
    keys = panel_keys(runs, *more)
    if not keys:
        return [({}, runs)]
    hashable = runs.assign(**{key: runs[key].map(lambda v: tuple(v) if isinstance(v, list) else v) for key in keys})
    grouped = hashable.groupby(keys, dropna=False, sort=True)
    return [(dict(zip(keys, values, strict=True)), runs.loc[group.index]) for values, group in grouped]


def over_seeds(runs: pd.DataFrame, by: str, measure: str) -> pd.DataFrame:
    """Mean, standard deviation (divisor n - 1, 0 for one run) and number of runs at each value of ``by``."""
    table = runs.groupby(by)[measure].agg(["mean", "std", "count"]).sort_index()
    return table.assign(std=table["std"].fillna(0.0))
