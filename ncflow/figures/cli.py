"""``ncflow-figures DIR ...``: figures and verdicts from the runs below some folders."""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from ncflow.results import DONE, load_history, load_runs, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ncflow.figures.claims.verdict import Verdict
    from ncflow.figures.recipes.drawing import Drawing
    from ncflow.figures.report import Picture

FORMATS = ("png", "pdf", "svg")
Kind = Literal["svg", "png"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``ncflow-figures``."""
    parsed = _parse(arguments)
    kinds: list[Kind] = ["svg"] if parsed.html else []
    if parsed.wandb:
        kinds.append("png")
    try:
        runs, history = load_runs(*parsed.folders), load_history(*parsed.folders)
        if runs.empty:
            raise FileNotFoundError(f"no runs below {', '.join(parsed.folders)}")
        print(summary(runs))
        out = parsed.out or Path(parsed.folders[0]) / "figures"
        from ncflow.figures.claims import judge

        found = judge(runs, history)
        written, pictures = draw(runs, history, out, parsed.figure, parsed.format or ["png"], kinds)
        print("\n".join(str(verdict) for verdict in found))
        if parsed.html:
            from ncflow.figures.report import write_report

            title = ", ".join(Path(folder).resolve().name for folder in parsed.folders)
            shown = [picture for picture in pictures if picture.kind != "png"]
            write_report(out / "report.html", runs, found, shown, title)
            written.append(out / "report.html")
    except OSError as error:
        print(f"ncflow-figures: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    for path in written:
        print(path)
    if parsed.wandb:
        _upload(out, runs, found, [picture for picture in pictures if picture.kind != "svg"])
    if not written:
        print("no figure: these runs vary neither weight decay nor gamma, and have no history", file=sys.stderr)
        raise SystemExit(1)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    from ncflow.figures.recipes import FIGURES

    parser = argparse.ArgumentParser(prog="ncflow-figures", description="Draw the figures that these runs allow.")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder with runs at any depth")
    parser.add_argument(
        "--figure", choices=list(FIGURES), action="append", help="this figure, from all the runs; repeatable"
    )
    parser.add_argument("--format", choices=FORMATS, action="append", help="file format, png by default; repeatable")
    parser.add_argument("--html", action="store_true", help="also write report.html: figures, verdicts, table of runs")
    parser.add_argument("--wandb", action="store_true", help="also log figures, verdicts and table of runs to W&B")
    parser.add_argument("--out", type=Path, help="where the files go; DIR/figures by default")
    return parser.parse_args(arguments)


def summary(runs: pd.DataFrame) -> str:
    """How many runs there are of each status, and which did not finish."""
    counts = runs["status"].value_counts()
    lines = [f"{len(runs)} runs: " + ", ".join(f"{count} {status}" for status, count in counts.items())]
    for _, run in runs[runs["status"] != DONE].iterrows():
        reason = run.get("error")
        lines.append(f"  {run['status']}: {run['folder']}" + (f": {reason}" if isinstance(reason, str) else ""))
    return "\n".join(lines)


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    out: Path,
    names: list[str] | None,
    formats: Sequence[str],
    kinds: Sequence[Kind] = (),
) -> "tuple[list[Path], list[Picture]]":
    """Draw figures; return the files written and a picture of each figure and kind asked for.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        history: Table of :func:`ncflow.results.load_history`.
        out: Folder of the files.
        names: Figures to draw from all runs; None draws those that the runs were made for.
        formats: Suffixes of the files of figures; animations are GIF.
        kinds: Kinds of the pictures to return; animations are GIF, once, where any is asked for.

    Raises:
        OSError: If the folder cannot be written.
    """
    import matplotlib.pyplot as plt

    from ncflow.figures import style
    from ncflow.figures.recipes import drawings

    style.use()
    out.mkdir(parents=True, exist_ok=True)
    written, pictures = [], []
    for drawing in drawings(runs, history, names):
        files = _files(drawing, formats)
        for kind, content in files.items():
            write_atomically(out / f"{drawing.name}.{kind}", content)
            written.append(out / f"{drawing.name}.{kind}")
        if kinds:
            pictures += _pictures(drawing, files, kinds)
        plt.close("all")
    return written, pictures


def _files(drawing: "Drawing", formats: Sequence[str]) -> dict[str, bytes]:
    """The drawing as a file of each format; a GIF is a GIF."""
    if isinstance(drawing.content, bytes):
        return {"gif": drawing.content}
    return {kind: render(drawing.content, kind) for kind in formats}


def _pictures(drawing: "Drawing", files: dict[str, bytes], kinds: Sequence[Kind]) -> "list[Picture]":
    """The drawing as a picture of each kind; a GIF is one, of its own kind."""
    from ncflow.figures.report import Picture

    words = f"{drawing.name}: {drawing.caption}"
    if isinstance(drawing.content, bytes):
        return [Picture(drawing.name, drawing.caption, drawing.content, "gif", words)]
    figure = drawing.content
    return [
        Picture(drawing.name, drawing.caption, files.get(kind) or render(figure, kind), kind, words) for kind in kinds
    ]


def _upload(out: Path, runs: pd.DataFrame, verdicts: "Sequence[Verdict]", pictures: "Sequence[Picture]") -> None:
    """Log to W&B and say where; whatever fails there is one line, as the figures are drawn already."""
    try:
        from ncflow.figures.upload import upload

        print(f"W&B: {upload(out, runs, verdicts, pictures)}")
    except Exception as error:  # W&B's errors share no class
        print(f"ncflow-figures: W&B: {' '.join(f'{type(error).__name__}: {error}'.split())}", file=sys.stderr)


def render(figure: "Figure", kind: str) -> bytes:
    """Bytes of a figure as a file of a kind; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    without_date = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.savefig(buffer, format=kind, metadata=without_date[kind])
    return buffer.getvalue()
