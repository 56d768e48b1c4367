"""Drawings as files of ours, and as pictures of a report."""

from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path

import pandas as pd

from ncflow.figures.files import Kind, refuse_foreign, render, write_own
from ncflow.figures.papers.drawing import Drawing
from ncflow.figures.papers.figures import FIGURES, choose, unknown
from ncflow.figures.report.pictures import Picture
from ncflow.results import describe, one_line


def plan(runs: pd.DataFrame, history: pd.DataFrame, names: list[str] | None, failed: list[str]) -> dict[str, Drawing]:
    """The drawings by the stems of their files; no two have the same.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        history: Table of :func:`ncflow.results.load_history`.
        names: Figures to draw from all runs; None draws those that the runs were made for.
        failed: Takes a line for each figure that could not be planned, so that one does not stop the others.
    """
    if names is None:
        rule = f"figures must be of {', '.join(FIGURES)}"
        failed += [f"not drawn: {rule}, found {one_line(name)} in these runs" for name in unknown(runs)]
    planned: dict[str, Drawing] = {}
    for name, recipe, suited in choose(runs, history, names):
        try:
            for drawing in recipe(suited, history):
                again = (f"{drawing.name}_{number}" for number in count(2))
                stem = next(stem for stem in chain([drawing.name], again) if stem not in planned)
                planned[stem] = drawing
        except Exception as error:
            failed.append(f"not drawn: {name}: {describe(error)}")
    return planned


def draw(
    planned: Mapping[str, Drawing],
    out: Path,
    formats: Sequence[str],
    kinds: Sequence[Kind],
    failed: list[str],
    others: Sequence[Path] = (),
) -> tuple[list[Path], list[Picture]]:
    """Draw figures; return the files written and a picture of each figure and kind asked for.

    Args:
        planned: Of :func:`plan`.
        out: Folder of the files.
        formats: Suffixes of the files of figures; animations are GIF.
        kinds: Kinds of the pictures to return; animations are GIF, once, where any is asked for.
        failed: Takes a line for each figure that could not be drawn, so that one does not stop the others.
        others: Files that are to be written later.

    Raises:
        OSError: If the folder cannot be written, or a file in it is not of ours.
    """
    import matplotlib.pyplot as plt

    from ncflow.figures import style

    style.use()
    refuse_foreign(
        [*others, *(out / f"{name}.{kind}" for name, drawing in planned.items() for kind in drawing.kinds(formats))]
    )
    out.mkdir(parents=True, exist_ok=True)
    written, pictures = [], []
    for name, drawing in planned.items():
        try:
            files = _files(drawing, formats)
            pictures += _pictures(name, drawing, files, kinds) if kinds else []
        except Exception as error:  # whatever matplotlib makes of runs of strangers
            failed.append(f"not drawn: {name}: {describe(error)}")
            continue
        finally:
            plt.close("all")
        for kind, content in files.items():
            write_own(out / f"{name}.{kind}", content)
            written.append(out / f"{name}.{kind}")
    return written, pictures


def _files(drawing: Drawing, formats: Sequence[str]) -> dict[str, bytes]:
    """The drawing as a file of each format; a GIF is a GIF."""
    if isinstance(drawing.content, bytes):
        return {"gif": drawing.content}
    return {kind: render(drawing.content, kind) for kind in formats}


def _pictures(name: str, drawing: Drawing, files: dict[str, bytes], kinds: Sequence[Kind]) -> list[Picture]:
    """The drawing as a picture of each kind; a GIF is one, of its own kind."""
    words = f"{name}: {drawing.caption}"
    if isinstance(drawing.content, bytes):
        return [Picture(name, drawing.caption, drawing.content, "gif", words)]
    figure = drawing.content
    return [Picture(name, drawing.caption, files.get(kind) or render(figure, kind), kind, words) for kind in kinds]
