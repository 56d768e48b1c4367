"""Figures, the table of runs and the verdicts as a W&B run beside the runs that they are of."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from ncflow.figures.papers.as_words import numbers
from ncflow.figures.papers.verdict import Verdict
from ncflow.figures.report.columns import MEASURES
from ncflow.figures.report.pictures import Picture
from ncflow.figures.varied import panel_keys
from ncflow.results import read_json
from ncflow.runtime.environment import load_environment
from ncflow.runtime.wandb_runs import IDENTITY, identity_of, mode_of_process
from ncflow.runtime.wandb_server import import_wandb

# What varies inside a panel of a figure, and so is not among its keys.
_AXES = ("model.norm", "model.norm_bias", "model.affine", "weight_decay", "seed")
_LONGEST_GROUP = 128
# W&B waits for its server without end otherwise; what is not sent by then stays in the folder for `wandb sync`.
_START_SECONDS, _FINISH_SECONDS = 20.0, 60.0


def upload(out: Path, runs: pd.DataFrame, verdicts: Sequence[Verdict], pictures: Sequence[Picture]) -> str:
    """Log everything to a W&B run in the group of the experiment; the same folder always gives the same W&B run.

    Args:
        out: Folder of the figures; it keeps the run's id, and W&B writes into its ``wandb/``.
        runs: Table of :func:`ncflow.results.load_runs`, a row or more.
        verdicts: What became of each claim.
        pictures: PNG or GIF.

    Returns:
        Where the run is, in one line.

    Raises:
        OSError: If another file is in the place of the run's id.
    """
    load_environment()
    _refuse_foreign_identity(out / IDENTITY)
    run = _start(out, ", ".join(sorted(set(_values(runs, "experiment")) - {None})))
    with run:
        run.log(
            {
                **{f"figures/{picture.name}": _media(picture) for picture in pictures},
                "runs": _table(table_of_runs(runs)),
                "verdicts": _table(table_of_verdicts(verdicts)),
            }
        )
    if run.offline:
        folder = Path(run.dir).parent
        return f"offline in {folder}; `wandb sync {folder}` sends it"
    return run.url or "disabled by WANDB_MODE"


def _refuse_foreign_identity(path: Path) -> None:
    if os.path.lexists(path) and not isinstance((read_json(path) or {}).get("id"), str):
        raise FileExistsError(f"{path} exists and was not written by ncflow: move it, or choose another --out")


def _start(out: Path, group: str) -> Any:
    wandb = import_wandb()
    identity, resumed = identity_of(out)
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT") or "ncflow",
        entity=os.environ.get("WANDB_ENTITY") or None,
        id=identity,
        name="figures",
        group=group[:_LONGEST_GROUP] or None,
        job_type="figures",
        dir=str(out),
        mode=cast(Any, mode_of_process()),
        resume="allow" if resumed else None,
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            console="off",
            init_timeout=_START_SECONDS,
            finish_timeout=_FINISH_SECONDS,
            finish_timeout_raises=True,
        ),
    )


def table_of_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Name, what differs between the runs' configs, main measures and status; a measure that no run has is left out.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
    """
    described = runs[runs["run_id"].notna()] if "run_id" in runs else runs  # a broken run has no config to differ in
    axes = [name for name in _AXES if name in runs and described[name].map(repr).nunique() > 1]
    measures = [name for name in MEASURES if name in runs and runs[name].notna().any()]
    columns = ["name", *axes, *panel_keys(described), *measures, "status"]
    return pd.DataFrame({name: pd.Series(_values(runs, name), dtype=object) for name in columns})


def table_of_verdicts(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Claim, answer and numbers of each verdict."""
    rows = [(verdict.claim, verdict.answer, "\n".join(numbers(verdict))) for verdict in verdicts]
    return pd.DataFrame(rows, columns=["claim", "answer", "numbers"], dtype=object)


def _values(runs: pd.DataFrame, column: str) -> list[Any]:
    """A value a run that a W&B table can hold, None if it has none."""
    values = runs[column].tolist() if column in runs else [None] * len(runs)
    return [
        None if isinstance(value, float) and pd.isna(value) else str(value) if isinstance(value, list | dict) else value
        for value in values
    ]


def _table(frame: pd.DataFrame) -> Any:
    return import_wandb().Table(dataframe=frame, allow_mixed_types=True)


def _media(picture: Picture) -> Any:
    from PIL import Image

    wandb = import_wandb()
    if picture.kind == "gif":
        return wandb.Video(io.BytesIO(picture.content), caption=picture.caption, format="gif")
    return wandb.Image(Image.open(io.BytesIO(picture.content)), caption=picture.caption)
