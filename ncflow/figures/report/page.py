"""One self-contained HTML page: verdicts, figures, and the runs with their configuration, seeds and versions."""

import base64
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from jinja2 import Environment, StrictUndefined

from ncflow.figures.papers.as_words import numbers
from ncflow.figures.papers.verdict import Answer, Verdict
from ncflow.figures.tables import PROVENANCE, is_number, provenance_differences
from ncflow.results import write_atomically

MEASURES = (
    "train/accuracy",
    "train/loss",
    "train/intra_min",
    "train/inter_max",
    "train/nc1",
    "train/nc3_cosine_min",
    "train/regularized_loss_gap",
    "test/accuracy",
    "seconds",
)
# Neither configuration nor a measure. Where runs lie is left out: a page that is handed on names no one's folders.
_NOT_CONFIG = (
    *("seed", "run_id", "name", "runs_dir", "figures"),
    *("folder", "status", "error", "seconds", "steps_per_second", "checkpoint.keep_every_n_epochs"),
)
_SIGNS = {
    Answer.SUPPORTED: ("yes", "✓"),
    Answer.CONTRADICTED: ("no", "✗"),
    Answer.NO_EFFECT: ("no", "="),
    Answer.UNDECIDED: ("open", "?"),
    Answer.NOT_ENOUGH: ("open", "…"),
}
_MEDIA = {"svg": "image/svg+xml", "png": "image/png", "gif": "image/gif"}

# Some errors list every weight of a model; the whole message is in the run's log.
_LONGEST = 500


@dataclass(frozen=True)
class Picture:
    """A drawn figure: its file's bytes, one sentence below it, and words for readers who do not see it."""

    name: str
    caption: str
    content: bytes
    kind: Literal["svg", "png", "gif"]
    alt: str

    @property
    def is_wide(self) -> bool:
        """Whether a phone shows it readably only when it scrolls; animations are small."""
        return self.kind != "gif"

    @property
    def uri(self) -> str:
        """Address that holds the picture itself; unlike in inlined SVG, ids cannot clash and scripts cannot run."""
        return f"data:{_MEDIA[self.kind]};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Column:
    """A column of the table of runs.

    Args:
        name: Its header.
        numeric: Whether all its values are numbers.
        cells: (text, sort key) a run: of a number all digits, of a missing value nothing, of other text None.
    """

    name: str
    numeric: bool
    cells: list[tuple[str, str | None]]


def write_report(
    path: Path, runs: pd.DataFrame, verdicts: Sequence[Verdict], figures: Sequence[Picture], title: str
) -> None:
    """Write the page; the same runs and figures give the same bytes, wherever the runs lie.

    Args:
        path: The file.
        runs: Table of :func:`ncflow.results.load_runs`, a row or more.
        verdicts: What became of each claim.
        figures: In the order of the page.
        title: Heading of the page.

    Raises:
        OSError: If the file cannot be written.
    """
    source = resources.files("ncflow.figures.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    # Folders of runs may come from anyone: whatever is in them is text, never markup.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    texts = _config_texts(runs)
    described = {name: _counted(texts[name]) for name in texts.columns}
    mixed = list(provenance_differences(runs))
    columns = _columns(runs, [*_distinguishing(texts), *mixed])
    versions = _versions(runs)
    page = environment.from_string(source).render(
        title=title,
        statuses=Counter(runs["status"]).most_common(),
        verdicts=verdicts,
        numbers=numbers,
        signs=_SIGNS,
        figures=figures,
        columns=columns,
        rows=list(zip(*(column.cells for column in columns), strict=True)),
        common={name: counts[0][0] for name, counts in described.items() if len(counts) == 1},
        varied={name: counts for name, counts in described.items() if len(counts) > 1},
        seeds=_counted(_present(runs, "seed")),
        versions=versions,
        mixed=[_without_prefix(name) for name in mixed],
    )
    # JSON can carry half a surrogate pair, which UTF-8 cannot.
    write_atomically(path, page.encode(errors="replace"))


def _values(runs: pd.DataFrame, column: str) -> list[Any]:
    """A value a run, None if it has none."""
    values = runs[column].tolist() if column in runs else [None] * len(runs)
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


def _present(runs: pd.DataFrame, column: str) -> list[str]:
    return [_text(value) for value in _values(runs, column) if value is not None]


def _text(value: Any, digits: int | None = None) -> str:
    """A value in words: a float with all its digits or with so many, an integer that pandas made a float as it was."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, float) and digits is not None:
        return f"{value:.{digits}g}"
    return str(value)


def _counted(texts: Iterable[str]) -> list[tuple[str, int]]:
    """(value, number of runs) of each value: numbers by size, then words, then what is not set."""

    def order(item: tuple[str, int]) -> tuple[bool, float, str]:
        try:
            return False, float(item[0]), item[0]
        except ValueError:
            return item[0] == _text(None), math.inf, item[0]

    return sorted(Counter(texts).items(), key=order)


def _config_texts(runs: pd.DataFrame) -> pd.DataFrame:
    """The configuration in words, of the runs that recorded one."""
    names = [column for column in runs.columns if "/" not in column and column not in _NOT_CONFIG]
    recorded = runs[runs[names].notna().any(axis=1)]
    return pd.DataFrame({name: [_text(value) for value in _values(recorded, name)] for name in names})


def _distinguishing(texts: pd.DataFrame) -> list[str]:
    """What tells runs apart; an option that only some data sets or models have adds nothing to their names."""
    varied = [name for name in texts.columns if texts[name].nunique() > 1]
    names = [name for name in varied if name.endswith(".name")]
    if not names:
        return varied
    within = texts.groupby(names)[varied].nunique().max()
    return [name for name in varied if name in names or within[name] > 1]


def _columns(runs: pd.DataFrame, config: Sequence[str]) -> list[Column]:
    measures = [_column(name, _values(runs, name), digits=5) for name in MEASURES]
    errors = [value if value is None else _shortened(str(value)) for value in _values(runs, "error")]
    optional = [*measures, _column("error", errors)]
    return [
        _column("run", _labels(runs["folder"])),
        *(_column(name, _values(runs, name)) for name in ("status", "seed", *config)),
        *(column for column in optional if any(key != "" for _, key in column.cells)),
    ]


def _column(name: str, values: Sequence[Any], digits: int | None = None) -> Column:
    numeric = all(is_number(value) for value in values if value is not None)
    cells = [
        ("—", "") if value is None else (_text(value, digits), json.dumps(value) if numeric else None)
        for value in values
    ]
    return Column(name, numeric, cells)


def _labels(folders: Iterable[str]) -> list[str]:
    """Folders of the runs below the folder that they share."""
    paths = [Path(folder).absolute() for folder in folders]
    shared = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(shared).as_posix() for path in paths]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _versions(runs: pd.DataFrame) -> dict[str, list[tuple[str, int]]]:
    """(value, number of runs) of code, packages and machine, over the runs that recorded it."""
    columns = [column for column in runs.columns if column.startswith(PROVENANCE)]
    counted = {_without_prefix(column): _counted(_present(runs, column)) for column in columns}
    return {name: counts for name, counts in counted.items() if counts}


def _without_prefix(column: str) -> str:
    """The commit of a package is called so, beside its version."""
    kind, _, name = column.partition("/")
    return f"{name} (code)" if kind == "code" else name
