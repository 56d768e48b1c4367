"""What the page's script works with: runs, histories, logs and commands as JSON, compressed."""

import base64
import shlex
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ncflow.figures.report.columns import (
    MEASURES,
    config_texts,
    distinguishing,
    json_in_parts,
    labels,
    measured,
    plain_values,
    shared_folder,
    varied,
)
from ncflow.figures.report.histories import thinned
from ncflow.figures.style import COLOURS
from ncflow.figures.tables import provenance_differences
from ncflow.results import Status
from ncflow.results.columns import PROVENANCE
from ncflow.results.records import log_tail, overrides_of

# Some errors list every weight of a model; the whole message is in the run's log.
_LONGEST_ERROR = 500
_LOG_LINES, _MOST_LOGS = 20, 500
_LEVEL = 6  # of compression; the highest takes twice the time for 1 %
_GZIP = 31  # how zlib calls that format
_MOST_MEASURES = 1_500_000  # numbers, about 10 bytes each


def compressed(data: dict[str, Any]) -> str:
    """JSON as the page holds it: compressed, in letters."""
    packed = zlib.compressobj(_LEVEL, wbits=_GZIP)
    parts = [packed.compress(text.encode()) for text in json_in_parts(data)]
    return base64.b64encode(b"".join([*parts, packed.flush()])).decode()


def data_of(runs: pd.DataFrame, history: pd.DataFrame, measured_in: Sequence[str] | None = None) -> dict[str, Any]:
    """Everything that the page's script knows.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`, a row or more.
        history: Table of :func:`ncflow.results.load_history`.
        measured_in: All measures of the histories, if the table lacks some of them.

    Returns:
        ``columns`` has each column's name, kind (``run``, ``config``, ``version`` or ``measure``) and a value a run, or
        one ``value`` where all have the same; ``by`` names the columns that tell runs apart, ``varied`` all that vary,
        ``short`` those of the table of runs. ``commands`` and ``logs`` have an entry a run.
    """
    runs = runs.rename(columns={"run": "run (option)"})  # the page calls the runs so
    folders = runs["folder"].tolist()
    texts = config_texts(runs)
    by, mixed = distinguishing(texts), list(provenance_differences(runs))
    measures, note = _measures(runs)
    kinds = {
        **dict.fromkeys(("run", "status", "seed", "run_id"), "run"),
        **dict.fromkeys(texts.columns, "config"),
        **{str(name): "version" for name in runs.columns if str(name).startswith(PROVENANCE)},
        **dict.fromkeys(measures, "measure"),
        "error": "run",
    }
    names = labels(folders)
    special = {"run": names, "error": [_shortened(error) for error in plain_values(runs, "error")]}
    columns = [_column(name, kind, special.get(name) or plain_values(runs, name)) for name, kind in kinds.items()]
    own = [name for name in ("error",) if any(special["error"])]
    return {
        "columns": columns,
        "by": by,
        "varied": [*varied(texts), *mixed],
        "short": ["run", "status", "seed", *by, *mixed, *(name for name in MEASURES if name in measures), *own],
        "history": vars(thinned(history, {folder: number for number, folder in enumerate(folders)}, measured_in)),
        "commands": [_command(Path(folder)) for folder in folders],
        "logs": _logs(runs),
        "colours": COLOURS,
        "note": note,
    }


def _measures(runs: pd.DataFrame) -> tuple[list[str], str]:
    """The final measures that the page holds, and what of them it does not, in words."""
    every = measured(runs)
    last = [name for name in every if name.count("/") < 2]
    if len(every) * len(runs) <= _MOST_MEASURES or len(last) == len(every):
        return every, ""
    return last, "Final measures of inner layers are left out here, as these are many runs; result.json has them."


def _column(name: str, kind: str, values: Sequence[Any]) -> dict[str, Any]:
    same = bool(values) and all(map(repr(values[0]).__eq__, map(repr, values)))
    return {"name": name, "kind": kind, **({"value": values[0]} if same else {"values": values})}


def _shortened(text: Any) -> Any:
    return f"{text[:_LONGEST_ERROR]} …" if isinstance(text, str) and len(text) > _LONGEST_ERROR else text


def _command(folder: Path) -> str | None:
    overrides = overrides_of(folder)
    return None if overrides is None else shlex.join(["ncflow", *overrides])


def _logs(runs: pd.DataFrame) -> list[str | None]:
    """The end of each run's log; of many runs, of those that did not finish. Folders and names of users are cut off."""
    wanted = pd.Series(True, index=runs.index)
    if len(runs) > _MOST_LOGS:
        wanted = runs["status"] != Status.DONE
        wanted &= wanted.cumsum() <= _MOST_LOGS
    hidden = {f"{shared_folder(runs['folder'].tolist())}/": "", str(Path.home()): "~"}
    found: list[str | None] = []
    for folder, is_wanted in zip(runs["folder"], wanted, strict=True):
        tail = log_tail(Path(folder), _LOG_LINES) if is_wanted else None
        for text, other in hidden.items():
            tail = tail and tail.replace(text, other)
        found.append(tail)
    return found
