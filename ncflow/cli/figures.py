"""``ncflow-figures DIR ...``: figures and verdicts from the runs below some folders."""

import argparse
import gc
import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import date
from errno import EADDRINUSE
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ncflow.checks import ArgumentError, error_line
from ncflow.cli import questions
from ncflow.figures.files import FORMATS, Kind, write_own
from ncflow.figures.report import vega
from ncflow.figures.tables import once
from ncflow.figures.told import differences, summary
from ncflow.results import Status, load_runs
from ncflow.results.report import counted, wrapped

if TYPE_CHECKING:
    from ncflow.figures.papers.verdict import Verdict
    from ncflow.figures.report.pictures import Picture

VERDICTS = "verdicts.json"
_PORT = 8765
_VALUES_BETWEEN = 100_000


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``ncflow-figures``."""
    parsed = _parse(arguments)
    if parsed.serve is not None:
        _serve(parsed)
        return
    kinds: list[Kind] = ["svg"] if parsed.html else []
    if parsed.wandb:
        kinds.append("png")
    failed: list[str] = []
    has_drawn = True
    try:
        with _warnings_as_lines(), _seldom_collecting():
            if questions.is_asked(parsed):
                questions.answer(parsed, _runs_below, failed)
            else:
                has_drawn = bool(_draw_and_judge(parsed, kinds, failed)[0])
    except (OSError, ArgumentError) as error:
        print(f"ncflow-figures: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    for line in [*failed, *_lacking(parsed.html)]:
        print(f"ncflow-figures: {line}", file=sys.stderr)
    if failed or not has_drawn:
        raise SystemExit(1)


def _runs_below(*folders: str) -> tuple[pd.DataFrame, int]:
    """The runs below some folders, each once, and how many there are twice.

    Raises:
        FileNotFoundError: If there is none.
    """
    runs = load_runs(*folders)
    if runs.empty:
        raise FileNotFoundError(f"no runs below {', '.join(folders)}")
    return once(runs)


def _lacking(has_report: bool) -> list[str]:
    """What the report lacks, in a line."""
    is_whole = not has_report or vega.is_installed()
    return [] if is_whole else [f"the report has no charts to explore: {vega.HOW_TO_GET_IT}"]


def _serve(parsed: argparse.Namespace) -> None:
    """Show the page of a sweep that is going on until Ctrl-C."""
    from ncflow.figures.report.serve import PageServer, serve, waiting_page
    from ncflow.results.records import state_of

    told: set[str] = set()

    def build(version: str) -> bytes:
        failed: list[str] = []
        # What the first page is of is told; later ones are a line each.
        try:
            with nullcontext() if not told else redirect_stdout(io.StringIO()), _warnings_as_lines():
                _, page = _draw_and_judge(parsed, ["svg"], failed, version)
        except FileNotFoundError as error:
            if told:
                raise
            print(f"{error} yet: they are shown when they come")
            return waiting_page(str(error))
        failed += _lacking(True)
        for line in failed:
            if line not in told:
                print(f"ncflow-figures: {line}", file=sys.stderr)
        told.update(failed, [""])
        return page

    try:
        with PageServer(parsed.serve) as server:
            serve(server, build, lambda: state_of(*(folder for folder in parsed.folders if Path(folder).is_dir())))
    except KeyboardInterrupt:
        print("\nthe page is not served any more")
    except OSError as error:
        why = f"port {parsed.serve} is in use: choose another, --serve PORT" if error.errno == EADDRINUSE else error
        print(f"ncflow-figures: error: {why}", file=sys.stderr)
        raise SystemExit(2) from None


def _draw_and_judge(
    parsed: argparse.Namespace, kinds: Sequence[Kind], failed: list[str], live: str | None = None
) -> tuple[list[Path], bytes]:
    """Do what was asked for; return the files written, and the page that bears a version if that is given."""
    from ncflow.figures.papers.as_json import as_json
    from ncflow.figures.papers.as_words import in_words
    from ncflow.figures.papers.claims import judge
    from ncflow.figures.papers.figures import choose
    from ncflow.figures.papers.needs import in_lines
    from ncflow.figures.report.drawn import draw, plan
    from ncflow.figures.report.histories import as_much_as_is_shown
    from ncflow.figures.report.page import page_of

    runs, again = _runs_below(*parsed.folders)
    # What is wrong with the others is told once, in the summary.
    history, measured = as_much_as_is_shown(*runs.loc[runs["status"] != Status.UNREADABLE, "folder"])
    print(summary(runs) + (f"\n{counted(again, 'run')} in two folders: counted once" if again else ""))
    for line in differences(runs):
        print(line)
    out = parsed.out or Path(parsed.folders[0]) / "figures"
    page = [out / VERDICTS, *([out / "report.html"] if parsed.html else [])]
    planned = plan(runs, history, parsed.figure, failed)
    written, pictures = draw(planned, out, parsed.format or ["png"], kinds, failed, page)
    if not written and not failed:
        for line in in_lines(name for name, *_ in choose(runs, history, parsed.figure)):
            print(f"no figure; what it needs: {line}", file=sys.stderr)
    found = judge(runs, history, failed)
    print("\n".join(map(in_words, found)))
    if found:
        listed = json.dumps([as_json(verdict) for verdict in found], indent=1)
        write_own(out / VERDICTS, f"{listed}\n".encode())
        print(out / VERDICTS)
    title = ", ".join(Path(folder).resolve().name for folder in parsed.folders)
    shown = [picture for picture in pictures if picture.kind != "png"]
    report = partial(page_of, runs, history, found, shown, title, date.today().isoformat(), measured=measured)
    if parsed.html:
        write_own(out / "report.html", report())
        written.append(out / "report.html")
    for path in written:
        print(path)
    if parsed.wandb:
        _upload(out, runs, found, [picture for picture in pictures if picture.kind != "svg"])
    return written, b"" if live is None else report(live)


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Let Python look less often for values that are not used any more: of millions, that takes a fifth of the time."""
    usual = gc.get_threshold()
    gc.set_threshold(_VALUES_BETWEEN, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print what is warned of on stderr, each line once: several figures may read one file."""
    seen: set[str] = set()

    class Once(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = record.getMessage()
            if line not in seen:
                seen.add(line)
                print(f"ncflow-figures: {line}", file=sys.stderr)

    log, handler = logging.getLogger("ncflow"), Once(logging.WARNING)
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            # Names of runs may be in any script; a letter that the font lacks is drawn as a box.
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            yield
    finally:
        log.removeHandler(handler)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    from ncflow.figures.papers.figures import FIGURES
    from ncflow.figures.papers.needs import in_lines

    needs = [wrapped(line, "  ", "      ", 78) for line in in_lines(FIGURES)]
    parser = argparse.ArgumentParser(
        prog="ncflow-figures",
        description="Draw the figures that these runs allow, and judge the claims they speak of.",
        epilog="\n".join(["Which figure needs which runs:", *needs]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder with runs at any depth")
    parser.add_argument(
        "--figure",
        choices=list(FIGURES),
        action="append",
        metavar="NAME",
        help="this figure, from all the runs; repeatable",
    )
    parser.add_argument("--format", choices=FORMATS, action="append", help="file format, png by default; repeatable")
    parser.add_argument("--html", action="store_true", help="also write report.html: figures, verdicts, table of runs")
    parser.add_argument("--wandb", action="store_true", help="also log figures, verdicts and table of runs to W&B")
    parser.add_argument(
        "--serve",
        nargs="?",
        type=_port,
        const=_PORT,
        metavar="PORT",
        help=f"show report.html to browsers on this machine, with new results as they come; port {_PORT} by default",
    )
    parser.add_argument("--out", type=Path, help="where the files go; DIR/figures by default")
    questions.add_options(parser)
    parsed = parser.parse_args(arguments)
    questions.check(parser, parsed)
    if parsed.serve is not None and questions.is_asked(parsed):
        parser.error("--serve shows the report, and takes no question (--x, --compare)")
    if parsed.serve is not None and parsed.wandb:
        parser.error("--serve and --wandb must not be given together: W&B would get the figures again and again")
    return parsed


def _port(text: str) -> int:
    """A port, or 0 for a free one."""
    if not (text.isascii() and text.isdigit() and int(text) < 2**16):
        rule = "the port must be a whole number from 0 (any that is free) to 65535"
        raise argparse.ArgumentTypeError(f"{rule}, found {text!r}")
    return int(text)


def _upload(out: Path, runs: pd.DataFrame, verdicts: "Sequence[Verdict]", pictures: "Sequence[Picture]") -> None:
    """Log to W&B and say where; whatever fails there is one line, as the figures are drawn already."""
    try:
        from ncflow.figures.report.upload import upload

        print(f"W&B: {upload(out, runs, verdicts, pictures)}")
    except Exception as error:  # W&B's errors share no class
        print(f"ncflow-figures: W&B: {error_line(error, named=True)}", file=sys.stderr)


if __name__ == "__main__":
    main()
