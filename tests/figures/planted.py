"""Planted sweeps: tables of runs and histories whose right answer is known, without files.

Noise is of what is between seeds and, as large again, of each run (and of each epoch or layer of a run's history).
"""

import itertools

import numpy as np
import pandas as pd

from ncflow.results import LAST_LAYER

DECAYS = (2e-4, 5e-4, 2e-3, 5e-3, 1e-2)
# Of intra and inter on the quickstart's conic hull, 5 seeds: 0.00 to 0.02 between seeds; of single runs 0.002 to 0.05
# with BN, least at large weight decay, and 0.01 to 0.02 without.
SD = 0.01
EPOCHS = np.arange(0, 101, 10)


def runs_of(measures, seeds=5, sd=SD, rng=0, decays=DECAYS, norms=("last", "none"), part=0, **config):
    """A table of runs of Pan and Cao.

    Args:
        measures: From norm and log10 of weight decay to measures by name, without ``train/``.
        seeds: How many.
        sd: Of what is between seeds and, as large again, of each run.
        rng: Seed of the noise.
        decays: Weight decays.
        norms: BN placements.
        part: Of a sweep whose parts share the noise of their seeds: its number.
        config: Further columns.
    """
    of_seeds, of_runs = np.random.default_rng(rng), np.random.default_rng((rng, part))
    cells = list(itertools.product(norms, decays))
    found = [measures(norm, np.log10(decay)) for norm, decay in cells]
    cell, seed = (grid.ravel() for grid in np.meshgrid(range(len(cells)), range(seeds), indexing="ij"))
    names = [f"{norm}{decay}" for norm, decay in cells]
    folders = [f"{names[c]}{s}{config}" for c, s in zip(cell, seed, strict=True)]
    values = {}
    for name in found[0]:
        levels = np.array([float(own[name]) for own in found])
        values[f"train/{name}"] = levels[cell] + of_seeds.normal(0, sd, seeds)[seed] + of_runs.normal(0, sd, len(cell))
    return pd.DataFrame(
        {
            "status": "done",
            "experiment": "any",
            "seed": seed,
            "weight_decay": np.array([decay for _, decay in cells])[cell],
            "model.norm": np.array([norm for norm, _ in cells], object)[cell],
            "model.gamma": None,
            "model.name": "mlp",
            "model.depth": 4,
            "data.name": "digits",
            "loss.name": "cross_entropy",
            "run_id": folders,
            "folder": folders,
            "train/interpolated": 1.0,
            "train/classes_present": 10.0,
            **config,
            **values,
        }
    )


def history_of(runs, path, sd=0.0, rng=0, epochs=EPOCHS):
    """The last layer's history: ``path`` gives measures over the training, from norm and time from 0 to 1."""
    paths = {norm: path(norm, epochs / epochs[-1]) for norm in runs["model.norm"].unique()}
    levels = [paths[norm] for norm in runs["model.norm"]]
    return _rows(runs, levels, sd, rng, len(epochs), epoch=epochs, layer=LAST_LAYER)


def layers_of(runs, profile, sd=0.0, rng=0, layers=5):
    """The final layers: ``profile`` gives measures over them, from log10 of weight decay and depth from 0 to 1."""
    names = [*(f"layers.{index}" for index in range(layers - 1)), LAST_LAYER]
    places = np.linspace(0, 1, layers)
    profiles = {decay: profile(np.log10(decay), places) for decay in runs["weight_decay"].unique()}
    levels = [profiles[decay] for decay in runs["weight_decay"]]
    return _rows(runs, levels, sd, rng, layers, epoch=100, layer=np.array(names, object))


def _rows(runs, levels, sd, rng, length, **columns):
    noise = np.random.default_rng(rng)
    seeds, of_run = np.unique(runs["seed"], return_inverse=True)
    found = {}
    for name in levels[0]:
        values = np.array([np.broadcast_to(own[name], length) for own in levels], float)
        if sd:
            values = values + noise.normal(0, sd, (len(seeds), 1))[of_run] + noise.normal(0, sd, values.shape)
        found[name] = values.ravel()
    each = {name: np.tile(value, len(runs)) if np.ndim(value) else value for name, value in columns.items()}
    folders = np.repeat(runs["folder"].to_numpy(object), length)
    return pd.DataFrame({"folder": folders, "split": "train", **each, **found})
