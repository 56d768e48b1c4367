"""Claims of Pan and Cao as functions from runs to a verdict with its numbers. A new claim is an entry of ``CLAIMS``.

Every verdict gives the size of the effect, the number of seeds and a test: a permutation test of Spearman's rank
correlation over weight decays or gammas within seeds, or Wilcoxon's signed-rank test over pairs of runs that differ in
BN alone. Runs that do not interpolate (training accuracy below 1) are outside of what the claims are about: they are
left out and counted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import factorial, prod
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata, wilcoxon

from ncflow.figures.plots import panel_title
from ncflow.figures.style import NORM_LABELS
from ncflow.figures.tables import finished, panels

HOLDS, FAILS, TOO_FEW = "holds", "does not hold", "not enough runs"
INTRA, INTER, FITS = "train/intra_min", "train/inter_max", "train/interpolated"

# A rank correlation below this, or one that chance gives more often than this, is not called a trend.
_TREND, _LEVEL = 0.5, 0.05
_SPREAD = "four {0} or more, or at three with two seeds"


@dataclass(frozen=True)
class Verdict:
    """A claim, the answer (``holds``, ``does not hold``, ``not enough runs``) and the numbers behind it."""

    claim: str
    answer: str
    numbers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.answer.upper():>16}  {self.claim}", *(f"{'':18}{line}" for line in self.numbers)])


Claim = Callable[[pd.DataFrame, pd.DataFrame], Verdict]


class Check(NamedTuple):
    """One setting's answer: whether the claim holds there, and the numbers; None: reported, but not counted."""

    right: bool | None
    line: str


class Trend(NamedTuple):
    """Spearman's rank correlation and the share of random orders that give one as far from 0 on the same side."""

    correlation: float
    p: float

    def __str__(self) -> str:
        return f"{self.correlation:+.2f} (p = {self.p:.2g})"

    @property
    def rises(self) -> bool:
        """Whether there is an upward trend."""
        return self.correlation > _TREND and self.p < _LEVEL

    @property
    def falls(self) -> bool:
        """Whether there is a downward trend."""
        return self.correlation < -_TREND and self.p < _LEVEL


def rank_trend(runs: pd.DataFrame, x: str, y: str, block: str | None = "seed", orders: int = 9999) -> Trend:
    """Spearman's correlation within each block, pooled over blocks, with a one-sided permutation test within blocks.

    A seed is a block: its data and initial weights may shift a measure by more than the setting does. With one block it
    is the plain rank correlation.

    Args:
        runs: A row a run.
        x: Column of the setting.
        y: Column of the measure.
        block: Column of the blocks; None takes all rows as one.
        orders: Random orders of y; they are the same at each call. 0 gives p = 1.
    """
    groups = [runs] if block is None else [part for _, part in runs.groupby(block)]
    ranked = [[_centred_ranks(part[column]) for column in (x, y)] for part in groups]
    size = np.sqrt(sum(a @ a for a, _ in ranked) * sum(b @ b for _, b in ranked))
    if size == 0:  # one of them does not vary
        return Trend(0.0, 1.0)
    rng = np.random.default_rng(0)
    by_chance = sum(rng.permuted(np.tile(b, (orders, 1)), axis=1) @ a for a, b in ranked) / size
    found = float(sum(a @ b for a, b in ranked) / size)
    reached = by_chance * np.sign(found) >= abs(found) - 1e-12  # equal but for rounding counts
    return Trend(found, float((1 + np.sum(reached)) / (1 + orders)))


def _centred_ranks(values: "pd.Series[float]") -> NDArray[np.float64]:
    return np.asarray(rankdata(values) - (len(values) + 1) / 2)


def _allows_trend(part: pd.DataFrame, by: str) -> bool:
    """Whether so many runs could show a trend at all: in perfect order, would they be rare enough by chance?"""
    orders = prod(factorial(count) for count in part["seed"].value_counts())
    return part[by].nunique() >= 3 and orders * _LEVEL > 1


def _verdict(claim: str, checks: list[Check], needs: str) -> Verdict:
    """The claim holds where it holds in every setting that counts; each setting gives a line."""
    counted = [check.right for check in checks if check.right is not None]
    signs = {True: "", False: "against it: ", None: "not counted: "}
    lines = tuple(signs[check.right] + check.line for check in checks)
    if not counted:
        return Verdict(claim, TOO_FEW, (f"needs {needs}", *lines))
    return Verdict(claim, HOLDS if all(counted) else FAILS, lines)


def _measured(runs: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Finished runs of networks that have the columns, with a flag for BN; free features are no network."""
    done = finished(runs)
    if "data.name" in done:
        done = done[done["data.name"] != "sample_index"]
    needed = [INTRA, INTER, FITS, "model.norm", "weight_decay", "seed", *columns]
    if not all(column in done for column in needed):
        return done.iloc[:0].assign(bn=False)
    done = done.dropna(subset=needed)
    return done.assign(bn=done["model.norm"] != "none")


def _trained_gamma(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["model.gamma"].isna()] if "model.gamma" in runs else runs


def _settings(runs: pd.DataFrame, *inside: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, runs) of each setting: everything but seed, weight decay, BN and ``inside`` is one and the same."""
    for values, part in panels(runs.drop(columns="bn"), *inside) if len(runs) else ():
        yield panel_title(values) or "all runs", part.assign(bn=runs["bn"])


def _against_no_bn(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """(name, runs with a BN placement, runs without BN) for each setting and placement."""
    for title, part in _settings(runs):
        plain = part[~part["bn"]]
        placements = sorted(part.loc[part["bn"], "model.norm"].unique())
        for placement in placements:
            name = f"{title}, {NORM_LABELS.get(placement, placement)}" if len(placements) > 1 else title
            yield name, part[part["model.norm"] == placement], plain


def _left_out(*parts: pd.DataFrame) -> str:
    count = sum(int((part[FITS] != 1).sum()) for part in parts)
    return f"; {count} of {sum(map(len, parts))} runs do not interpolate, left out" if count else ""


def _fitting(part: pd.DataFrame) -> pd.DataFrame:
    return part[part[FITS] == 1]


def _seeds(*parts: pd.DataFrame) -> str:
    count = min(part["seed"].nunique() for part in parts)
    return f"{count} seed{'s' if count != 1 else ''}"


def bn_collapses_most(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 1: the best weight decay with BN beats the best without, in mean over seeds, in intra and in inter.

    Beside it the runs that differ in BN alone are paired, over weight decays and seeds.
    """
    checks = []
    for title, all_bn, all_plain in _against_no_bn(_trained_gamma(_measured(runs))):
        bn, plain = _fitting(all_bn), _fitting(all_plain)
        if min(bn["weight_decay"].nunique(), plain["weight_decay"].nunique()) < 2:
            if len(all_bn) and len(all_plain):
                checks.append(Check(None, f"{title}: too few weight decays{_left_out(all_bn, all_plain)}"))
            continue
        cells = [part.groupby("weight_decay")[[INTRA, INTER]].mean() for part in (bn, plain)]
        (a, b), (c, d) = ((cell[INTRA].max(), cell[INTER].min()) for cell in cells)
        line = (
            f"{title}: best intra {a:.3f} with BN, {c:.3f} without; best inter {b:.3f} and {d:.3f}; "
            f"{_pairs(bn, plain)}; {_seeds(bn, plain)}{_left_out(all_bn, all_plain)}"
        )
        checks.append(Check(bool(a > c and b < d), line))
    claim = "1. With BN and suitable weight decay collapse is strongest, without BN it is weaker"
    return _verdict(claim, checks, "interpolating runs with and without BN at two weight decays or more")


def _pairs(bn: pd.DataFrame, plain: pd.DataFrame) -> str:
    """Paired differences of intra over the cells (weight decay, seed) that both have."""
    keys = ["weight_decay", "seed"]
    both = bn.groupby(keys)[INTRA].mean().to_frame("bn").join(plain.groupby(keys)[INTRA].mean(), how="inner")
    gain = both["bn"] - both[INTRA]
    if len(gain) < 2 or (gain == 0).all():
        return f"{len(gain)} pairs"
    p = float(wilcoxon(gain).pvalue)
    return f"paired: {gain.mean():+.3f} intra, higher in {int((gain > 0).sum())} of {len(gain)} (Wilcoxon p = {p:.2g})"


def bn_collapse_grows_with_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 2: over interpolating runs, collapse rises in rank with weight decay with BN.

    Without BN it must show no such trend, or change by less than half as much.
    """
    checks = []
    for title, all_bn, all_plain in _against_no_bn(_trained_gamma(_measured(runs))):
        bn, plain = _fitting(all_bn), _fitting(all_plain)
        if not (_allows_trend(bn, "weight_decay") and _allows_trend(plain, "weight_decay")):
            if len(all_bn) and len(all_plain):
                checks.append(Check(None, f"{title}: too few runs{_left_out(all_bn, all_plain)}"))
            continue
        up, down = (rank_trend(bn, "weight_decay", measure) for measure in (INTRA, INTER))
        plain_up = rank_trend(plain, "weight_decay", INTRA)
        gain, plain_gain = _gain_over_decay(bn), _gain_over_decay(plain)
        right = up.rises and down.falls and (not plain_up.rises or plain_gain < gain / 2)
        line = (
            f"{title}: rank correlation of weight decay with intra {up}, with inter {down} with BN, "
            f"with intra {plain_up} without; change of intra {gain:+.3f} with BN, {plain_gain:+.3f} without; "
            f"{_seeds(bn, plain)}{_left_out(all_bn, all_plain)}"
        )
        checks.append(Check(right, line))
    claim = (
        "2. With BN collapse grows with weight decay while the model interpolates, without BN it is unsteady or falls"
    )
    return _verdict(claim, checks, f"interpolating runs with and without BN at {_SPREAD.format('weight decays')}")


def _gain_over_decay(part: pd.DataFrame) -> float:
    cells = part.groupby("weight_decay")[INTRA].mean().sort_index()
    return float(cells.iloc[-1] - cells.iloc[0])


def bn_collapse_follows_loss(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 3: over the epochs of a run with BN min intra rises as the loss falls, in rank.

    After a quarter of the training it must still gain, and without BN less than half as much.
    """
    rows = history[(history["split"] == "train") & (history["layer"] == "last")]
    checks = []
    for title, bn, plain in _against_no_bn(_trained_gamma(_measured(runs))):
        (follow, gain, with_bn), (plain_follow, plain_gain, without) = (_path(part, rows) for part in (bn, plain))
        if with_bn and without:
            line = (
                f"{title}: rank correlation of loss with intra over epochs {follow:+.2f} with BN, {plain_follow:+.2f} "
                f"without; intra after a quarter of training {gain:+.3f} with BN, {plain_gain:+.3f} without; "
                f"{with_bn} and {without} runs, {_seeds(bn, plain)}"
            )
            checks.append(Check(follow < -_TREND and plain_gain < gain / 2, line))
    claim = "3. With BN collapse follows the training loss down, without BN it stalls after the first epochs"
    return _verdict(claim, checks, "runs with and without BN that were measured at 8 epochs or more")


def _path(part: pd.DataFrame, rows: pd.DataFrame) -> tuple[float, float, int]:
    """Means over runs: correlation of loss and intra, gain of intra after a quarter of training; number of runs."""
    correlations, gains = [], []
    for folder in part["folder"]:
        path = rows[(rows["folder"] == folder) & (rows["epoch"] > 0)].sort_values("epoch")
        path = path.dropna(subset=["loss", "intra_min"])
        if len(path) >= 8:
            after = path[path["epoch"] >= path["epoch"].max() / 4]
            correlations.append(rank_trend(path, "loss", "intra_min", None, orders=0).correlation)
            gains.append(float(after["intra_min"].iloc[-1] - after["intra_min"].iloc[0]))
    if not correlations:
        return 0.0, 0.0, 0
    return float(np.mean(correlations)), float(np.mean(gains)), len(correlations)


def smaller_gamma_collapses_more(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 4: over interpolating runs intra falls and inter rises in rank with a fixed gamma.

    The text says "higher feature norm" where theorem and plots show the opposite; the opposite is tested. The
    authors except the 6-layer MLP on the conic hull: it is reported and not counted.
    """
    measured = _measured(runs, "model.gamma") if "model.gamma" in runs else _measured(runs.iloc[:0])
    checks = []
    for title, part in _settings(measured, "model.gamma"):
        excepted = (part["data.name"] == "conic_hull").all() and (part["model.depth"] == 6).all()
        for decay, whole in part.groupby("weight_decay"):
            cell = _fitting(whole)
            name = f"{title}, weight decay {decay:g}" + (" (excepted by the authors)" if excepted else "")
            if not _allows_trend(cell, "model.gamma"):
                checks.append(Check(None, f"{name}: too few runs{_left_out(whole)}"))
                continue
            up, down = (rank_trend(cell, "model.gamma", measure) for measure in (INTRA, INTER))
            ends = cell.groupby("model.gamma")[INTRA].mean().sort_index()
            line = (
                f"{name}: rank correlation of gamma with intra {up}, with inter {down}; intra {ends.iloc[0]:.3f} at "
                f"gamma {ends.index[0]:g}, {ends.iloc[-1]:.3f} at {ends.index[-1]:g}; {_seeds(cell)}{_left_out(whole)}"
            )
            checks.append(Check(None if excepted else up.falls and down.rises, line))
    claim = "4. Smaller |gamma| gives more collapse (but for the 6-layer MLP on the conic hull)"
    return _verdict(claim, checks, f"interpolating runs at {_SPREAD.format('fixed values of model.gamma')}")


def thousand_classes_vgg_parts_from_theory(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 5: with 1000 classes the 95 % quantile of inter rises with weight decay for VGG, not for ResNet.

    Runs that do not interpolate count, as in the published figure, and are told.
    """
    quantile, classes = "train/inter_quantile", "train/classes_present"
    measured = _measured(runs, quantile, classes, "model.name") if quantile in runs else _measured(runs.iloc[:0])
    thousand = _trained_gamma(measured[measured[classes] == 1000] if len(measured) else measured)
    checks = {}
    for title, part in _settings(thousand):
        family = next((name for name in ("vgg", "resnet") if part["model.name"].iloc[0].startswith(name)), None)
        if family is None or not _allows_trend(part, "weight_decay"):
            continue
        trend = rank_trend(part, "weight_decay", quantile)
        missed = int((part[FITS] != 1).sum())
        line = f"{title}: rank correlation of weight decay with inter {trend}; {_seeds(part)}; {missed} of {len(part)}"
        right = trend.rises if family == "vgg" else not trend.rises
        checks[title] = (family, Check(right, f"{line} runs do not interpolate"))
    families = {family for family, _ in checks.values()}
    found = [check for _, check in checks.values()] if len(families) == 2 else []
    claim = "5. With 1000 classes VGG's inter rises with weight decay, against the theory, ResNet's does not"
    return _verdict(claim, found, f"VGG and ResNet runs on 1000 classes at {_SPREAD.format('weight decays')}")


CLAIMS: tuple[Claim, ...] = (
    bn_collapses_most,
    bn_collapse_grows_with_decay,
    bn_collapse_follows_loss,
    smaller_gamma_collapses_more,
    thousand_classes_vgg_parts_from_theory,
)
