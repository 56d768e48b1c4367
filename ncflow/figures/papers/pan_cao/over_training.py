"""Claims of Pan and Cao on what happens while a network trains: their section 3.3, figures 3, 7 and 8."""

import numpy as np
import pandas as pd

from ncflow.figures.papers.pan_cao.comparing import BY_DECAY, comparisons
from ncflow.figures.papers.selection import belonging, by_seed, left_out, settings
from ncflow.figures.papers.verdict import COSINE, Effect, Quantifier, Setting, Verdict
from ncflow.figures.tables import last_layer

# Spearman's correlation of loss and intra over the epochs of a run.
FOLLOWS = 0.5
# Decades of the training loss: a twentieth is 12 percent.
LOSS_FALLS = 0.05
FEWEST_EPOCHS = 8
_MEASURED_OFTEN = f"{BY_DECAY} (measured at {FEWEST_EPOCHS} epochs or more)"
_SYNTHETIC = ("conic_hull", "teacher_mlp")


def bn_collapse_follows_loss(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 3: over the epochs of an interpolating run with BN intra rises as the loss falls, and it goes on to rise.

    Without BN it stalls: after a quarter of the training it gains nothing that matters.
    """
    measured, others = belonging(runs)
    rows = _epochs(last_layer(history), measured, "intra_min")

    def effects(bn: pd.DataFrame, plain: pd.DataFrame) -> tuple[Effect, ...]:
        of_bn, of_plain = (rows[rows["folder"].isin(part["folder"])] for part in (bn, plain))
        follows, quarter = (
            "minus the rank correlation of loss and intra over epochs",
            "of intra after a quarter of training",
        )
        found = (
            Effect(f"{follows} with BN", FOLLOWS, _over_seeds(_follows(of_bn))),
            Effect(f"gain {quarter} with BN", COSINE, _over_seeds(_late_gain(of_bn))),
            Effect(f"gain {quarter} without BN", COSINE, _over_seeds(_late_gain(of_plain)), absent=True),
        )
        return found if all(effect.blocks for effect in found) else ()

    return Verdict(
        "pan_cao/3",
        "3. With BN collapse follows the training loss down, without BN it stalls after the first epochs",
        "Pan and Cao, section 3.3 and appendix B.3, figures 3, 7 and 8",
        Quantifier.ALL,
        comparisons(measured, effects),
        _MEASURED_OFTEN,
        "means over the weight decays of a seed",
        others,
    )


def inter_rises_early_without_bn(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Section 3.3: on real data without BN the worst inter rises in the first quarter of training as the loss falls.

    Whether a run interpolates in the end does not matter. Of synthetic data the text says that nothing changes much.
    """
    measured, others = belonging(runs)
    found = []
    plain = measured[~measured["bn"]]
    rows = _epochs(last_layer(history), plain, "inter_max")
    early = rows[rows["epoch"] <= rows["last"] / 4].groupby(["seed", "folder"])
    starts, ends = early.first(), early.last()
    logs = (np.log10(np.maximum(part["loss"], np.finfo(float).tiny)) for part in (starts, ends))
    changes = pd.DataFrame({"inter": ends["inter_max"] - starts["inter_max"], "loss": next(logs) - next(logs)})
    changes = changes[starts["epoch"] < ends["epoch"]]
    for title, part in settings(plain):
        own = changes[changes.index.isin(part["folder"], level="folder")]
        if own.empty:
            continue
        rise, fall = "rise of the worst inter in the first quarter of training", "decades by which the loss falls in it"
        effects = (
            Effect(rise, COSINE, _over_seeds(own["inter"])),
            Effect(fall, LOSS_FALLS, _over_seeds(own["loss"])),
        )
        synthetic = bool(part["data.name"].astype(str).str.startswith(_SYNTHETIC).all())
        why = "the text says it of real data" if synthetic else ""
        note = "; ".join(filter(None, (why, left_out(part).replace(", left out", ""))))
        found.append(Setting(title, effects, len(own), note, synthetic))
    return Verdict(
        "pan_cao/early-inter",
        "On real data without BN the worst inter first rises while the training loss falls",
        "Pan and Cao, section 3.3 and appendix B.3, figures 3 and 8",
        Quantifier.ALL,
        tuple(found),
        _MEASURED_OFTEN.replace("last,none", "none").replace("experiment=...", "experiment=... data=digits"),
        "first is from the first measurement to a quarter of the epochs: ours; means over the weight decays of a seed",
        others,
    )


def _epochs(rows: pd.DataFrame, runs: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The measured epochs after the start, in order, of runs that have enough of them; with ``seed`` and ``last``."""
    rows = rows.loc[(rows["epoch"] > 0) & rows["folder"].isin(runs["folder"]), ["folder", "epoch", "loss", measure]]
    rows = rows.dropna().sort_values("epoch", kind="stable")
    rows = rows[rows.groupby("folder")["epoch"].transform("size") >= FEWEST_EPOCHS]
    seeds = rows["folder"].map(dict(zip(runs["folder"], runs["seed"], strict=True)))
    return rows.assign(seed=seeds, last=rows.groupby("folder")["epoch"].transform("max"))


def _follows(rows: pd.DataFrame) -> "pd.Series[float]":
    """Minus Spearman's correlation of loss and intra over epochs, by seed and run; 0 if one of them is constant."""
    keys = [rows["seed"], rows["folder"]]
    ranks = rows.groupby(["seed", "folder"])[["loss", "intra_min"]].rank()
    loss, intra = (ranks[name] - ranks[name].groupby(keys).transform("mean") for name in ("loss", "intra_min"))
    products, losses, intras = ((a * b).groupby(keys).sum() for a, b in ((loss, intra), (loss, loss), (intra, intra)))
    scale = (losses * intras) ** 0.5
    return -(products / scale.where(scale > 0)).fillna(0.0)


def _late_gain(rows: pd.DataFrame) -> "pd.Series[float]":
    """What intra gains from a quarter of the training to its end, by seed and run."""
    late = rows[rows["epoch"] >= rows["last"] / 4].groupby(["seed", "folder"])["intra_min"]
    return late.last() - late.first()


def _over_seeds(values: "pd.Series[float]") -> dict[float, float]:
    """Means over the runs of each seed."""
    return by_seed(values.groupby("seed").mean())
