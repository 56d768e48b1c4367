"""What a run leaves on disk: its files, its folder, its history, and a whole sweep as one table.

Nothing heavy is imported before a table or a snapshot is asked for.
"""

from ncflow.results.files import (
    CHECKPOINT,
    HISTORY,
    JOB,
    LOCK,
    LOG,
    MARGINS,
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
    run_folders,
    status_of,
    stored,
)
from ncflow.results.history import (
    COLUMNS,
    LAST_LAYER,
    MARGIN_COLUMNS,
    MARGIN_QUANTILES,
    MEASURES,
    History,
    final_measures,
)
from ncflow.results.readable import describe, one_line, why_no_file
from ncflow.results.report import FINAL, Report, Status
from ncflow.results.snapshots import Snapshot, load_snapshots, snapshot_epoch
from ncflow.results.tables import load_history, load_margins, load_runs

__all__ = [
    "CHECKPOINT",
    "COLUMNS",
    "FINAL",
    "HISTORY",
    "JOB",
    "LAST_LAYER",
    "LOCK",
    "LOG",
    "MARGINS",
    "MARGIN_COLUMNS",
    "MARGIN_QUANTILES",
    "MEASURES",
    "PROGRESS",
    "RESULT",
    "RUN",
    "SNAPSHOTS",
    "History",
    "Report",
    "RunFolder",
    "Snapshot",
    "Status",
    "describe",
    "final_measures",
    "is_final",
    "is_locked",
    "load_history",
    "load_margins",
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
