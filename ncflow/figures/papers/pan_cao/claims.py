"""Claims of Pan and Cao. A new claim is an entry of ``CLAIMS``."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon

from ncflow.figures.papers.verdict import (
    ENOUGH,
    FITS,
    INTER,
    INTRA,
    TREND,
    Check,
    Claim,
    Verdict,
    allows_trend,
    fitting,
    left_out,
    measured_runs,
    rank_trend,
    seed_count,
    settings,
    verdict_of,
)
from ncflow.figures.style import norm_label
from ncflow.figures.tables import last_layer, trained_gamma


def _against_no_bn(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """(name, runs with a BN placement, runs without BN) for each setting and placement."""
    for title, part in settings(runs):
        plain = part[~part["bn"]]
        placements = sorted(part.loc[part["bn"], "model.norm"].unique())
        for placement in placements:
            name = f"{title}, {norm_label(placement)}" if len(placements) > 1 else title
            yield name, part[part["model.norm"] == placement], plain


def bn_collapses_most(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 1: the best weight decay with BN beats the best without, in mean over seeds, in intra and in inter.

    Beside it the runs that differ in BN alone are paired, over weight decays and seeds.
    """
    checks = []
    for title, all_bn, all_plain in _against_no_bn(trained_gamma(measured_runs(runs))):
        bn, plain = fitting(all_bn), fitting(all_plain)
        if min(bn["weight_decay"].nunique(), plain["weight_decay"].nunique()) < 2:
            if len(all_bn) and len(all_plain):
                checks.append(Check(None, f"{title}: too few weight decays{left_out(all_bn, all_plain)}"))
            continue
        cells = [part.groupby("weight_decay")[[INTRA, INTER]].mean() for part in (bn, plain)]
        (a, b), (c, d) = ((cell[INTRA].max(), cell[INTER].min()) for cell in cells)
        line = (
            f"{title}: best intra {a:.3f} with BN, {c:.3f} without; best inter {b:.3f} and {d:.3f}; "
            f"{_paired_gain(bn, plain)}; {seed_count(bn, plain)}{left_out(all_bn, all_plain)}"
        )
        checks.append(Check(bool(a > c and b < d), line))
    claim = "1. With BN and suitable weight decay collapse is strongest, without BN it is weaker"
    return verdict_of(claim, checks, "interpolating runs with and without BN at two weight decays or more")


def _paired_gain(bn: pd.DataFrame, plain: pd.DataFrame) -> str:
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
    for title, all_bn, all_plain in _against_no_bn(trained_gamma(measured_runs(runs))):
        bn, plain = fitting(all_bn), fitting(all_plain)
        if not (allows_trend(bn, "weight_decay") and allows_trend(plain, "weight_decay")):
            if len(all_bn) and len(all_plain):
                checks.append(Check(None, f"{title}: too few runs{left_out(all_bn, all_plain)}"))
            continue
        up, down = (rank_trend(bn, "weight_decay", measure) for measure in (INTRA, INTER))
        plain_up = rank_trend(plain, "weight_decay", INTRA)
        gain, plain_gain = _gain_over_decay(bn), _gain_over_decay(plain)
        right = up.rises and down.falls and (not plain_up.rises or plain_gain < gain / 2)
        line = (
            f"{title}: rank correlation of weight decay with intra {up}, with inter {down} with BN, "
            f"with intra {plain_up} without; change of intra {gain:+.3f} with BN, {plain_gain:+.3f} without; "
            f"{seed_count(bn, plain)}{left_out(all_bn, all_plain)}"
        )
        checks.append(Check(right, line))
    claim = (
        "2. With BN collapse grows with weight decay while the model interpolates, without BN it is unsteady or falls"
    )
    return verdict_of(claim, checks, f"interpolating runs with and without BN at {ENOUGH.format('weight decays')}")


def _gain_over_decay(part: pd.DataFrame) -> float:
    cells = part.groupby("weight_decay")[INTRA].mean().sort_index()
    return float(cells.iloc[-1] - cells.iloc[0])


def bn_collapse_follows_loss(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 3: over the epochs of a run with BN min intra rises as the loss falls, in rank.

    After a quarter of the training it must still gain, and without BN less than half as much.
    """
    rows = last_layer(history)
    checks = []
    for title, bn, plain in _against_no_bn(trained_gamma(measured_runs(runs))):
        (follow, gain, with_bn), (plain_follow, plain_gain, without) = (_path(part, rows) for part in (bn, plain))
        if with_bn and without:
            line = (
                f"{title}: rank correlation of loss with intra over epochs {follow:+.2f} with BN, {plain_follow:+.2f} "
                f"without; intra after a quarter of training {gain:+.3f} with BN, {plain_gain:+.3f} without; "
                f"{with_bn} and {without} runs, {seed_count(bn, plain)}"
            )
            checks.append(Check(follow < -TREND and plain_gain < gain / 2, line))
    claim = "3. With BN collapse follows the training loss down, without BN it stalls after the first epochs"
    return verdict_of(claim, checks, "runs with and without BN that were measured at 8 epochs or more")


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
    measured = measured_runs(runs, "model.gamma")
    checks = []
    for title, part in settings(measured, "model.gamma"):
        excepted = (part["data.name"] == "conic_hull").all() and (part["model.depth"] == 6).all()
        for decay, whole in part.groupby("weight_decay"):
            cell = fitting(whole)
            name = f"{title}, weight decay {decay:g}" + (" (excepted by the authors)" if excepted else "")
            if not allows_trend(cell, "model.gamma"):
                checks.append(Check(None, f"{name}: too few runs{left_out(whole)}"))
                continue
            up, down = (rank_trend(cell, "model.gamma", measure) for measure in (INTRA, INTER))
            ends = cell.groupby("model.gamma")[INTRA].mean().sort_index()
            line = (
                f"{name}: rank correlation of gamma with intra {up}, with inter {down}; intra {ends.iloc[0]:.3f} at "
                f"gamma {ends.index[0]:g}, {ends.iloc[-1]:.3f} at {ends.index[-1]:g}; {seed_count(cell)}"
                f"{left_out(whole)}"
            )
            checks.append(Check(None if excepted else up.falls and down.rises, line))
    claim = "4. Smaller |gamma| gives more collapse (but for the 6-layer MLP on the conic hull)"
    return verdict_of(claim, checks, f"interpolating runs at {ENOUGH.format('fixed values of model.gamma')}")


def thousand_classes_vgg_parts_from_theory(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 5: with 1000 classes the 95 % quantile of inter rises with weight decay for VGG, not for ResNet.

    Runs that do not interpolate count, as in the published figure, and are told.
    """
    quantile, classes = "train/inter_quantile", "train/classes_present"
    measured = measured_runs(runs, quantile, classes, "model.name")
    thousand = trained_gamma(measured[measured[classes] == 1000] if len(measured) else measured)
    checks = []
    for title, part in settings(thousand):
        family = next((name for name in ("vgg", "resnet") if part["model.name"].iloc[0].startswith(name)), None)
        if family is None or not allows_trend(part, "weight_decay"):
            continue
        trend = rank_trend(part, "weight_decay", quantile)
        missed = int((part[FITS] != 1).sum())
        line = (
            f"{title}: rank correlation of weight decay with inter {trend}; {seed_count(part)}; {missed} of {len(part)}"
        )
        right = trend.rises if family == "vgg" else not trend.rises
        checks.append((family, Check(right, f"{line} runs do not interpolate")))
    families = {family for family, _ in checks}
    found = [check for _, check in checks] if len(families) == 2 else []
    claim = "5. With 1000 classes VGG's inter rises with weight decay, against the theory, ResNet's does not"
    return verdict_of(claim, found, f"VGG and ResNet runs on 1000 classes at {ENOUGH.format('weight decays')}")


CLAIMS: tuple[Claim, ...] = (
    bn_collapses_most,
    bn_collapse_grows_with_decay,
    bn_collapse_follows_loss,
    smaller_gamma_collapses_more,
    thousand_classes_vgg_parts_from_theory,
)
