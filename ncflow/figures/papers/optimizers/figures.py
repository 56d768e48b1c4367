"""Figures on optimisers: the coupled share, optimisers beside each other, NC0 with its law, collapse at equal loss."""

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd

from ncflow.figures.papers.drawing import Drawing, Recipe, few_panels, heading, measured, with_history
from ncflow.figures.papers.optimizers.own import EFFECTIVE, MOMENTUM, NC0, NC1, OPTIMIZER, RATE, told_apart
from ncflow.figures.papers.selection import COUPLING
from ncflow.figures.plots.optimizers import Panels, at_equal_loss, measures_against, nc0_over_steps
from ncflow.figures.tables import finished, last_layer, numbers
from ncflow.figures.varied import panel_title

_MEASURES = ("nc1", "nc0_relative")
_ONE_BN = "BN"  # tells the placement, which would else vary inside a panel


def coupling(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """NC1 and NC0 against the share of the weight decay that is in the gradient, a colour a decay, or an optimiser."""
    suited = _measured(runs)
    if not suited.empty and suited[COUPLING].nunique() > 1:
        one_decay = suited["weight_decay"].nunique() == 1 and suited[OPTIMIZER].nunique() > 1
        colour, *more = (OPTIMIZER, MOMENTUM, RATE, EFFECTIVE) if one_decay else ("weight_decay",)
        cut = _cut(suited, COUPLING, colour, *more)
        caption = (
            "NC1 and relative NC0 at the end of training against the share of the weight decay that is in the "
            "gradient, the rest of it shrinking the weights beside the step: Adam at 1, AdamW at 0; mean and standard "
            "deviation over seeds."
        )
        draw = partial(measures_against, cut, COUPLING, _MEASURES, colour)
        yield Drawing("coupling", draw, caption, heading=heading(suited))


def optimizers(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """NC1 and NC0 against weight decay, a colour an optimiser, a line style a coupled share."""
    suited = _measured(runs)
    series = suited.groupby([OPTIMIZER, COUPLING]).ngroups if not suited.empty else 0
    if series > 1:
        cut = _cut(suited, "weight_decay", COUPLING, OPTIMIZER, MOMENTUM, RATE, EFFECTIVE)
        caption = (
            "NC1 and relative NC0 at the end of training against weight decay, for each optimiser and share of the "
            "decay that is in the gradient (Adam with none is AdamW); mean and standard deviation over seeds."
        )
        draw = partial(measures_against, cut, "weight_decay", _MEASURES, OPTIMIZER, COUPLING)
        yield Drawing("optimizers", draw, caption, heading=heading(suited))


def nc0(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """NC0 over optimiser steps, and what the law of SGD says it would be."""
    suited = with_history(_measured(runs), history, "nc0")
    if suited.empty:
        return
    rows = last_layer(history).dropna(subset=["nc0"])
    seconds, rate = (numbers(suited[name]) if name in suited else 1.0 for name in ("seconds", "steps_per_second"))
    told, suited = suited, suited.assign(steps=seconds * rate)
    caption = (
        "NC0, the norm of the sum of the classifier's rows, over optimiser steps, a line a run; dotted: what learning "
        "rate, weight decay and momentum alone make of it under SGD and cross-entropy."
    )
    momenta = _at_one_rate(suited[suited[OPTIMIZER] == "sgd"])
    compared = {folder for _, part in momenta for folder in part["folder"]}
    rest = suited[~suited["folder"].isin(compared)]
    if len(rest):
        draw = partial(nc0_over_steps, _cut(rest, "weight_decay", COUPLING), rows, "weight_decay", COUPLING, 3)
        yield Drawing("nc0", draw, caption, heading=heading(told.loc[rest.index]))
    if momenta:
        own = told[told["folder"].isin(compared)]
        draw = partial(nc0_over_steps, momenta, rows, MOMENTUM, None, 2)
        yield Drawing("nc0_momentum", draw, caption, heading=heading(own))


def equal_loss(runs: pd.DataFrame, history: pd.DataFrame) -> Iterator[Drawing]:
    """NC1 against the training loss over the epochs of SGD, a colour a momentum."""
    suited = with_history(_measured(runs), history, "nc1", "loss")
    suited = suited[suited[OPTIMIZER] == "sgd"] if not suited.empty else suited
    if suited.empty or suited[MOMENTUM].nunique() < 2:
        return
    rows = last_layer(history)
    rows = rows[(rows["epoch"] > 0) & (rows["loss"] > 0) & (rows["nc1"] > 0)]
    cut = _at_one_rate(suited)
    if cut:
        caption = (
            "NC1 against the training loss over the epochs, a line a run of SGD with some momentum, at one learning "
            "rate and at one lr/(1 - momentum): at equal loss, the lower line has collapsed more."
        )
        yield Drawing("equal_loss", partial(at_equal_loss, cut, rows, MOMENTUM, 2), caption, heading=heading(suited))


def _measured(runs: pd.DataFrame) -> pd.DataFrame:
    """Finished runs with weight decay and both measures, told apart by optimiser and coupled share."""
    found = told_apart(measured(runs))
    found = finished(found, NC1, NC0, COUPLING) if not found.empty else found
    return found[(found["weight_decay"] > 0) & (found[NC1] > 0) & (found[NC0] > 0)] if not found.empty else found


def _at_one_rate(runs: pd.DataFrame) -> Panels:
    """Panels of several momenta, at one learning rate and at one lr/(1 - momentum)."""
    found = []
    for title, of_setting in _cut(runs, MOMENTUM, RATE, EFFECTIVE):
        for fixed, words in ((RATE, "learning rate"), (EFFECTIVE, EFFECTIVE)):
            for value, part in of_setting.groupby(fixed):
                if part[MOMENTUM].nunique() > 1:
                    found.append((", ".join(filter(None, (title, f"{words} {value:g}"))), part))
    return found


def _cut(runs: pd.DataFrame, *shown: str) -> Panels:
    """Panels, in words: all that differs but what is shown, seeds apart."""
    inside = ("model.norm", "model.norm_bias", "model.affine", *(("weight_decay",) if "weight_decay" in shown else ()))
    return [(_title(values), part) for values, part in few_panels(runs, *_derived(shown), inside=inside)]


def _derived(shown: Sequence[str]) -> tuple[str, ...]:
    """What is shown, and what follows from it or is of a whole run."""
    own = {RATE: EFFECTIVE, EFFECTIVE: RATE}
    return tuple(dict.fromkeys((*shown, *(own[name] for name in shown if name in own), "steps")))


def _title(values: dict[str, object]) -> str:
    named = {key: value for key, value in values.items() if key not in (_ONE_BN, EFFECTIVE)}
    bn = str(values.get(_ONE_BN, ""))
    return ", ".join(filter(None, (panel_title(named), f"BN: {bn}" if bn else "")))


FIGURES: dict[str, Recipe] = {"coupling": coupling, "optimizers": optimizers, "nc0": nc0, "equal_loss": equal_loss}
