"""A question of one's own about runs, on the command line of ``ncflow-figures``."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from ncflow.figures.told import summary
from ncflow.results import Status, load_history

FORMS = ("csv", "latex", "text")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a question."""
    own = parser.add_argument_group("a question of your own, in place of the figures and verdicts of the papers")
    own.add_argument("--x", metavar="COLUMN", help="any column of load_runs, epoch or step; its end is enough (lr)")
    own.add_argument("--y", metavar="COLUMN", action="append", help="of numbers (train/intra_min); repeatable")
    own.add_argument("--hue", metavar="COLUMN", help="a colour for each of its values")
    own.add_argument("--panel", metavar="COLUMN", action="append", default=[], help="a panel for each; repeatable")
    own.add_argument("--where", metavar="COLUMN=VALUE,...", action="append", default=[], help="only these; repeatable")
    own.add_argument("--compare", action="store_true", help="of two folders A, B: each measure y in A, in B, and B - A")
    own.add_argument("--table", choices=FORMS, help="print a table (mean, sd over seeds) on stdout instead")


def check(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """End with a line where the options are no question."""
    if parsed.x is not None and not parsed.y:
        parser.error("--y must be given with --x")
    if parsed.x is None and not parsed.compare and (parsed.y or parsed.hue or parsed.panel or parsed.table):
        parser.error("--x must be given with --y, --hue, --panel and --table")
    if parsed.x is None and not parsed.compare and parsed.where:
        parser.error("--where must be given with --x or --compare")
    if parsed.compare and (parsed.x or parsed.hue or parsed.panel or len(parsed.folders) != 2):
        parser.error(f"--compare takes two folders, --y, --where and --table, found {len(parsed.folders)} folders")


def is_asked(parsed: argparse.Namespace) -> bool:
    """Whether there is a question."""
    return parsed.x is not None or parsed.compare


def answer(parsed: argparse.Namespace, runs_below: Callable[..., tuple[pd.DataFrame, int]], failed: list[str]) -> None:
    """Answer a question: a figure, or a table on stdout.

    Args:
        parsed: Of the command line.
        runs_below: The runs below some folders, each once, and how many there are twice.
        failed: Takes a line for a figure that could not be drawn.

    Raises:
        OSError: If something cannot be read or written.
        ArgumentError: If there is no such column, or runs of one point differ in more than their seed.
    """
    from ncflow.figures import asked
    from ncflow.figures.compared import USUAL, compare
    from ncflow.figures.written import table_of_differences, table_of_points

    if parsed.compare:
        one, other = (asked.where(_told(runs_below(folder)[0]), parsed.where) for folder in parsed.folders)
        every = pd.concat([one, other], ignore_index=True)
        asked_for = [asked.column_named("y", name, every) for name in parsed.y or []]
        lines, table = compare(one, other, asked_for or [name for name in USUAL if name in every])
        for line in lines:
            print(line, file=sys.stderr)
        print(table_of_differences(table, parsed.table or "text"), end="")
        return
    runs = asked.where(_told(runs_below(*parsed.folders)[0]), parsed.where)
    question = asked.understood(asked.Question(parsed.x, tuple(parsed.y), parsed.hue, tuple(parsed.panel)), runs)
    history = load_history(*runs["folder"]) if question.x in asked.OVER_TRAINING else pd.DataFrame()
    points = asked.points(question, runs, history)
    if parsed.table:
        print(table_of_points(question, points, parsed.table), end="")
        return
    from ncflow.figures.papers.drawing import Drawing, heading
    from ncflow.figures.plots.asked import asked as picture
    from ncflow.figures.report.drawn import draw

    of = heading(runs[runs["status"] == Status.DONE])
    planned = {asked.stem(question): Drawing(asked.stem(question), partial(picture, question, points), "", heading=of)}
    out = parsed.out or Path(parsed.folders[0]) / "figures"
    written, _ = draw(planned, out, parsed.format or ["png"], (), failed)
    for path in written:
        print(path)


def _told(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs; how they ended is said on stderr."""
    print(summary(runs), file=sys.stderr)
    return runs
