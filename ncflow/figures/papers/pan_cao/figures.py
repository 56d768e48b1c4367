"""Figures of Pan and Cao."""

import logging
from collections.abc import Iterator
from functools import partial
from importlib import resources

import pandas as pd
from matplotlib.figure import Figure

from ncflow.figures.papers.drawing import (
    Drawing,
    Recipe,
    few_panels,
    heading,
    measured,
    over_decay,
    per_setting,
    stem,
)
from ncflow.figures.plots.collapse import MEAN, QUANTILE, WORST, collapse_against, collapse_against_gamma, trajectories
from ncflow.figures.plots.geometry import animate, collapse_in_space
from ncflow.figures.plots.optimality import SHAPES, collapse_against_gap, has_theory
from ncflow.figures.style import literal, norm_label, norm_order
from ncflow.figures.tables import finished, last_layer, trained_gamma
from ncflow.figures.varied import INSIDE, panels
from ncflow.results import load_snapshots

log = logging.getLogger(__name__)


def fig1(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Features, class means and classifier rows of three classes in 3-D over epochs (Pan, Cao, figure 1)."""
    count = 0
    for _, run in measured(runs).iterrows():
        snapshots = load_snapshots(run["folder"])
        if len(snapshots) < 2 or any(len(snapshot.means) != 3 for snapshot in snapshots):
            continue
        count += 1
        name = "fig1" if count == 1 else f"fig1_{count}"
        caption = (
            f"Features of three classes after {snapshots[0].epoch} to {snapshots[-1].epoch} epochs, projected to the "
            "plane of the final class means and the direction of most spread outside of it, relative to their size."
        )
        of = heading(run.to_frame().T, str(run["name"]) if isinstance(run.get("name"), str) else "")
        yield Drawing(name, partial(collapse_in_space, snapshots), caption, heading=of)
        words = f"The epochs of {name}, one after the other."
        yield Drawing(f"{name}_animation", partial(animate, snapshots, of), words, is_animation=True)


def fig2(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Min intra and max inter against weight decay, with and without BN (Pan, Cao, figure 2)."""
    suited = over_decay(runs)
    if not suited.empty:
        caption = (
            "Min intra-class (solid) and max inter-class cosine (dashed) against weight decay; mean and standard "
            "deviation over seeds; dotted: their limits, those of inter for the class shares."
        )
        few_panels(suited)
        draw = partial(collapse_against, suited, "weight_decay")
        yield Drawing("fig2", draw, caption, heading=heading(suited))


def fig4(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Min intra and max inter against the norm of a fixed gamma, a curve a weight decay (Pan, Cao, figure 4)."""
    yield from _against_gamma("fig4", runs)


def fig9(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Figure 4 at several weight decays (Pan, Cao, figure 9)."""
    yield from _against_gamma("fig9", runs)


def _against_gamma(name: str, runs: pd.DataFrame) -> Iterator[Drawing]:
    suited = finished(measured(runs), "model.gamma", "train/gamma_norm")
    if not suited.empty and suited["model.gamma"].nunique() > 1:
        caption = (
            "Min intra- and max inter-class cosine against |gamma|, fixed; mean and standard deviation over seeds."
        )
        few_panels(suited, "model.gamma", inside=("weight_decay",))
        yield Drawing(name, partial(collapse_against_gamma, suited), caption, heading=heading(suited))


def fig5(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Worst and mean intra and inter against weight decay (Pan, Cao, figure 5)."""
    suited = over_decay(runs, *MEAN)
    if not suited.empty:
        caption = "Worst class and pair (above) and mean over classes and pairs (below) against weight decay."
        few_panels(suited)
        draw = partial(collapse_against, suited, "weight_decay", (WORST, MEAN))
        yield Drawing("fig5", draw, caption, heading=heading(suited))


def fig6(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Worst, quantile and mean against weight decay, the published results beside ours (Pan, Cao, figure 6).

    The text speaks of the mean and the worst class, the published code draws the mean and the quantile.
    """
    suited = over_decay(runs, *QUANTILE, *MEAN)
    if not suited.empty:
        few_panels(suited)
        comparable = (suited["train/classes_present"] == 1000).any()
        theirs = published() if comparable else None
        draw = partial(collapse_against, suited, "weight_decay", (WORST, QUANTILE, MEAN), theirs)
        beside = "; grey: the published results" if comparable else "; the published results are of 1000 classes"
        caption = f"Worst class and pair, 5 % and 95 % quantile, and mean, a row each, against weight decay{beside}."
        yield Drawing("fig6", draw, caption, heading=heading(suited))


def published() -> pd.DataFrame:
    """The authors' published ImageNet32 results, the pairs i = j left out of intra as in ours."""
    with resources.files("ncflow.figures.papers.pan_cao").joinpath("imagenet32_published.csv").open() as file:
        return pd.read_csv(file)


def trajectory_recipe(name: str) -> Recipe:
    """The recipe that figures 3, 7 and 8 are, under a name."""

    def draw(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
        """Measures and loss over epochs, a figure a setting (Pan, Cao, figures 3, 7 and 8).

        The papers' figures show every run. Of others, which may be many, it is of each BN placement the lowest seed, at
        the smallest, the middle and the largest weight decay, and the caption says so.
        """
        suited = trained_gamma(measured(runs))
        rows = last_layer(history).dropna(subset=["intra_min"])
        shown = suited[suited["folder"].isin(rows["folder"])]
        for own, title, part in per_setting(name, shown, inside=INSIDE):
            named = own if name != "trajectories" or own != name else stem(name, title)
            chosen = _lowest_seed(part) if name == "trajectories" else part
            which = f"all {len(part)} runs, a line each"
            if len(chosen) < len(part):
                which = (
                    f"{len(chosen)} of {len(part)} runs, the lowest seed at the least, the middle and the largest decay"
                )
            caption = f"Collapse and training loss over epochs{f': {title}' if title else ''}; {which}."
            of = heading(chosen, title, "" if len(chosen) == len(part) else which)
            yield Drawing(named, partial(_trajectories, rows, chosen), caption, heading=of)

    return draw


def _trajectories(rows: pd.DataFrame, part: pd.DataFrame) -> Figure:
    """A row of panels a weight decay, a column a BN placement."""
    norms = sorted(part["model.norm"].unique(), key=norm_order)
    cells = {
        (decay, norm): part[(part["weight_decay"] == decay) & (part["model.norm"] == norm)]
        for decay in sorted(part["weight_decay"].unique())
        for norm in norms
    }
    shown = [
        (f"{literal(norm_label(norm))}, $\\lambda$ = {decay:g}", own.sort_values("seed")["folder"].tolist())
        for (decay, norm), own in cells.items()
    ]
    return trajectories(rows, [panel for panel in shown if panel[1]], columns=max(2, len(norms)))


def _lowest_seed(part: pd.DataFrame) -> pd.DataFrame:
    """The runs of the lowest seed at the smallest, the middle and the largest weight decay."""
    part = part[part["seed"] == part["seed"].min()]
    decays = sorted(part["weight_decay"].unique())
    return part[part["weight_decay"].isin([decays[i] for i in (0, len(decays) // 2, len(decays) - 1)])]


def gap(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """Collapse against the measured gap to the theory's optimum, over all runs; no paper has it."""
    found = measured(runs)
    suited = has_theory(found)
    unknown = found[~found["folder"].isin(suited["folder"])]
    left_out = ""
    if len(unknown):
        of = ", ".join(sorted(set(unknown["model.name"])))
        left_out = f"{len(unknown)} of {len(found)} runs ({of}) are left out: no optimum of them is known"
        log.warning("gap: %s", left_out)
    if len(suited) < 3:
        return
    cut = panels(suited)
    for first in range(0, len(cut), len(SHAPES)):
        part = pd.concat([own for _, own in cut[first : first + len(SHAPES)]])
        caption = (
            "Left: regularised loss and, as dashes, its least values for the class shares, weight decay and BN of the "
            "runs; middle and right: distance of intra and inter from their values there against the gap to that "
            "loss. Every point is a run."
        )
        if left_out:
            caption += f" {len(unknown)} runs whose gap or limit is not known are left out."
        of = heading(part, note=left_out)
        yield Drawing("gap", partial(collapse_against_gap, part), caption, heading=of)


FIGURES: dict[str, Recipe] = {
    "fig1": fig1,
    "fig2": fig2,
    "fig3": trajectory_recipe("fig3"),
    "fig4": fig4,
    "fig5": fig5,
    "fig6": fig6,
    "fig7": trajectory_recipe("fig7"),
    "fig8": trajectory_recipe("fig8"),
    "fig9": fig9,
    "trajectories": trajectory_recipe("trajectories"),
    "gap": gap,
}
