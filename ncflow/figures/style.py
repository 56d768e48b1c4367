"""One look for all figures: colours that colour-blind readers tell apart, shapes besides colours, no clutter."""

import textwrap
from collections.abc import Iterable
from typing import Any
from zlib import crc32

from ncflow.results import one_line

# Okabe and Ito's palette, chosen so that every pair stays apart in the common kinds of colour blindness.
COLOURS = {"last": "#0072B2", "all": "#009E73", "torchvision": "#CC79A7", "fixed": "#E69F00", "none": "#D55E00"}
LOSS_COLOUR = "#000000"
MARKERS = {"last": "o", "all": "^", "torchvision": "D", "fixed": "v", "none": "s"}
NORM_LABELS = {
    "last": "BN before the classifier",
    "all": "BN in every layer",
    "torchvision": "BN after convolutions",
    "fixed": "BN with fixed gamma",
    "none": "no BN",
}
# For a norm of a user's own, by its name, so that it looks the same in every figure.
_OWN_COLOURS, _OWN_MARKERS = ("#56B4E9", "#000000", "#999999"), ("P", "X", "p", "h", "*")
# For classes, weight decays and the like, where no BN placement is meant.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
PUBLISHED_COLOUR = "0.45"

LABELS = {
    "intra_min": "min intra-class cosine",
    "intra_mean": "mean intra-class cosine",
    "intra_quantile": "5 % quantile of intra-class cosine",
    "inter_max": "max inter-class cosine",
    "inter_mean": "mean inter-class cosine",
    "inter_quantile": "95 % quantile of inter-class cosine",
    "intra_raw_min": "min intra-class cosine, not centred",
    "inter_raw_max": "max inter-class cosine, not centred",
    "nc3_cosine_min": "min NC3 cosine",
    "nc3_cosine_mean": "mean NC3 cosine",
    "loss": "training loss",
    "accuracy": "accuracy",
    "ncc_accuracy": "accuracy of the nearest class mean",
    "weight_decay": "weight decay $\\lambda$",
    "gamma_norm": "norm of the fixed BN scale $|\\gamma|$",
    "regularized_loss": "CE + penalty of the last layer (nats)",
    "regularized_loss_gap": "gap to the least regularised loss (nats)",
    "loss_gap": "gap to the least CE at these norms (nats)",
    "epoch": "epoch",
    "step": "optimiser step",
    "rho": "product of weight norms $\\rho$",
    "test_error": "test error",
    "init_norm": "initial norm",
    "random_labels": "share of random labels",
    "batch_size": "batch size",
    "nc1": "NC1",
    "nc0": "NC0, $|1^T W|$",
    "nc0_relative": "relative NC0, $|1^T W|/|W|_F$",
    "weight_decay_coupling": "share of weight decay in the gradient",
    "momentum": "momentum $\\mu$",
    "nc2_equinorm_means": "equinorm, means",
    "nc2_equinorm_weights": "equinorm, weights",
    "nc2_equiangular_means": "equiangularity, means",
    "nc2_equiangular_weights": "equiangularity, weights",
}

DATA_LABELS = {
    "conic_hull": "conic hull",
    "teacher_mlp": "labelled by an MLP",
    "teacher_mlp_small": "labelled by a small MLP",
    "sample_index": "free features",
    "digits32": "digits, 32 x 32",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenet32": "ImageNet32",
}


_LONGEST_NAME = 60


def words(value: Any) -> str:
    """A value of a run's config as one short line, whoever named it so."""
    return one_line(f"{value:g}" if isinstance(value, float) else value, _LONGEST_NAME)


def fold(text: str, inches: float, size: float = 11) -> str:
    """Words in lines that fit into a width, at a size of the letters in points."""
    return "\n".join(textwrap.fill(line, max(8, int(inches * 72 / (0.55 * size)))) for line in text.splitlines())


def literal(text: str) -> str:
    """Words for a text of matplotlib, in which a dollar sign is one and begins no formula."""
    return text.replace("$", r"\$")


def norm_looks(norms: Iterable[Any]) -> dict[Any, tuple[str, str]]:
    """A colour and a shape of the points for each BN placement, or for whatever a user's own model calls its norm.

    Ours always look the same, and so do others, by their name, as far as they can be told apart.
    """
    looks: dict[Any, tuple[str, str]] = {}
    for norm in sorted(set(norms), key=norm_order):
        if isinstance(norm, str) and norm in COLOURS:
            looks[norm] = COLOURS[norm], MARKERS[norm]
            continue
        first, count = _hash(norm), len(_OWN_COLOURS)
        own = [
            (_OWN_COLOURS[(first + k) % count], _OWN_MARKERS[(first // count + k // count + k) % len(_OWN_MARKERS)])
            for k in range(count * len(_OWN_MARKERS))
        ]
        taken = set(looks.values())
        colours = {colour for colour, _ in taken}
        free = [look for look in own if look[0] not in colours] or [look for look in own if look not in taken] or own
        looks[norm] = free[0]
    return looks


def norm_label(norm: Any) -> str:
    """Words for a BN placement, and for what else tells it apart after a comma."""
    placed, comma, more = str(norm).partition(", ")
    return NORM_LABELS[placed] + comma + words(more) if placed in NORM_LABELS else words(norm)


def norm_order(norm: Any) -> tuple[int, str]:
    """Sort key of BN placements: ours as in ``COLOURS``, then others by name."""
    ours, placed = list(COLOURS), str(norm).partition(", ")[0]
    return (ours.index(placed) if placed in ours else len(ours)), str(norm)


def data_label(name: Any) -> str:
    """Words for a data set."""
    return DATA_LABELS[name] if isinstance(name, str) and name in DATA_LABELS else words(name)


def _hash(value: Any) -> int:
    return crc32(str(value).encode(errors="replace"))


def label(column: str) -> str:
    """Words for a measure or a config column."""
    name = column.rsplit(".", 1)[-1]
    return LABELS.get(name, name.replace("_", " "))


def use() -> None:
    """Set matplotlib up: no window, readable sizes, text in SVG and PDF as text."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 160,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "lines.markersize": 6,
            "svg.fonttype": "none",
            "svg.hashsalt": "ncflow",  # the same figure, the same file
            "pdf.fonttype": 42,
            "figure.constrained_layout.use": True,
        }
    )
