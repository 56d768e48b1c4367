"""Figures of CBMM Memo 117. Figures 7 to 10 are theory alone: ``ncflow-theory flow`` draws them."""

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd

from ncflow.figures.papers.drawing import Drawing, Recipe, with_history
from ncflow.figures.plots.dynamics import (
    ACCURACY,
    COLLAPSE,
    RHO,
    TEST_ERROR,
    TRAIN_LOSS,
    margin_bands,
    norm_against_accuracy,
    norms_and_errors,
    over_epochs,
    sorted_margins,
)
from ncflow.figures.tables import finished, is_number
from ncflow.results import load_margins

INIT, RANDOM_LABELS = "model.init_norm", "data.random_labels"


def _suited(runs: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return finished(runs, "train/rho", "weight_decay", "seed", "folder", *columns)


def _dynamics(name: str, by: str, rows: Sequence[tuple[str, str]], caption: str) -> Recipe:
    def draw(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
        suited = with_history(_suited(runs, by), history, rows[0][0])
        if not suited.empty:
            words = f"{caption} Mean and one standard deviation over seeds."
            yield Drawing(name, partial(over_epochs, suited, history, by, rows), words)

    return draw


def fig3(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Sorted training margins at the end, a colour an initial norm (figure 3)."""
    suited = _suited(runs, INIT)
    margins = load_margins(*suited["folder"]) if not suited.empty else pd.DataFrame()
    if not margins.empty:
        caption = "Training margins at the end divided by rho, sorted; mean over seeds, a colour an initial norm."
        yield Drawing("cbmm_fig3", partial(sorted_margins, suited, margins, INIT), caption)


def _margins_along(name: str, along: str) -> Recipe:
    def draw(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
        """Margins of the first run along epochs, or the early steps (figures 4 and 5)."""
        for _, run in _suited(runs).iterrows():
            rows = load_margins(run["folder"])
            if along == "step":
                first_steps = run.get("measure.first_steps")
                rows = rows[rows["step"] <= (first_steps if is_number(first_steps) else 0)]
            if len(rows) > 2:
                caption = f"Training margins of one run over {along}s: median, quartiles, 5 to 95 %, all; right: rho."
                yield Drawing(name, partial(margin_bands, rows, along), caption)
                return

    return draw


def fig6(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """NC1 and NC2 over epochs, a colour a weight decay, a column a batch size (figure 6)."""
    suited = with_history(_suited(runs), history, "nc1")
    if suited.empty:
        return
    sizes = suited["batch_size"].fillna(0) if "batch_size" in suited else 0
    caption = "NC1 and NC2 over epochs under the square loss; batch size 0 is the whole training split."
    sized = suited.assign(batch_size=sizes)
    draw = partial(over_epochs, sized, history, "weight_decay", COLLAPSE, "batch_size")
    yield Drawing("cbmm_fig6", draw, caption)


def _norms(name: str, by: str) -> Recipe:
    def draw(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
        """1/rho, margin and test error side by side against a setting (figures 11 and 12)."""
        suited = _suited(runs, by, "train/normalized_margin_mean", "test/accuracy")
        if suited.empty or suited[by].nunique() < 2:
            return
        caption = "1/rho, mean normalised margin and test error; mean and standard deviation over seeds."
        yield Drawing(name, partial(norms_and_errors, suited, by), caption)
        words = "Test accuracy against 1/rho, a point a setting; bars: one standard deviation over seeds."
        yield Drawing(f"{name}_scatter", partial(norm_against_accuracy, suited, by), words)

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
    "cbmm_fig14": _dynamics("cbmm_fig14", INIT, (RHO,), "rho over epochs with weight decay."),
    "cbmm_fig15": _dynamics("cbmm_fig15", INIT, (RHO,), "rho over epochs without weight decay."),
    "cbmm_fig16": _dynamics("cbmm_fig16", INIT, _PERFORMANCE, "Loss, accuracy and test error with weight decay."),
    "cbmm_fig17": _dynamics("cbmm_fig17", INIT, _PERFORMANCE, "Loss, accuracy and test error without weight decay."),
    "cbmm_exponential_batch_size": fig6,
}
