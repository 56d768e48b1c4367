"""Rows and values of the tables of runs and histories."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from ncflow.results import FINAL, LAST_LAYER, Status
from ncflow.results.columns import AGAIN, PROVENANCE, SPLITS
from ncflow.theory.simplex import inter_limit

# Names, which a user's own config may also give as a number or a list; all else that is asked for is numbers.
_NAMES = ("model.norm", "model.name", "data.name", "loss.name")
_KEYS = ("epoch", "split", "layer", "folder")
READ = (
    *("loss", "accuracy", "intra_min", "inter_max", "intra_raw_min", "inter_raw_max", "nc3_cosine_min", "ncc_accuracy"),
    *("nc1", "nc2_equinorm_means", "nc2_equinorm_weights", "nc2_equiangular_means", "nc2_equiangular_weights", "rho"),
    *("classes_present", "class_share_min", "class_share_max", "inter_max_limit"),
    *("nc0", "nc0_predicted", "weight_norm"),
)
"""What figures and claims read of histories: they are given no other measures, and of many runs no other are kept."""
SPREAD = "spread"
"""min intra - max inter, the D of the conjectures."""


def once(runs: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The runs, each once, and how many rows were left out: a run that two experiments share is in both folders.

    Of two the finished one stays; it has the figures of both. What was measured again of a run's checkpoint is no other
    run: the run gets the measures that it has not.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
    """
    if "run_id" not in runs:
        return runs, 0
    known = runs[runs["run_id"].notna()]
    ends = known["status"].isin([*FINAL]).sort_values(ascending=False, kind="stable").index
    first = known.loc[ends].drop_duplicates("run_id").index
    kept = runs.drop(index=known.index.difference(first)).copy()
    if "figures" in runs:
        asked = known.groupby("run_id")["figures"].agg(
            lambda lists: list(dict.fromkeys(name for names in lists if isinstance(names, list) for name in names))
        )
        shared = known["run_id"].value_counts().loc[lambda counts: counts > 1].index
        for index, identity in kept["run_id"].items():
            if identity in shared and asked[identity]:
                kept.at[index, "figures"] = asked[identity]
    return _with_what_was_measured_again(kept.reset_index(drop=True)), len(runs) - len(kept)


def _with_what_was_measured_again(runs: pd.DataFrame) -> pd.DataFrame:
    if AGAIN not in runs:
        return runs
    training = runs[AGAIN].where(runs[AGAIN].notna(), runs["run_id"])
    dropped = []
    for _, alike in runs[training.notna()].groupby(training):
        if len(alike) > 1:
            (own, *others) = alike.sort_values(AGAIN, na_position="first", kind="stable").index
            for other in others:
                missing = [name for name in runs if str(name).startswith(SPLITS) and is_missing(runs.at[own, name])]
                runs.loc[own, missing] = runs.loc[other, missing]
                dropped.append(other)
    return runs.drop(index=dropped).reset_index(drop=True)


def provenance_differences(runs: pd.DataFrame) -> dict[str, dict[str, list[str]]]:
    """Columns of code, packages and machines that differ between the runs: folders by value, most runs first.

    Runs that did not record a column, as they have not ended or are of an earlier version, are not compared in it.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
    """
    found = {}
    for column in [str(column) for column in runs.columns if str(column).startswith(PROVENANCE)]:
        recorded = runs[runs[column].notna()]
        by_value = {str(value): part["folder"].tolist() for value, part in recorded.groupby(recorded[column].map(str))}
        if len(by_value) > 1:
            found[column] = dict(sorted(by_value.items(), key=lambda item: -len(item[1])))
    return found


def finished(runs: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The runs that reached their end and have a value in each of the columns; none where a column is missing.

    A name is made text, and what should be a number and is none is no value.
    """
    done = runs[runs["status"] == Status.DONE] if "status" in runs else runs
    if not all(column in done for column in columns):
        return done.iloc[:0]
    asked = {column: done[column] for column in columns if column != "folder"}
    typed = {column: (names if column in _NAMES else numbers)(values) for column, values in asked.items()}
    changed = {column: values for column, values in typed.items() if values is not asked[column]}
    return done.assign(**changed).dropna(subset=list(columns))


def numbers(values: pd.Series) -> pd.Series:
    """The values that are numbers; the others are missing."""
    if is_numeric_dtype(values) and not is_bool_dtype(values):
        return values
    return values.where(values.map(is_number).astype(bool)).astype(float)


def names(values: pd.Series, missing: str | None = None) -> pd.Series:
    """The values as text; missing ones stay so, or are given a name."""
    texts = [missing if is_missing(value) else str(value) for value in values.tolist()]
    return pd.Series(texts, index=values.index, name=values.name, dtype=object)


def is_missing(value: Any) -> bool:
    """Whether a cell has no value."""
    return value is None or (isinstance(value, float) and value != value)


def last_layer(history: pd.DataFrame, split: str = "train", measures: Sequence[str] = READ) -> pd.DataFrame:
    """The rows of the classifier's input on a split: ``epoch``, ``split``, ``layer``, ``folder`` and the measures.

    Args:
        history: Table of :func:`ncflow.results.load_history`.
        split: ``train`` or ``test``.
        measures: Those that no run has measured are missing.
    """
    rows = (history["layer"] == LAST_LAYER) & (history["split"] == split)
    return with_measures(history[rows], measures)


def with_measures(history: pd.DataFrame, measures: Sequence[str] = READ) -> pd.DataFrame:
    """These columns of a history, missing where none of its runs measured them."""
    return history.reindex(columns=[*_KEYS, *measures])


def fixed_gamma(runs: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each run's gamma is fixed."""
    return (
        numbers(runs["model.gamma"]).notna()
        if "model.gamma" in runs
        else pd.Series(False, index=runs.index, dtype=bool)
    )


def trained_gamma(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose BN, if any, trains its gamma."""
    return runs[~fixed_gamma(runs)]


def bn_kind(runs: pd.DataFrame) -> "pd.Series[str]":
    """Whether each run's BN trains a gamma: ``affine BN``, ``BN with fixed gamma`` or ``no BN``."""
    kinds = fixed_gamma(runs).map({True: "BN with fixed gamma", False: "affine BN"})
    return kinds.where(runs["model.norm"] != "none", "no BN").rename("bn kind")


def unequal_classes(rows: pd.DataFrame, prefix: str = "train/") -> "pd.Series[bool]":
    """Whether the classes of each run are known to differ in size; older runs do not say.

    Args:
        rows: Of the table of runs, or with the prefix "" of a history.
        prefix: Of the measures' columns.
    """
    least, largest = (_measure(rows, prefix + name) for name in ("class_share_min", "class_share_max"))
    return least < largest


def equal_classes(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Whether the classes of each run are known to be of one size."""
    return _measure(rows, "train/class_share_min") == _measure(rows, "train/class_share_max")


def limits_of(rows: pd.DataFrame, measure: str, prefix: str = "train/") -> "pd.Series[float]":
    """What a measure of inter is at the theory's optimum for the classes of each run, NaN where it is not known.

    For equal classes it is -1/(C-1), which is also taken for older runs, as they do not say.

    Args:
        rows: Of the table of runs, or with the prefix "" of a history.
        measure: ``inter_max``, ``inter_mean``, ``inter_quantile`` or ``inter_raw_max``.
        prefix: Of the measures' columns.
    """
    of_equal = _measure(rows, f"{prefix}classes_present").map(lambda C: inter_limit(int(C)) if C >= 2 else float("nan"))
    known = _measure(rows, f"{prefix}class_share_max").notna()
    return _measure(rows, f"{prefix}{measure}_limit").where(known, of_equal)


def _measure(rows: pd.DataFrame, column: str) -> "pd.Series[float]":
    """A column of numbers, missing where there is none."""
    missing = pd.Series(float("nan"), index=rows.index)
    return rows[column].astype(float) if column in rows else missing


def is_number(value: Any) -> bool:
    """Whether a cell is a number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def over_seeds(runs: pd.DataFrame, by: str, measure: str) -> pd.DataFrame:
    """Mean, standard deviation (divisor n - 1, 0 for one run) and number of runs at each value of ``by``."""
    table = runs.groupby(by)[measure].agg(["mean", "std", "count"]).sort_index()
    return table.assign(std=table["std"].fillna(0.0))


def last_rows(history: pd.DataFrame, folder: str) -> pd.DataFrame:
    """The final training rows of a run, a row a layer from the first to the last, with the column ``SPREAD``.

    Args:
        history: Table of :func:`ncflow.results.load_history`.
        folder: The run's folder.
    """
    rows = final_layers(with_measures(history[history["folder"] == folder]))
    return rows.assign(**{SPREAD: rows["intra_min"] - rows["inter_max"]})


def final_layers(history: pd.DataFrame, split: str = "train") -> pd.DataFrame:
    """The final rows of each run, a row a layer, with the column ``place``: 0, 1, ... in the network's order.

    Args:
        history: Table of :func:`ncflow.results.load_history`.
        split: ``train`` or ``test``.
    """
    rows = history[history["split"] == split]
    rows = rows[rows["epoch"] == rows.groupby("folder")["epoch"].transform("max")]
    # Layers are written in the order of the network; "last", the classifier's input, is the last of them.
    rows = pd.concat([rows[rows["layer"] != LAST_LAYER], rows[rows["layer"] == LAST_LAYER]])
    return rows.assign(place=rows.groupby("folder").cumcount())
