"""The cases as the table of the README: `python -m tests.foreign.table` prints it."""

from collections.abc import Iterable
from itertools import groupby

from tests.foreign import batches, forwards, heads, loaders, losses
from tests.foreign.case import CASES, Case

TOPICS = {
    forwards.__name__: "`forward`, its output",
    heads.__name__: "classifier",
    losses.__name__: "loss, labels",
    batches.__name__: "batches, hooks",
    loaders.__name__: "loaders, limits",
}


def table() -> str:
    """In Markdown: what is measured and what is refused in a line, a row a topic."""
    lines = ["| | measured | refused, with the way out |", "|---|---|---|"]
    by_topic = sorted(CASES, key=lambda case: list(TOPICS).index(case.make.__module__))
    for name, cases in groupby(by_topic, key=lambda case: case.make.__module__):
        of_topic = list(cases)
        cells = [_names(case for case in of_topic if case.refused is refused) for refused in (False, True)]
        lines.append(f"| {TOPICS[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _names(cases: Iterable[Case]) -> str:
    return "; ".join(case.name for case in cases)


if __name__ == "__main__":
    print(table())
