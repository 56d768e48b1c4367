"""Claims of Pan and Cao as functions from runs to a verdict with its numbers. A new claim is an entry of ``CLAIMS``."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
from scipy.stats import spearmanr

from ncflow.figures.plots import panel_title
from ncflow.figures.tables import finished, panels

HOLDS, FAILS, TOO_FEW = "holds", "does not hold", "not enough runs"
INTRA, INTER = "train/intra_min", "train/inter_max"

# A rank correlation below this is not called a trend.
_TREND = 0.5


@dataclass(frozen=True)
class Verdict:
    """A claim, the answer (``holds``, ``does not hold``, ``not enough runs``) and the numbers behind it."""

    claim: str
    answer: str
    numbers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.answer.upper():>16}  {self.claim}", *(f"{'':18}{line}" for line in self.numbers)])


Claim = Callable[[pd.DataFrame, pd.DataFrame], Verdict]


def _verdict(claim: str, checks: list[tuple[bool, str]], needs: str) -> Verdict:
    """The claim holds where it holds in every panel; each panel gives a line."""
    if not checks:
        return Verdict(claim, TOO_FEW, (f"needs {needs}",))
    lines = tuple(("" if right else "against it: ") + line for right, line in checks)
    return Verdict(claim, HOLDS if all(right for right, _ in checks) else FAILS, lines)


def _usable(runs: pd.DataFrame) -> pd.DataFrame:
    """Finished, measured runs whose gamma is trained, with a flag for BN."""
    done = finished(runs)
    columns = [INTRA, INTER, "model.norm", "weight_decay"]
    if not all(column in done for column in columns):
        return done.iloc[:0].assign(bn=False)
    done = done.dropna(subset=columns)
    if "model.gamma" in done:
        done = done[done["model.gamma"].isna()]
    return done.assign(bn=done["model.norm"] != "none")


def _panels(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for values, part in panels(runs.drop(columns="bn")) if len(runs) else ():
        yield panel_title(values) or "all runs", part.assign(bn=runs["bn"])


def _correlation(part: pd.DataFrame, x: str, y: str) -> float:
    """Spearman's rank correlation over all runs, seeds being repetitions; 0 where one of them does not vary."""
    if part[x].nunique() < 2 or part[y].nunique() < 2:
        return 0.0
    return float(spearmanr(part[x], part[y]).statistic)


def bn_collapses_most(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 1: compare the best cell over weight decay, averaged over seeds, with and without BN in every panel."""
    checks = []
    for title, part in _panels(_usable(runs)):
        best = {}
        for bn, of_norm in part.groupby("bn"):
            cells = of_norm.groupby("weight_decay")[[INTRA, INTER]].mean()
            best[bn] = (cells[INTRA].max(), cells[INTER].min(), len(cells), of_norm["seed"].nunique())
        if len(best) == 2 and min(values[2] for values in best.values()) >= 2:
            (a, b, _, n), (c, d, _, m) = best[True], best[False]
            line = f"{title}: intra {a:.3f} with BN, {c:.3f} without; inter {b:.3f} and {d:.3f}; {min(n, m)} seeds"
            checks.append((bool(a > c and b < d), line))
    claim = "1. With BN and suitable weight decay collapse is strongest, without BN it is weaker"
    return _verdict(claim, checks, "runs with and without BN at two weight decays or more")


def bn_collapse_grows_with_decay(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 2: over interpolating runs, collapse rises in rank with weight decay with BN.

    Without BN it must show no such trend, or change by less than half as much.
    """
    checks = []
    for title, part in _panels(_usable(runs)):
        fitting = part[part["train/interpolated"] == 1]
        bn, plain = fitting[fitting["bn"]], fitting[~fitting["bn"]]
        if bn["weight_decay"].nunique() < 3 or plain["weight_decay"].nunique() < 3:
            continue
        up, down = _correlation(bn, "weight_decay", INTRA), _correlation(bn, "weight_decay", INTER)
        plain_up = _correlation(plain, "weight_decay", INTRA)
        gain, plain_gain = _gain_over_decay(bn), _gain_over_decay(plain)
        right = up > _TREND and down < -_TREND and (plain_up < _TREND or plain_gain < gain / 2)
        line = (
            f"{title}: rank correlation of weight decay with intra {up:+.2f}, with inter {down:+.2f} with BN, "
            f"with intra {plain_up:+.2f} without; change of intra {gain:+.3f} with BN, {plain_gain:+.3f} without; "
            f"{len(bn)} and {len(plain)} runs, {len(part) - len(fitting)} that do not interpolate left out"
        )
        checks.append((right, line))
    claim = (
        "2. With BN collapse grows with weight decay while the model interpolates, without BN it is unsteady or falls"
    )
    return _verdict(claim, checks, "interpolating runs with and without BN at three weight decays or more")


def _gain_over_decay(part: pd.DataFrame) -> float:
    cells = part.groupby("weight_decay")[INTRA].mean().sort_index()
    return float(cells.iloc[-1] - cells.iloc[0])


def bn_collapse_follows_loss(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 3: over the epochs of a run with BN min intra rises as the loss falls, in rank.

    After a quarter of the training it must still gain, and without BN less than half as much.
    """
    usable = _usable(runs)
    rows = history[(history["split"] == "train") & (history["layer"] == "last")]
    checks = []
    for title, part in _panels(usable):
        correlations: dict[bool, list[float]] = {True: [], False: []}
        late: dict[bool, list[float]] = {True: [], False: []}
        for _, run in part.iterrows():
            path = rows[(rows["folder"] == run["folder"]) & (rows["epoch"] > 0)].sort_values("epoch")
            if len(path) < 8:
                continue
            after = path[path["epoch"] >= path["epoch"].max() / 4]
            correlations[run["bn"]].append(_correlation(path, "loss", "intra_min"))
            late[run["bn"]].append(float(after["intra_min"].iloc[-1] - after["intra_min"].iloc[0]))
        if correlations[True] and correlations[False]:
            follow = {bn: sum(values) / len(values) for bn, values in correlations.items()}
            gain = {bn: sum(values) / len(values) for bn, values in late.items()}
            line = (
                f"{title}: rank correlation of loss with intra "
                f"{follow[True]:+.2f} with BN, {follow[False]:+.2f} without; "
                f"intra after a quarter of training {gain[True]:+.3f} with BN, {gain[False]:+.3f} without; "
                f"{len(late[True])} and {len(late[False])} runs"
            )
            checks.append((follow[True] < -_TREND and gain[False] < gain[True] / 2, line))
    claim = "3. With BN collapse follows the training loss down, without BN it stalls after the first epochs"
    return _verdict(claim, checks, "runs with and without BN that were measured at 8 epochs or more")


def smaller_gamma_collapses_more(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 4: rank correlation of a fixed gamma with the measures.

    The text says "higher feature norm" where theorem and plots show the opposite; the opposite is tested. The
    authors except the 6-layer MLP on the conic hull.
    """
    done = finished(runs)
    checks = []
    if "model.gamma" in done and INTRA in done:
        fixed = done[done["model.gamma"].notna() & done[INTRA].notna()]
        for values, part in panels(fixed, "model.gamma"):
            for decay, cell in part.groupby("weight_decay"):
                if cell["model.gamma"].nunique() >= 3:
                    up, down = _correlation(cell, "model.gamma", INTRA), _correlation(cell, "model.gamma", INTER)
                    title = panel_title(values) or "all runs"
                    line = (
                        f"{title}, weight decay {decay:g}: rank correlation of gamma "
                        f"with intra {up:+.2f}, with inter {down:+.2f}"
                    )
                    checks.append((up < -_TREND, f"{line}; {len(cell)} runs"))
    claim = "4. Smaller |gamma| gives more collapse"
    return _verdict(claim, checks, "runs with three fixed values of model.gamma or more")


def thousand_classes_vgg_parts_from_theory(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 5: with 1000 classes the 95 % quantile of inter rises with weight decay for VGG, not for ResNet."""
    claim = "5. With 1000 classes VGG's inter rises with weight decay, against the theory, ResNet's does not"
    needs = "VGG and ResNet runs on 1000 classes at three weight decays or more"
    usable = _usable(runs)
    usable = usable[usable["train/classes_present"] == 1000] if len(usable) else usable
    checks = []
    for family, rises in (("vgg", True), ("resnet", False)):
        part = usable[usable["model.name"].str.startswith(family)] if len(usable) else usable
        if len(part) and part["weight_decay"].nunique() >= 3:
            trend = _correlation(part, "weight_decay", "train/inter_quantile")
            line = f"{family}: rank correlation of weight decay with inter {trend:+.2f}; {len(part)} runs"
            checks.append(((trend > _TREND) == rises, line))
    return _verdict(claim, checks if len(checks) == 2 else [], needs)


CLAIMS: tuple[Claim, ...] = (
    bn_collapses_most,
    bn_collapse_grows_with_decay,
    bn_collapse_follows_loss,
    smaller_gamma_collapses_more,
    thousand_classes_vgg_parts_from_theory,
)
