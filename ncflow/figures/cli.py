"""``ncflow-figures DIR ...``: figures and verdicts from the runs below some folders."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ncflow.results import DONE, load_history, load_runs

FORMATS = ("png", "pdf", "svg")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``ncflow-figures``."""
    from ncflow.figures.recipes import FIGURES

    parser = argparse.ArgumentParser(prog="ncflow-figures", description="Draw the figures that these runs allow.")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder with runs at any depth")
    parser.add_argument("--figure", choices=sorted(FIGURES), action="append", help="only this figure; repeatable")
    parser.add_argument("--format", choices=FORMATS, action="append", help="file format, png by default; repeatable")
    parser.add_argument("--out", type=Path, help="where the files go; DIR/figures by default")
    parsed = parser.parse_args(arguments)
    try:
        runs, history = load_runs(*parsed.folders), load_history(*parsed.folders)
        if runs.empty:
            raise FileNotFoundError(f"no runs below {', '.join(parsed.folders)}")
        print(summary(runs))
        out = parsed.out or Path(parsed.folders[0]) / "figures"
        written = draw(runs, history, out, parsed.figure or list(FIGURES), parsed.format or ["png"])
    except OSError as error:
        print(f"ncflow-figures: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(verdicts(runs, history))
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
    runs: pd.DataFrame, history: pd.DataFrame, out: Path, names: Sequence[str], formats: Sequence[str]
) -> list[Path]:
    """Draw figures by name and return the files written.

    Raises:
        OSError: If the folder cannot be written.
    """
    import matplotlib.pyplot as plt

    from ncflow.figures import style
    from ncflow.figures.recipes import FIGURES

    style.use()
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        for stem, figure in FIGURES[name](runs, history):
            for suffix in formats:
                path = out / f"{stem}.{suffix}"
                figure.savefig(path)
                written.append(path)
            plt.close(figure)
    return written


def verdicts(runs: pd.DataFrame, history: pd.DataFrame) -> str:
    """The verdict on each claim."""
    from ncflow.figures.claims import CLAIMS

    return "\n".join(str(claim(runs, history)) for claim in CLAIMS)
