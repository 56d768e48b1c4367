"""What a run leaves on disk: its files, its folder, its history, and a whole sweep as one table.

Nothing heavy is imported before a table or a snapshot is asked for.
"""

from ncflow.results.files import (
    CHECKPOINT,
    CLASSES,
    HISTORY,
    JOB,
    LOCK,
    LOG,
    MARGINS,
    PAIRS,
    PROGRESS,
    RESULT,
    RUN,
    SNAPSHOTS,
    read_json,
    write_atomically,
    write_json,
)
from ncflow.results.folder import (
    RunFolder,
    is_final,
    is_locked,
    lock,
    status_of,
)
from ncflow.results.history import (
    CLASS_COLUMNS,
    COLUMNS,
    EVERY_COLUMN,
    GROUP_MEASURES,
    LAST_LAYER,
    MARGIN_COLUMNS,
    MARGIN_QUANTILES,
    MEASURES,
    PAIR_COLUMNS,
    History,
    columns_with,
    final_measures,
)
from ncflow.results.readable import describe, one_line, why_no_file
from ncflow.results.report import FINAL, Report, Status
from ncflow.results.snapshots import Snapshot, load_snapshots, snapshot_epoch
from ncflow.results.store import run_folders, stored
from ncflow.results.tables import load_classes, load_history, load_margins, load_pairs, load_runs

__all__ = [
    "CHECKPOINT",
    "CLASSES",
    "CLASS_COLUMNS",
    "COLUMNS",
    "EVERY_COLUMN",
    "FINAL",
    "GROUP_MEASURES",
    "HISTORY",
    "JOB",
    "LAST_LAYER",
    "LOCK",
    "LOG",
    "MARGINS",
    "MARGIN_COLUMNS",
    "MARGIN_QUANTILES",
    "MEASURES",
    "PAIRS",
    "PAIR_COLUMNS",
    "PROGRESS",
    "RESULT",
    "RUN",
    "SNAPSHOTS",
    "History",
    "Report",
    "RunFolder",
    "Snapshot",
    "Status",
    "columns_with",
    "describe",
    "final_measures",
    "is_final",
    "is_locked",
    "load_classes",
    "load_history",
    "load_margins",
    "load_pairs",
    "load_runs",
    "load_snapshots",
    "lock",
    "one_line",
    "read_json",
    "run_folders",
    "snapshot_epoch",
    "status_of",
    "stored",
    "why_no_file",
    "write_atomically",
    "write_json",
]
