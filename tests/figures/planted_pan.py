"""A planter for each claim of Pan and Cao and of Pan's thesis: sweeps with an effect of a known size.

``planter(size, seeds, sd, rng, decays)`` gives runs and histories in which the claim has an effect of ``size`` times
the smallest that matters: 0 is none, and a negative size is the opposite of the claim.
"""

import numpy as np
import pandas as pd

from ncflow.figures.papers.pan_cao import claims as pan_cao
from ncflow.figures.papers.pan_cao import over_training, thousand_classes
from ncflow.figures.papers.pan_thesis import claims as thesis
from ncflow.figures.papers.pan_thesis import layers
from ncflow.figures.papers.pan_thesis.own import D_MATTERS, D_PER_DECADE
from ncflow.figures.papers.verdict import COSINE, PER_DECADE
from tests.figures.planted import DECAYS, SD, history_of, layers_of, runs_of

NO_HISTORY = pd.DataFrame(columns=["folder", "epoch", "split", "layer"])
GAMMAS = (0.05, 0.1, 0.2, 0.5, 1.0)
AFFINE = {"norms": ("all",), "data.name": "conic_hull", "model.depth": 6}


def most(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """BN adds to intra and takes from inter, alike at all weight decays."""
    gain = size * COSINE

    def measures(norm, decay):
        return {"intra_min": 0.7 + gain * (norm == "last"), "inter_max": -gain * (norm == "last")}

    return runs_of(measures, seeds, sd, rng, decays), NO_HISTORY


def grows(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """With BN a decade of weight decay adds to intra and takes from inter; without it adds nothing."""

    def measures(norm, decay):
        rise = size * PER_DECADE * (decay + 3) * (norm == "last")
        return {"intra_min": 0.7 + rise, "inter_max": -rise}

    return runs_of(measures, seeds, sd, rng, decays), NO_HISTORY


def follows(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """With BN intra gains after a quarter of the training, evenly; without BN it does not, and the loss falls."""
    runs = runs_of(lambda *_: {"intra_min": 0.7, "inter_max": 0.0}, seeds, sd, rng, decays)

    def path(norm, time):
        gained = size * COSINE * (time - 1) / 0.7 * (norm == "last")  # of the measured epochs the 30th is the first
        return {"loss": 3 - 2 * time, "intra_min": 0.7 + gained}

    return runs, history_of(runs, path, sd, rng)


def rises_early(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """Without BN inter rises from the first measured epoch to a quarter of the training; the loss falls."""
    runs = runs_of(lambda *_: {"intra_min": 0.7, "inter_max": 0.0}, seeds, sd, rng, decays, ("none",))

    def path(norm, time):
        return {"loss": 3 * 10**-time, "inter_max": size * COSINE * np.minimum(time - 0.1, 0.1) / 0.1}

    return runs, history_of(runs, path, sd, rng)


def of_gamma(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """Intra falls and inter rises while a fixed gamma grows tenfold."""
    parts = []
    for place, gamma in enumerate(GAMMAS):
        fall = size * COSINE * np.log10(gamma)
        level = {"intra_min": 0.8 - fall, "inter_max": fall}
        config = {"part": place, "model.gamma": gamma}
        parts.append(runs_of(lambda *_, level=level: level, seeds, sd, rng, decays, ("last",), **config))
    return pd.concat(parts, ignore_index=True), NO_HISTORY


def thousand(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """With 1000 classes VGG's intra and inter rise with weight decay, ResNet's do not."""
    parts = []
    for place, model in enumerate(("vgg11", "resnet18")):

        def measures(norm, decay, model=model):
            rise = size * PER_DECADE * (decay + 3) * (model == "vgg11")
            worst = {"intra_min": 0.7 + rise, "inter_max": 0.2 + rise}
            return worst | {"intra_quantile": 0.8 + rise, "inter_quantile": 0.1 + rise}

        config = {"model.name": model, "model.depth": None, "data.name": "imagenet32", "train/classes_present": 1000.0}
        parts.append(runs_of(measures, seeds, sd, rng, decays, ("last",), place, **config))
    return pd.concat(parts, ignore_index=True), NO_HISTORY


def shrinks(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """With BN a decade of weight decay takes from log10 |gamma|, whose spread is as that of cosines."""
    runs = runs_of(lambda norm, decay: {"intra_min": 0.7, "inter_max": 0.0, "log": decay}, seeds, sd, rng, decays)
    noise = runs["train/log"] - np.log10(runs["weight_decay"])
    fall = size * pan_cao.LOG_GAMMA * (np.log10(runs["weight_decay"]) + 3)
    return runs.assign(**{"train/gamma_norm": 10 ** (1 - fall + noise)}), NO_HISTORY


def aligns(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """With BN the worst cosine of weights and means lies above what is near one, and intra lies below it."""

    def measures(norm, decay):
        return {"intra_min": 0.7, "inter_max": 0.0, "nc3_cosine_min": pan_cao.NEAR_ONE + size * COSINE}

    return runs_of(measures, seeds, sd, rng, decays, ("last",)), NO_HISTORY


def affine_most(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """Affine BN has strong collapse, non-affine BN and none have less D, alike at all weight decays."""
    parts = []
    for place, (norm, gamma) in enumerate((("all", None), ("all", 1.0), ("none", None))):
        less = size * D_MATTERS / 2 * (place > 0)
        level = {"intra_raw_min": 0.8 - less, "inter_raw_max": less, "intra_min": 0.5, "inter_max": 0.5}
        config = {"part": place, "model.gamma": gamma}
        parts.append(runs_of(lambda *_, level=level: level, seeds, sd, rng, decays, (norm,), **config))
    return pd.concat(parts, ignore_index=True), NO_HISTORY


def improves(size, seeds=5, sd=SD, rng=0, decays=DECAYS, **config):
    """A decade of weight decay adds to D; the centred cosines do not change."""

    def measures(norm, decay):
        rise = size * D_PER_DECADE / 2 * (decay + 3)
        return {"intra_raw_min": 0.7 + rise, "inter_raw_max": -rise, "intra_min": 0.7, "inter_max": 0.0}

    return runs_of(measures, seeds, sd, rng, decays, **AFFINE | config), NO_HISTORY


def harms(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """Without BN a decade of weight decay takes from D."""
    return improves(-size, seeds, sd, rng, decays, norms=("none",))


def _layered(profile, accuracy, seeds, sd, rng, decays):
    """Runs with a history of layers; NCC accuracy is less noisy: in 15 runs of figure 3.3 no step is down by 0.01."""
    runs = runs_of(lambda *_: {"intra_min": 0.7, "inter_max": 0.0}, seeds, sd, rng, decays, **AFFINE)
    history = layers_of(runs, profile, sd, rng)
    right = layers_of(runs, lambda decay, depth: {"ncc_accuracy": accuracy(depth)}, sd / 4, (rng, 1))["ncc_accuracy"]
    return runs, history.assign(ncc_accuracy=right.clip(0, 1), intra_min=0.5, inter_max=0.5)


def sharpens(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """D rises evenly from the first layer to the last."""

    def profile(decay, depth):
        rise = size * D_MATTERS / 2 * depth
        return {"intra_raw_min": 0.5 + rise, "inter_raw_max": -rise}

    return _layered(profile, lambda depth: 0.9, seeds, sd, rng, decays)


def shallower(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """The first layer of near-perfect NCC accuracy comes earlier with weight decay."""
    runs = runs_of(lambda *_: {"intra_min": 0.7, "inter_max": 0.0}, seeds, sd, rng, decays, **AFFINE)
    noise = np.random.default_rng(rng)
    started = 6 + noise.uniform(0, 1, seeds)[runs["seed"]]  # depths are whole numbers; seeds round them at other places
    depth = started - size * layers.HALF_A_LAYER * (np.log10(runs["weight_decay"].to_numpy()) + 3)
    history = layers_of(runs, lambda *_: {"intra_min": 0.5, "inter_max": 0.5}, layers=12)
    above = np.arange(1, 13) - depth[:, None]
    accuracy = 1 - layers.NCC_EPSILON + 0.05 * above + noise.normal(0, sd, above.shape)
    return runs, history.assign(ncc_accuracy=accuracy.clip(0, 1).ravel())


def exceeds(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """Inter of the intermediate layers lies above 0, at perfect NCC accuracy."""

    def profile(decay, depth):
        return {"intra_raw_min": 0.7, "inter_raw_max": size * COSINE * (depth < 1)}

    return _layered(profile, lambda depth: 2.0, seeds, sd, rng, decays)


def by_layer(size, seeds=5, sd=SD, rng=0, decays=DECAYS):
    """Intra and NCC accuracy rise evenly from the first layer to the last."""

    def profile(decay, depth):
        return {"intra_raw_min": 0.7 + size * COSINE * depth, "inter_raw_max": 0.0}

    return _layered(profile, lambda depth: 0.85 + size * COSINE * depth, seeds, sd, rng, decays)


PLANTERS = {
    pan_cao.bn_collapses_most: most,
    pan_cao.bn_collapse_grows_with_decay: grows,
    over_training.bn_collapse_follows_loss: follows,
    over_training.inter_rises_early_without_bn: rises_early,
    pan_cao.smaller_gamma_collapses_more: of_gamma,
    thousand_classes.thousand_classes_vgg_parts_from_theory: thousand,
    thousand_classes.vgg_intra_rises_too: thousand,
    pan_cao.decay_shrinks_gamma: shrinks,
    pan_cao.weights_align_with_means: aligns,
    thesis.only_affine_bn_collapses: affine_most,
    thesis.collapse_improves_with_decay: improves,
    layers.collapse_sharpens_with_depth: sharpens,
    layers.effective_depth_falls_with_decay: shallower,
    thesis.decay_harms_without_bn: harms,
    layers.inter_exceeds_zero_between: exceeds,
    layers.layers_improve_with_few_exceptions: by_layer,
}
