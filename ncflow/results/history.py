"""The measures of a run, and the table that grows with each measurement."""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ncflow.checks import require
from ncflow.results.files import DIGEST, write_atomically

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
    "intra_raw_min",
    "intra_raw_mean",
    "intra_raw_quantile",
    "inter_raw_max",
    "inter_raw_mean",
    "inter_raw_quantile",
    "nc0",
    "nc0_relative",
    "nc0_predicted",
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
    "inter_max_limit",
    "inter_mean_limit",
    "inter_quantile_limit",
    "inter_raw_max_limit",
    "class_share_min",
    "class_share_max",
    "margin_min",
    "margin_mean",
    "margin_std",
    "rho",
    "rho_folded",
    "normalized_margin_min",
    "normalized_margin_mean",
    "normalized_margin_std",
    "normalized_margin_square",
    "normalized_output_mean",
    "normalized_output_square",
    "rho_eq",
    "quasi_gap",
    "quasi_spread",
    "quasi_residual_means",
    "quasi_residual_norms",
    "classes_left_out",
    "samples_left_out",
)
COLUMNS = ("epoch", "split", "layer", *MEASURES)

GROUP_MEASURES: dict[str, tuple[str, ...]] = {
    "uniformity": ("gnc2_log_mean", "gnc2_log_cov", "gnc2_riesz_mean", "gnc2_riesz_cov"),
    "dual_uniformity": ("unc3_mean", "unc3_cov"),
    "ood": ("nc5_ood_cosine",),
    "few_shot": ("few_shot_cdnv",),
    "weight_alignment": ("weight_alignment",),
    "probe": ("probe_accuracy",),
}
"""What each group of measures adds, by its name in ``measure.groups``."""


def columns_with(groups: Iterable[str]) -> tuple[str, ...]:
    """The columns of ``history.csv`` of a run that measures some groups beside the usual."""
    return (*COLUMNS, *(name for group in GROUP_MEASURES if group in groups for name in GROUP_MEASURES[group]))


EVERY_COLUMN = columns_with(GROUP_MEASURES)

CLASS_COLUMNS = (
    *("epoch", "split", "layer", "class"),
    *("count", "intra", "variance", "mean_norm", "nc3_cosine", "accuracy"),
)
PAIR_COLUMNS = ("epoch", "split", "layer", "class", "other", "inter", "distance", "cdnv")

# q000, q025, ..., q1000, named in thousandths: every 2.5 % from the smallest margin to the largest.
MARGIN_QUANTILES = tuple(f"q{thousandths:03d}" for thousandths in range(0, 1001, 25))
MARGIN_COLUMNS = ("epoch", "step", "rho", "samples", *MARGIN_QUANTILES)

LAST_LAYER = "last"  # the classifier's input, under ``layer``


class History:
    """The growing ``history.csv`` of a run, or another table that grows as it does.

    A checkpoint holds the table's :attr:`mark`. What goes on from that checkpoint first goes back to the mark, so that
    no row is lost, doubled or of another run without notice. A table that an earlier version began without some of the
    columns goes on without them, so that all of its rows are alike.

    Args:
        path: The file; it is created with the first row.
        columns: Its columns.
        owned: Whether the file is ours whatever is in it; else a file that is no such table is never written over.
    """

    def __init__(self, path: Path, columns: Sequence[str] = COLUMNS, owned: bool = False) -> None:
        self.path, self.columns, self.owned = path, columns, owned
        self._begun = tuple(columns)
        self._size, self._digest = 0, hashlib.sha256()

    @property
    def mark(self) -> dict[str, Any]:
        """What tells whether a file begins with this table: its length in bytes and its SHA-256."""
        return {"bytes": self._size, "sha256": self._digest.hexdigest()}

    def agrees(self, mark: Mapping[str, Any] | None) -> bool:
        """Whether the file begins with the table that had a mark, under columns of this version."""
        return self._until(mark) is not None

    def go_back(self, mark: Mapping[str, Any] | None) -> None:
        """Drop what came after a mark.

        Raises:
            ArgumentError: If the file does not begin with the table that had the mark.
        """
        content = self._until(mark)
        rule = "the file, as it was, with which the checkpoint was saved"
        require(content is not None, "history", rule, str(self.path))
        assert content is not None
        if self.path.stat().st_size > len(content):
            os.truncate(self.path, len(content))
        self._begun = self._columns_of(content)
        self._size, self._digest = len(content), hashlib.sha256(content)

    def start(self) -> None:
        """Begin anew with an empty table.

        Raises:
            ArgumentError: If the file is there and is no such table.
        """
        rule = "a new file or an earlier table of the same kind"
        require(self.owned or self._is_table(), "history", rule, str(self.path))
        header = ",".join(self.columns) + "\n"
        write_atomically(self.path, header)
        self._begun = tuple(self.columns)
        self._size, self._digest = len(header), hashlib.sha256(header.encode())

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; a measure that a row does not have is left empty. Floats keep every digit.

        Raises:
            ValueError: If a row has what is no column.
            OSError: If the file cannot be written, or was changed since the last row.
        """
        if self._size == 0:
            self.start()
        later = {*self.columns} - {*self._begun}
        text = io.StringIO()
        writer = csv.DictWriter(text, self._begun, restval="", lineterminator="\n", extrasaction="raise")
        writer.writerows({name: value for name, value in row.items() if name not in later} for row in rows)
        content = text.getvalue().encode()
        with self.path.open("r+b") as file:
            if file.seek(0, os.SEEK_END) != self._size:
                raise self._changed()
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._size += len(content)
        self._digest.update(content)

    def check(self) -> None:
        """Make sure that the file is what was written.

        Raises:
            OSError: If it is not.
        """
        if self._size and not (self.agrees(self.mark) and self.path.stat().st_size == self._size):
            raise self._changed()

    def digest(self) -> dict[str, str]:
        """What ``result.json`` says of the file, by which it can be told later whether it is whole.

        Raises:
            OSError: If it is not what was written.
        """
        self.check()
        return {f"{DIGEST}{self.path.name}": self._digest.hexdigest()} if self._size else {}

    def _changed(self) -> OSError:
        return OSError(f"somebody else changed {self.path} while the run wrote it")

    def _until(self, mark: Mapping[str, Any] | None) -> bytes | None:
        """What the file begins with, if that has the mark and is such a table."""
        if mark is None or not self.path.is_file():
            return None
        with self.path.open("rb") as file:
            content = file.read(mark["bytes"])
        whole = self._columns_of(content) and hashlib.sha256(content).hexdigest() == mark["sha256"]
        return content if whole else None

    def _columns_of(self, content: bytes) -> tuple[str, ...]:
        """The columns of such a table, some of ours in our order; none if it is no such table."""
        names = content.partition(b"\n")[0].decode(errors="replace").split(",")
        ours = [name for name in self.columns if name in names]
        return tuple(names) if names == ours and names[:3] == [*self.columns[:3]] else ()

    def _is_table(self) -> bool:
        """Whether there is nothing to lose: no file, an empty one, or a table with the same first columns."""
        if not self.path.is_file():
            return not self.path.exists()
        with self.path.open("rb") as file:
            begin = file.readline(10_000).decode(errors="replace").rstrip("\n").split(",")
        return begin == [""] or begin[:3] == list(self.columns[:3])


def final_measures(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Measures of the final rows under the names of ``result.json``: ``train/intra_min``, ``train/<layer>/...``."""
    named: dict[str, float] = {}
    for row in rows:
        prefix = row["split"] if row["layer"] == LAST_LAYER else f"{row['split']}/{row['layer']}"
        named |= {f"{prefix}/{name}": row[name] for name in EVERY_COLUMN[3:] if name in row}
    return named
