"""One look for all figures: colours that colour-blind readers tell apart, shapes besides colours, no clutter."""

import matplotlib

# Okabe and Ito's palette, chosen so that every pair stays apart in the common kinds of colour blindness.
COLOURS = {"last": "#0072B2", "all": "#009E73", "torchvision": "#CC79A7", "none": "#D55E00"}
LOSS_COLOUR = "#000000"
MARKERS = {"last": "o", "all": "^", "torchvision": "D", "none": "s"}
NORM_LABELS = {"last": "BN before the classifier", "all": "BN in every layer", "none": "no BN"}

LABELS = {
    "intra_min": "min intra-class cosine",
    "intra_mean": "mean intra-class cosine",
    "intra_quantile": "5 % quantile of intra-class cosine",
    "inter_max": "max inter-class cosine",
    "inter_mean": "mean inter-class cosine",
    "inter_quantile": "95 % quantile of inter-class cosine",
    "nc3_cosine_min": "min NC3 cosine",
    "nc3_cosine_mean": "mean NC3 cosine",
    "loss": "training loss (nats)",
    "accuracy": "accuracy",
    "weight_decay": "weight decay $\\lambda$",
    "gamma": "fixed BN scale $\\gamma$",
    "epoch": "epoch",
}

DATA_LABELS = {"conic_hull": "conic hull", "teacher_mlp": "labelled by an MLP", "digits": "digits", "arrays": "arrays"}


def use() -> None:
    """Set matplotlib up: no window, readable sizes, text in SVG and PDF as text."""
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
            "pdf.fonttype": 42,
            "figure.constrained_layout.use": True,
        }
    )
