"""The measures of a run, and the table that grows with each measurement."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ncflow.results.files import write_atomically

MEASURES = (
    "loss",
    "accuracy",
    "interpolated",
    "intra_min",
    "intra_mean",
    "intra_quantile",
    "inter_max",
    "inter_mean",
    "inter_quantile",
    "nc1",
    "nc1_trace_ratio",
    "cdnv",
    "nc1_rank",
    "nc2_equinorm_means",
    "nc2_equinorm_weights",
    "nc2_equiangular_means",
    "nc2_equiangular_weights",
    "nc2_etf_error",
    "nc3_cosine_min",
    "nc3_cosine_mean",
    "nc3_distance",
    "nc3_etf_error",
    "nc4_agreement",
    "ncc_accuracy",
    "feature_rms_norm",
    "weight_norm",
    "gamma_norm",
    "feature_rank",
    "classes_present",
    "nonfinite_samples",
    "regularized_loss",
    "loss_gap",
    "regularized_loss_gap",
    "margin_min",
    "margin_mean",
    "margin_std",
    "rho",
    "rho_folded",
    "normalized_margin_min",
    "normalized_margin_mean",
    "normalized_margin_std",
    "normalized_margin_square",
    "quasi_gap",
    "quasi_spread",
    "quasi_residual_means",
    "quasi_residual_norms",
)
COLUMNS = ("epoch", "split", "layer", *MEASURES)

# q000, q025, ..., q1000, named in thousandths: every 2.5 % from the smallest margin to the largest.
MARGIN_QUANTILES = tuple(f"q{thousandths:03d}" for thousandths in range(0, 1001, 25))
MARGIN_COLUMNS = ("epoch", "step", "rho", "samples", *MARGIN_QUANTILES)

LAST_LAYER = "last"  # the classifier's input, under ``layer``


class History:
    """The growing ``history.csv`` of a run, or another table that grows as it does.

    Args:
        path: The file; it is created with the first row.
        columns: Its columns.
        counter: The column of whole numbers by which a row is before or after a checkpoint.
    """

    def __init__(self, path: Path, columns: Sequence[str] = COLUMNS, counter: str = "epoch") -> None:
        self.path, self.columns, self.counter = path, columns, counter

    def restart_after(self, last: int | None) -> None:
        """Keep the rows up to an epoch, or another count, and drop later ones and a torn last line; None drops all.

        Kept values are rewritten letter by letter, under this version's columns.
        """
        if not self.path.exists():
            return
        lines = self.path.read_text().splitlines(keepends=True)
        if last is None or not lines:
            self.path.unlink()
            return
        header = lines[0].rstrip("\n").split(",")
        whole = [line for line in lines[1:] if line.endswith("\n") and line.count(",") == len(header) - 1]
        rows = [dict(zip(header, line.rstrip("\n").split(","), strict=True)) for line in whole]
        rows = [row for row in rows if int(row[self.counter]) <= last]
        kept = [",".join(row.get(column, "") for column in self.columns) for row in rows]
        write_atomically(self.path, "".join(f"{line}\n" for line in [",".join(self.columns), *kept]))

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; a measure that a row does not have is left empty. Floats keep every digit."""
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="", lineterminator="\n", extrasaction="raise")
            if new:
                writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())


def final_measures(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Measures of the final rows under the names of ``result.json``: ``train/intra_min``, ``train/<layer>/...``."""
    named: dict[str, float] = {}
    for row in rows:
        prefix = row["split"] if row["layer"] == LAST_LAYER else f"{row['split']}/{row['layer']}"
        named |= {f"{prefix}/{name}": row[name] for name in MEASURES if name in row}
    return named
