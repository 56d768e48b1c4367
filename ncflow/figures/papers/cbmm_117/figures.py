"""Figures of CBMM Memo 117. Figures 7 to 10 are theory alone: ``ncflow-theory flow`` draws them."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd

from ncflow.figures.papers.cbmm_117.batch_sizes import with_steps
from ncflow.figures.papers.drawing import Drawing, Recipe, heading, per_setting, with_history
from ncflow.figures.plots.dynamics import (
    ACCURACY,
    COLLAPSE,
    RHO,
    TEST_ERROR,
    TRAIN_LOSS,
    norm_against_accuracy,
    norms_and_errors,
    over_epochs,
    over_first_epochs,
    over_steps,
)
from ncflow.figures.plots.margins import margins_over_time, sorted_margins
from ncflow.figures.tables import finished, is_number
from ncflow.results import load_margins

INIT, RANDOM_LABELS = "model.init_norm", "data.random_labels"


def _suited(runs: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return finished(runs, "train/rho", "weight_decay", "seed", "folder", *columns)


def _dynamics(name: str, by: str, rows: Sequence[tuple[str, str]], caption: str, decayed: bool | None = None) -> Recipe:
    def draw(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
        suited = _of_decay(with_history(_suited(runs, by), history, rows[0][0]), decayed)
        for own, title, part in per_setting(name, suited, by, "weight_decay"):
            words = f"{caption} Mean and one standard deviation over seeds."
            draw = partial(over_epochs, part, history, by, rows)
            yield Drawing(own, draw, words, heading=heading(part, title))

    return draw


def _of_decay(runs: pd.DataFrame, decayed: bool | None) -> pd.DataFrame:
    """The runs with weight decay, or those without; None: all."""
    return runs if decayed is None else runs[(runs["weight_decay"] > 0) == decayed]


def _first_epochs(name: str, decayed: bool) -> Recipe:
    def draw(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
        """Norms over the first 3 epochs, the first 30 and all, a row an initial norm (figures 14 and 15)."""
        suited = _of_decay(with_history(_suited(runs, INIT), history, RHO[0]), decayed)
        for own, title, part in per_setting(name, suited, INIT):
            decay = part["weight_decay"].iloc[0]
            words = f"rho over the first 3 epochs, the first 30 and all, weight decay {decay:g}; a line a run."
            draw = partial(over_first_epochs, part, history, INIT, RHO, (3, 30, None))
            yield Drawing(own, draw, words, heading=heading(part, title, f"weight decay {decay:g}"))

    return draw


def fig3(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Sorted training margins at the end, a colour an initial norm (figure 3)."""
    suited = _suited(runs, INIT)
    margins = load_margins(*suited["folder"]) if not suited.empty else pd.DataFrame()
    if margins.empty:
        return
    caption = "Training margins at the end divided by rho, sorted; mean over seeds, a colour an initial norm."
    measured = suited[suited["folder"].isin(margins["folder"])]
    for own, title, part in per_setting("cbmm_fig3", measured, INIT, "weight_decay"):
        draw = partial(sorted_margins, part, margins, INIT)
        yield Drawing(own, draw, caption, heading=heading(part, title))


def _margins_along(name: str, along: str) -> Recipe:
    def draw(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
        """Margins of the first run along epochs, or the early steps (figures 4 and 5)."""
        for _, run in _suited(runs).iterrows():
            rows = load_margins(run["folder"])
            if along == "step":
                first_steps = run.get("measure.first_steps")
                rows = rows[rows["step"] <= (first_steps if is_number(first_steps) else 0)]
            if len(rows) > 2:
                caption = (
                    f"Training margins of one run divided by rho, over {along}s: histograms; median, quartiles, 5 to "
                    "95 %, all; rho. A margin is the label's output less the other: of opposite ones twice the memo's."
                )
                decay, one = run["weight_decay"], run.to_frame().T
                of = heading(one, note=f"weight decay {decay:g}; {run['name']}" if "name" in run else "")
                yield Drawing(name, partial(margins_over_time, rows, along), caption, heading=of)
                return

    return draw


def fig6(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """NC1 and NC2 over epochs, a colour a weight decay, a column a batch size (figure 6); one for each loss."""
    suited = with_history(_suited(_sized(runs), "loss.name"), history, "nc1")
    for own, title, part in per_setting("cbmm_fig6", suited, "batch_size", "weight_decay"):
        loss = part["loss.name"].iloc[0].replace("_", " ")
        caption = f"NC1 and NC2 over epochs, {loss} loss, a column a batch size."
        draw = partial(over_epochs, part, history, "weight_decay", COLLAPSE, "batch_size")
        yield Drawing(own, draw, caption, heading=heading(part, title, f"{loss} loss"))


def batch_sizes(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """NC1 over optimiser steps, a panel a loss, a colour a batch size (section J.2)."""
    suited = with_history(_suited(_sized(with_steps(runs)), "loss.name", "steps", "epochs"), history, "nc1")
    caption = "NC1 over optimiser steps by batch size; mean and standard deviation over seeds of the logarithm."
    inside = ("batch_size", "batch", "epochs", "steps")  # the same steps are other epochs
    for own, title, part in per_setting("cbmm_exponential_batch_size", suited, "loss.name", inside=inside):
        of = heading(part.drop(columns=["batch", "steps"]), title)
        yield Drawing(own, partial(over_steps, part, history, "nc1"), caption, heading=of)


def _sized(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with an infinite batch size where the whole training split is one batch, which is after all others."""
    return runs.assign(batch_size=runs["batch_size"].fillna(np.inf) if "batch_size" in runs else np.inf)


def _norms(name: str, by: str) -> Recipe:
    def draw(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
        """1/rho, margin and test error side by side against a setting (figures 11 and 12)."""
        suited = _suited(runs, by, "train/normalized_margin_mean", "test/accuracy")
        caption = "1/rho, mean normalised margin and test error; mean and standard deviation over seeds."
        words = "Test accuracy against 1/rho, a point a setting; bars: one standard deviation over seeds."
        for own, title, part in per_setting(name, suited, by, "weight_decay"):
            if part[by].nunique() < 2:
                continue
            of = heading(part, title)
            yield Drawing(own, partial(norms_and_errors, part, by), caption, heading=of)
            yield Drawing(f"{own}_scatter", partial(norm_against_accuracy, part, by), words, heading=of)

    return draw


_THREE = (RHO, TRAIN_LOSS, TEST_ERROR)
_PERFORMANCE = (TRAIN_LOSS, ACCURACY, TEST_ERROR)
FIGURES: dict[str, Recipe] = {
    "cbmm_fig2": _dynamics("cbmm_fig2", INIT, _THREE, "rho, training loss and test error over epochs."),
    "cbmm_fig3": fig3,
    "cbmm_fig4": _margins_along("cbmm_fig4", "epoch"),
    "cbmm_fig5": _margins_along("cbmm_fig5", "step"),
    "cbmm_fig6": fig6,
    "cbmm_fig11": _norms("cbmm_fig11", RANDOM_LABELS),
    "cbmm_fig12": _norms("cbmm_fig12", INIT),
    "cbmm_fig13": _dynamics("cbmm_fig13", RANDOM_LABELS, (RHO,), "rho over epochs, a colour a share of random labels."),
    "cbmm_fig14": _first_epochs("cbmm_fig14", True),
    "cbmm_fig15": _first_epochs("cbmm_fig15", False),
    "cbmm_fig16": _dynamics("cbmm_fig16", INIT, _PERFORMANCE, "Loss, accuracy and test error with weight decay.", True),
    "cbmm_fig17": _dynamics("cbmm_fig17", INIT, _PERFORMANCE, "The same without weight decay.", False),
    "cbmm_exponential_batch_size": batch_sizes,
}
