"""Predictions of CBMM Memo 117 on the square loss, checked on runs."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ncflow.figures.papers.verdict import (
    ENOUGH,
    FITS,
    Check,
    Claim,
    Verdict,
    allows_trend,
    fitting,
    left_out,
    rank_trend,
    seed_count,
    settings,
    verdict_of,
)
from ncflow.figures.tables import finished

INIT, RANDOM_LABELS, RHO, NC1 = "model.init_norm", "data.random_labels", "train/rho", "train/nc1"
_WEIGHTS = ("train/nc2_equinorm_weights", "train/nc2_equiangular_weights")
# Ours: rho at different initial norms is one where the largest is below so many times the smallest.
_SAME = 1.5
# Ours: collapse has happened where NC1 is below this, and eq. 33 and 34 hold within this share.
_COLLAPSED, _RESIDUAL = 0.1, 0.05


def _runs(runs: pd.DataFrame, *columns: str) -> pd.DataFrame:
    done = finished(runs, RHO, FITS, NC1, "weight_decay", "seed", "loss.name", *columns)
    sizes = done["batch_size"].fillna(np.inf) if "batch_size" in done else np.inf
    return done.assign(batch_size=sizes)


def _square(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["loss.name"].astype(str).str.startswith("square")] if len(runs) else runs


def _range_over_inits(part: pd.DataFrame, measure: str) -> float:
    """Largest over smallest mean of a positive measure over initial norms, the mean being of its logarithm."""
    means = np.log(part[part[measure] > 0][measure]).groupby(part[INIT]).mean()
    return float(np.exp(means.max() - means.min())) if len(means) > 1 else np.nan


def _independent_of_init(runs: pd.DataFrame, measure: str, name: str, claim: str) -> Verdict:
    checks = []
    for title, whole in settings(_square(_runs(runs, INIT, measure)), INIT):
        part = fitting(whole)
        without = part[part["weight_decay"] == 0]
        for decay, with_decay in part[part["weight_decay"] > 0].groupby("weight_decay"):
            a, b = _range_over_inits(with_decay, measure), _range_over_inits(without, measure)
            if np.isnan(a) or np.isnan(b):
                continue
            line = (
                f"{title}: over {with_decay[INIT].nunique()} initial norms {name} differs by a factor {a:.3g} at "
                f"weight decay {decay:g}, {b:.3g} without; {seed_count(with_decay, without)}{left_out(whole)}"
            )
            checks.append(Check(a < _SAME and a < b, line))
    return verdict_of(claim, checks, "interpolating runs of two initial norms with and without weight decay")


def decay_frees_rho_of_its_start(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figures 2 and 14: with weight decay rho ends at one value whatever the initial norm, without it does not."""
    claim = "Weight decay makes rho independent of initialisation"
    return _independent_of_init(runs, RHO, "rho", claim)


def decay_frees_margins_of_their_start(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figure 3: the same of the mean normalised margin."""
    claim = "Weight decay makes the margins independent of initialisation"
    return _independent_of_init(runs, "train/normalized_margin_mean", "the mean of margin/rho", claim)


def decay_concentrates_margins(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figure 3: with weight decay the margins' standard deviation over their mean is smaller than without."""
    checks = []
    for title, whole in settings(_square(_runs(runs, "train/margin_std", "train/margin_mean")), INIT):
        part = fitting(whole)
        spread = part.assign(spread=part["train/margin_std"] / part["train/margin_mean"])
        keys = [key for key in (INIT, "seed") if key in spread]
        means = spread.groupby(["weight_decay", *keys], dropna=False)["spread"].mean()
        if 0 not in means.index.get_level_values(0):
            continue
        for decay in sorted(set(means.index.get_level_values(0)) - {0}):
            both = pd.concat([means.loc[decay], means.loc[0]], axis=1, keys=["with", "without"]).dropna()
            if both.empty:
                continue
            better = int((both["with"] < both["without"]).sum())
            line = (
                f"{title}: standard deviation over mean {both['with'].mean():.3f} at weight decay {decay:g}, "
                f"{both['without'].mean():.3f} without; smaller in {better} of {len(both)} pairs{left_out(whole)}"
            )
            checks.append(Check(better == len(both), line))
    claim = "Weight decay concentrates the margins"
    return verdict_of(claim, checks, "interpolating runs with and without weight decay")


def random_labels_raise_rho(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figures 11 and 13: rho grows in rank with the share of random labels."""
    checks = []
    for title, whole in settings(_square(_runs(runs, RANDOM_LABELS)), RANDOM_LABELS):
        for decay, cell in whole.groupby("weight_decay"):
            part = fitting(cell)
            if not allows_trend(part, RANDOM_LABELS):
                if whole[RANDOM_LABELS].nunique() > 1:
                    checks.append(Check(None, f"{title}, weight decay {decay:g}: too few runs{left_out(cell)}"))
                continue
            trend = rank_trend(part, RANDOM_LABELS, RHO)
            ends = part.groupby(RANDOM_LABELS)[RHO].mean().sort_index()
            low, high = ends.iloc[0], ends.iloc[-1]
            line = (
                f"{title}, weight decay {decay:g}: rank correlation of the share with rho {trend}; rho {low:.3g} at "
                f"{ends.index[0]:g}, {high:.3g} at {ends.index[-1]:g}; {seed_count(part)}{left_out(cell)}"
            )
            checks.append(Check(trend.rises, line))
    claim = "Random labels raise rho"
    return verdict_of(claim, checks, f"interpolating runs at {ENOUGH.format('shares of random labels')}")


def square_loss_collapses(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: under the square loss with weight decay NC1 and NC2 happen, with mini-batches and full batches."""
    checks = _collapse(runs)
    claim = f"Under the square loss with weight decay NC1 and NC2 of the classifier fall below {_COLLAPSED:g}"
    return verdict_of(claim, checks, "interpolating runs on the square loss with weight decay")


def random_labels_collapse(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: neural collapse happens with random labels too, if they are fitted."""
    measured = _runs(runs, RANDOM_LABELS, *_WEIGHTS)
    checks = _collapse(measured[measured[RANDOM_LABELS] > 0]) if len(measured) else []
    claim = f"Random labels collapse too: NC1 and NC2 of the classifier fall below {_COLLAPSED:g}"
    return verdict_of(claim, checks, "interpolating runs on random labels with weight decay")


def no_collapse_without_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 6: without weight decay neural collapse fails, NC1 as well as NC2."""
    checks = []
    for title, whole in _by_batch(runs, *_WEIGHTS):
        part = fitting(whole)
        with_decay, without = part[part["weight_decay"] > 0], part[part["weight_decay"] == 0]
        if with_decay.empty or without.empty:
            continue
        a, b = _geometric_means(with_decay), _geometric_means(without)
        words = ", ".join(f"{name} {b[name]:.2g} ({a[name]:.2g} with it)" for name in a)
        line = f"{title}: {words}; {seed_count(with_decay, without)}{left_out(whole)}"
        checks.append(Check(all(b[name] > a[name] for name in a), line))
    claim = "Under the square loss without weight decay collapse is weaker, in NC1 and in NC2"
    return verdict_of(claim, checks, "interpolating runs with and without weight decay")


def _collapse(runs: pd.DataFrame) -> list[Check]:
    """Whether NC1 and NC2 of the classifier are small in each setting with weight decay."""
    checks = []
    for title, whole in _by_batch(runs, *_WEIGHTS):
        part = fitting(whole)
        part = part[part["weight_decay"] > 0]
        if not part.empty:
            found = _geometric_means(part)
            words = ", ".join(f"{name} {value:.2g}" for name, value in found.items())
            right = max(found.values()) < _COLLAPSED
            checks.append(Check(right, f"{title}: {words}; {seed_count(part)}{left_out(whole)}"))
    return checks


def _by_batch(runs: pd.DataFrame, *columns: str) -> Iterator[tuple[str, pd.DataFrame]]:
    for title, part in settings(_square(_runs(runs, *columns)), INIT, "batch_size"):
        for size in sorted(part["batch_size"].unique()):
            name = "full batches" if np.isinf(size) else f"batches of {size:g}"
            yield f"{title}, {name}", part[part["batch_size"] == size]


def _geometric_means(part: pd.DataFrame) -> dict[str, float]:
    """Of NC1 and of NC2 of the classifier."""
    columns = (NC1, *_WEIGHTS)
    return {name.split("/")[1]: float(np.exp(np.log(np.maximum(part[name], 1e-300)).mean())) for name in columns}


def quasi_interpolation_fixes_the_classifier(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Eq. 33 and 34 hold at convergence: their relative residuals are small."""
    names = {"train/quasi_residual_means": "eq. 33", "train/quasi_residual_norms": "eq. 34"}
    checks = []
    for title, whole in settings(_square(_runs(runs, *names)), INIT):
        part = fitting(whole)
        part = part[part["weight_decay"] > 0]
        if part.empty:
            continue
        found = {label: float(part[name].median()) for name, label in names.items()}
        words = ", ".join(f"{label} {value:.2g}" for label, value in found.items())
        line = (
            f"{title}: median relative residual of {words}; e {part['train/quasi_gap'].median():.3g}; {len(part)} runs"
        )
        checks.append(Check(max(found.values()) < _RESIDUAL, f"{line}{left_out(whole)}"))
    claim = f"Eq. 33 and 34 hold at convergence (within {_RESIDUAL:.0%})"
    return verdict_of(claim, checks, "interpolating runs on the square loss with weight decay")


def exponential_loss_needs_small_batches(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section J.2: NC1 rises in rank with the batch size under the exponential loss, not under the square loss."""
    checks = {}
    measured = _runs(runs)
    measured = measured[measured["weight_decay"] > 0] if len(measured) else measured
    for loss, whole in measured.rename(columns={"batch_size": "batch"}).groupby("loss.name") if len(measured) else ():
        part = fitting(whole)
        if allows_trend(part, "batch"):
            trend = rank_trend(part, "batch", NC1)
            exponential = loss == "exponential"
            line = f"{loss}: rank correlation of batch size with NC1 {trend}; {seed_count(part)}{left_out(whole)}"
            checks[str(loss)] = Check(trend.rises if exponential else not trend.rises, line)
    found = list(checks.values()) if "exponential" in checks and len(checks) > 1 else []
    claim = "J.2: under the exponential loss NC1 needs small batches, under the square loss it does not"
    return verdict_of(claim, found, f"runs on both losses at {ENOUGH.format('batch sizes')}")


CLAIMS: tuple[Claim, ...] = (
    decay_frees_rho_of_its_start,
    decay_frees_margins_of_their_start,
    decay_concentrates_margins,
    random_labels_raise_rho,
    square_loss_collapses,
    random_labels_collapse,
    no_collapse_without_decay,
    quasi_interpolation_fixes_the_classifier,
    exponential_loss_needs_small_batches,
)
