"""One self-contained HTML page: verdicts, figures, charts to explore, and the runs with all that is known of them.

The page loads nothing and sends nothing, which its content security policy makes sure of: only its own scripts run, by
their digests, and they may not connect. Charts are drawn by Vega-Lite, whose script is in the page. It was chosen over
plotly for its size (0.9 MB for all of Vega; plotly has 4.6 MB, or 1 MB without facets and with a licence of its own to
keep) and because a chart is data: panels, bands and tooltips are fields of a specification, which is built from the
names of columns, and every mark is an element that a test can find, hover and click.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from importlib import resources

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ncflow.figures.papers.as_words import numbers
from ncflow.figures.papers.claims import PAPERS
from ncflow.figures.papers.verdict import Answer, Verdict
from ncflow.figures.report import vega
from ncflow.figures.report.columns import config_texts, counted, present, version_name, versions
from ncflow.figures.report.embedded import compressed, data_of
from ncflow.figures.report.pictures import Picture
from ncflow.figures.tables import provenance_differences

SCRIPTS = ("data", "summary", "state", "filters", "chart", "run", "table", "downloads", "live", "main")
"""The page's own script, in parts."""

_SIGNS = {
    Answer.SUPPORTED: ("yes", "✓"),
    Answer.CONTRADICTED: ("no", "✗"),
    Answer.NO_EFFECT: ("no", "="),
    Answer.UNDECIDED: ("open", "?"),
    Answer.NOT_ENOUGH: ("open", "…"),
}


def page_of(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    verdicts: Sequence[Verdict],
    figures: Sequence[Picture],
    title: str,
    date: str,
    live: str | None = None,
    measured: Sequence[str] | None = None,
) -> bytes:
    """The page's bytes; the same runs and figures give the same, wherever the runs lie.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`, a row or more.
        history: Table of :func:`ncflow.results.load_history`.
        verdicts: What became of each claim.
        figures: In the order of the page.
        title: Heading of the page.
        date: Of the page, in words.
        live: Its version, if a server shows it: the page asks that server, and no other, whether there is a newer one.
        measured: All measures of the histories, if the table lacks some of them.
    """
    # Folders of runs may come from anyone: whatever is in them is text, never markup.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    texts = config_texts(runs)
    described = {name: counted(texts[name]) for name in texts.columns}
    data = compressed(data_of(runs, history, measured))  # which takes memory, and gives it back
    library = vega.bundle()
    own = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    scripts = [Markup(_closed(f"(() => {{\n{script}\n}})();")) for script in (library, own) if script is not None]
    page = environment.from_string(_asset("page.html.j2")).render(
        title=title,
        date=date,
        live=live,
        style=Markup(_asset("page.css")),
        scripts=scripts,
        digests=[_digest(script) for script in scripts],
        missing=None if library is not None else vega.HOW_TO_GET_IT,
        data=data,
        count=len(runs),
        statuses=Counter(runs["status"]).most_common(),
        papers=_by_paper(verdicts),
        numbers=numbers,
        signs=_SIGNS,
        figures=figures,
        hours=_hours(runs),
        common={name: counts[0][0] for name, counts in described.items() if len(counts) == 1},
        varied={name: counts for name, counts in described.items() if len(counts) > 1},
        seeds=counted(present(runs, "seed")),
        versions=versions(runs),
        mixed=[version_name(name) for name in provenance_differences(runs)],
    )
    # JSON can carry half a surrogate pair, which UTF-8 cannot.
    return page.encode(errors="replace")


def _by_paper(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    """The verdicts under the papers that they are on."""
    found: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        paper = verdict.id.partition("/")[0]
        found.setdefault(PAPERS.get(paper, paper), []).append(verdict)
    return found


def _asset(name: str) -> str:
    return resources.files("ncflow.figures.report").joinpath("assets", name).read_text(encoding="utf-8")


def _closed(script: str) -> str:
    """A script that does not end the element that it is in."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _digest(script: str) -> str:
    """By which the page's policy knows its scripts, and lets no other run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode(errors='replace')).digest()).decode()}"


def _hours(runs: pd.DataFrame) -> str:
    """The hours that the runs trained, in words, and how many of them say."""
    seconds = pd.to_numeric(runs["seconds"], errors="coerce").dropna() if "seconds" in runs else pd.Series(dtype=float)
    told = "" if len(seconds) == len(runs) else f", of the {len(seconds)} runs that recorded it"
    return f"{seconds.sum() / 3600:.3g} hours of training{told}"
