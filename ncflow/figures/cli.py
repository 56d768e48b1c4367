"""``ncflow-figures DIR ...``: figures and verdicts from the runs below some folders."""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ncflow.results import DONE, load_history, load_runs, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ncflow.figures.recipes.drawing import Drawing
    from ncflow.figures.report import Picture

FORMATS = ("png", "pdf", "svg")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``ncflow-figures``."""
    from ncflow.figures.recipes import FIGURES

    parser = argparse.ArgumentParser(prog="ncflow-figures", description="Draw the figures that these runs allow.")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder with runs at any depth")
    parser.add_argument(
        "--figure", choices=list(FIGURES), action="append", help="this figure, from all the runs; repeatable"
    )
    parser.add_argument("--format", choices=FORMATS, action="append", help="file format, png by default; repeatable")
    parser.add_argument("--html", action="store_true", help="also write report.html: figures, verdicts, table of runs")
    parser.add_argument("--out", type=Path, help="where the files go; DIR/figures by default")
    parsed = parser.parse_args(arguments)
    try:
        runs, history = load_runs(*parsed.folders), load_history(*parsed.folders)
        if runs.empty:
            raise FileNotFoundError(f"no runs below {', '.join(parsed.folders)}")
        print(summary(runs))
        out = parsed.out or Path(parsed.folders[0]) / "figures"
        from ncflow.figures.claims import judge

        found = judge(runs, history)
        written, pictures = draw(runs, history, out, parsed.figure, parsed.format or ["png"], parsed.html)
        print("\n".join(str(verdict) for verdict in found))
        if parsed.html:
            from ncflow.figures.report import write_report

            title = ", ".join(Path(folder).resolve().name for folder in parsed.folders)
            write_report(out / "report.html", runs, found, pictures, title)
            written.append(out / "report.html")
    except OSError as error:
        print(f"ncflow-figures: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    for path in written:
        print(path)
    if not written:
        print("no figure: these runs vary neither weight decay nor gamma, and have no history", file=sys.stderr)
        raise SystemExit(1)


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
    for_page: bool = False,
) -> "tuple[list[Path], list[Picture]]":
    """Draw figures; return the files written and, where a page is to follow, the pictures for it.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        history: Table of :func:`ncflow.results.load_history`.
        out: Folder of the files.
        names: Figures to draw from all runs; None draws those that the runs were made for.
        formats: Suffixes of the files of figures; animations are GIF.
        for_page: Whether to return pictures.

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
        if for_page:
            pictures.append(_picture(drawing, files))
        plt.close("all")
    return written, pictures


def _files(drawing: "Drawing", formats: Sequence[str]) -> dict[str, bytes]:
    """The drawing as a file of each format; a GIF is a GIF."""
    if isinstance(drawing.content, bytes):
        return {"gif": drawing.content}
    return {kind: render(drawing.content, kind) for kind in formats}


def _picture(drawing: "Drawing", files: dict[str, bytes]) -> "Picture":
    from ncflow.figures.report import Picture

    words = f"{drawing.name}: {drawing.caption}"
    if isinstance(drawing.content, bytes):
        return Picture(drawing.name, drawing.caption, drawing.content, "gif", words)
    return Picture(drawing.name, drawing.caption, files.get("svg") or render(drawing.content, "svg"), "svg", words)


def render(figure: "Figure", kind: str) -> bytes:
    """Bytes of a figure as a file of a kind; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    without_date = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.savefig(buffer, format=kind, metadata=without_date[kind])
    return buffer.getvalue()
