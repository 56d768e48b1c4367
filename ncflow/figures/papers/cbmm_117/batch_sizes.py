"""The conjecture of section J.2: NC1 needs small batches under the exponential loss, not under the square loss."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from ncflow.figures.papers.cbmm_117.own import NC1, SOURCE, square
from ncflow.figures.papers.selection import decades, fitting, left_out, settings, slope_effect
from ncflow.figures.papers.verdict import FACTOR_TWO, SEEDS, Effect, Quantifier, Setting, Verdict
from ncflow.figures.tables import numbers

_EQUAL = 1.02  # steps that are equal but for the rounding to whole epochs
_FEWEST = 3  # batch sizes
_EXPONENTIAL, _SQUARE = "exponential", "square"


def exponential_loss_needs_small_batches(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section J.2: NC1 rises with the batch size under the exponential loss, not under the square loss."""
    measured, others = _of_both_losses(runs)
    inside = ("loss.name", "loss.targets", "batch", "batch_size", "epochs", "steps")
    found, used = [], 0
    for title, cell in settings(measured[measured["weight_decay"] > 0], *inside):
        for steps, whole in _of_equal_steps(cell):
            exponential, *squares = _with_several_sizes(whole)
            for square_loss in squares if len(exponential) else ():
                effects = (_rise(exponential, _EXPONENTIAL), _rise(square_loss, _SQUARE, absent=True))
                name = f"{title}, {square_loss['loss.name'].iloc[0]}, about {steps:.2g} steps"
                count = len(fitting(exponential)) + len(fitting(square_loss))
                found.append(Setting(name, effects, count, left_out(exponential, square_loss)))
            used += sum(map(len, (exponential, *squares))) if len(exponential) and squares else 0
    others["not of both losses with three batch sizes at equal steps, as runs of equal epochs"] = len(measured) - used
    return Verdict(
        "cbmm_117/j2",
        "J.2: under the exponential loss NC1 needs small batches, under the square loss it does not",
        f"{SOURCE}section J.2, conjectures",
        Quantifier.ALL,
        tuple(found),
        f"experiment=cbmm_117/exponential_batch_size {SEEDS}",
        "batch sizes are compared at equal numbers of steps and one learning rate; the text says nothing of either",
        {reason: count for reason, count in others.items() if count},
    )


def _of_both_losses(runs: pd.DataFrame) -> tuple[pd.DataFrame, Counter[str]]:
    """The runs of either loss, and how many others there are, by the reason."""
    others = Counter({"on another loss than exponential or square": len(runs)})
    names = runs["loss.name"].map(str) if "loss.name" in runs else pd.Series("", index=runs.index)
    parts = []
    for loss in (_EXPONENTIAL, _SQUARE):
        own = with_steps(runs[names.str.startswith(loss).astype(bool)])
        measured, foreign = square(own, NC1, "steps", "batch", loss=loss)
        others["on another loss than exponential or square"] -= len(own)
        others.update(foreign)
        parts.append(measured)
    return pd.concat(parts, ignore_index=True), others


def _with_several_sizes(part: pd.DataFrame) -> list[pd.DataFrame]:
    """The runs of the exponential loss, and of each square loss, if they have batch sizes enough; no run if not."""
    names = part["loss.name"].astype(str)
    each = [part[names == loss] for loss in (_EXPONENTIAL, *sorted(set(names) - {_EXPONENTIAL}))]
    enough = [own if own["batch"].nunique() >= _FEWEST else own.iloc[:0] for own in each]
    return [enough[0], *(own for own in enough[1:] if len(own))]


def _rise(runs: pd.DataFrame, loss: str, absent: bool = False) -> Effect:
    """Of NC1 with the batch size, over the runs that interpolate."""
    part = fitting(runs)
    words = f"decades of NC1 per decade of batch size, {loss} loss"
    return slope_effect(part.assign(log=decades(part[NC1])), "batch", "log", words, smallest=FACTOR_TWO, absent=absent)


def with_steps(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with their optimiser ``steps``, of which they keep the time and the rate, and samples a ``batch``.

    The whole training split is a batch of as many samples as the config asks for; where it asks for all, they are not
    known.
    """
    absent = pd.Series(np.nan, index=runs.index)
    seconds, rate, size, samples = (
        numbers(runs[name]).astype(float) if name in runs else absent
        for name in ("seconds", "steps_per_second", "batch_size", "data.num_samples")
    )
    return runs.assign(steps=(seconds * rate).round(), batch=size.fillna(samples))


def _of_equal_steps(part: pd.DataFrame) -> Iterator[tuple[float, pd.DataFrame]]:
    """(steps, runs) of each group of runs that have equally many."""
    ordered = part.sort_values("steps")
    begins = list[float]()
    for steps in ordered["steps"]:
        if not begins or steps > _EQUAL * begins[-1]:
            begins.append(steps)
    place = np.searchsorted(begins, ordered["steps"], side="right")
    for index, first in enumerate(begins):
        yield first, ordered[place == index + 1]
