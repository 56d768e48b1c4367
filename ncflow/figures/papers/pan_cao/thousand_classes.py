"""Claims of Pan and Cao on 1000 classes: their appendix B.2, figure 6, judged on the worst class, which the text names.

The published figure draws quantiles, and what they give is told beside. Runs that do not interpolate count, as in it.
"""

from collections.abc import Iterator

import pandas as pd

from ncflow.figures.papers.as_words import effects
from ncflow.figures.papers.selection import FITS, INTER, INTRA, belonging, settings, slope_effect
from ncflow.figures.papers.verdict import SEEDS, Effect, Quantifier, Setting, Verdict
from ncflow.figures.tables import trained_gamma

_CLASSES = "train/classes_present"
_WORST = {"intra": INTRA, "inter": INTER}
_QUANTILE = {"intra": "train/intra_quantile", "inter": "train/inter_quantile"}
_NAMES = {"intra": "the 5 % quantile of intra", "inter": "the 95 % quantile of inter"}
_SOURCE = "Pan and Cao, appendix B.2, figure 6"


def _thousand(runs: pd.DataFrame) -> tuple[list[tuple[str, str, pd.DataFrame]], dict[str, int]]:
    """(family, name, runs) of each setting of VGG or ResNet with 1000 classes, and how many runs do not count."""
    measured, others = belonging(runs, _CLASSES, "model.name")
    thousand = trained_gamma(measured[measured[_CLASSES] == 1000] if len(measured) else measured)
    return list(_families(thousand)), others


def _families(runs: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for title, part in settings(runs):
        for family in ("vgg", "resnet"):
            if part["model.name"].iloc[0].startswith(family):
                yield family, title, part


def _rise(part: pd.DataFrame, measure: str, columns: dict[str, str], family: str) -> Effect:
    words = f"the worst {measure}" if columns is _WORST else _NAMES[measure]
    absent = family == "resnet"
    return slope_effect(
        part, "weight_decay", columns[measure], f"rise of {words} per decade of weight decay, {family}", absent=absent
    )


def _setting(family: str, title: str, part: pd.DataFrame, *measures: str) -> Setting:
    """A setting by its worst class or pair, and in the note what the quantiles give."""
    note = f"{int((part[FITS] != 1).sum())} of {len(part)} runs do not interpolate"
    if set(_QUANTILE.values()) <= set(part.columns):
        beside = Setting(title, tuple(_rise(part, measure, _QUANTILE, family) for measure in measures), len(part))
        note = f"{note}; by the quantiles of the figure {beside.answer}: {effects(beside)}"
    return Setting(title, tuple(_rise(part, measure, _WORST, family) for measure in measures), len(part), note)


def thousand_classes_vgg_parts_from_theory(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Claim 5: with 1000 classes the worst inter rises with weight decay for VGG, not for ResNet."""
    thousand, others = _thousand(runs)
    found = [_setting(family, title, part, "inter") for family, title, part in thousand]
    return Verdict(
        "pan_cao/5",
        "5. With 1000 classes VGG's inter rises with weight decay, against the theory, ResNet's does not",
        _SOURCE,
        Quantifier.ALL,
        tuple(found) if len({family for family, *_ in thousand}) == 2 else (),
        f"experiment=pan_cao/fig6 model=vgg11,resnet18 {SEEDS}",
        "",
        others,
    )


def vgg_intra_rises_too(runs: pd.DataFrame, history: pd.DataFrame) -> Verdict:
    """Figure 6: with 1000 classes VGG's worst intra rises with weight decay, while its worst inter rises too."""
    thousand, others = _thousand(runs)
    found = [_setting(family, title, part, "intra", "inter") for family, title, part in thousand if family == "vgg"]
    return Verdict(
        "pan_cao/vgg-intra",
        "With 1000 classes VGG's intra rises with weight decay while its inter rises too",
        _SOURCE,
        Quantifier.ALL,
        tuple(found),
        f"experiment=pan_cao/fig6 model=vgg11,vgg19 {SEEDS}",
        "",
        others,
    )
