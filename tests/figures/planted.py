"""Planted sweeps: tables of runs whose right answer is known, without files."""

import itertools

import numpy as np
import pandas as pd

from ncflow.results import COLUMNS

DECAYS = (2e-4, 5e-4, 2e-3, 5e-3, 1e-2)
EPOCHS = np.arange(0, 101, 10)


def runs_of(measures, seeds=5, sd=0.01, rng=0, decays=DECAYS, norms=("last", "none"), **config):
    """A table of runs of Pan and Cao.

    Args:
        measures: From norm and log10 of weight decay to measures by name, without ``train/``.
        seeds: How many.
        sd: Of what is between seeds and, as large again, of each run.
        rng: Seed of the noise.
        decays: Weight decays.
        norms: BN placements.
        config: Further columns.
    """
    noise = np.random.default_rng(rng)
    rows = []
    of_seed = noise.normal(0, sd, (seeds, 8))
    for norm, decay, seed in itertools.product(norms, decays, range(seeds)):
        found = measures(norm, np.log10(decay))
        values = {
            f"train/{name}": value + of_seed[seed, place] + noise.normal(0, sd)
            for place, (name, value) in enumerate(found.items())
        }
        rows.append(
            {
                "status": "done",
                "experiment": "any",
                "seed": seed,
                "weight_decay": decay,
                "model.norm": norm,
                "model.gamma": None,
                "model.name": "mlp",
                "model.depth": 4,
                "data.name": "digits",
                "loss.name": "cross_entropy",
                "run_id": f"{norm}{decay}{seed}{config}",
                "folder": f"{norm}{decay}{seed}{config}",
                "train/interpolated": 1.0,
                "train/classes_present": 10.0,
                **config,
                **values,
            }
        )
    return pd.DataFrame(rows)


def history_of(runs, path):
    """The last layer's history of each run: ``path`` gives loss and intra at the epochs, from the run's norm."""
    parts = []
    for _, run in runs.iterrows():
        loss, intra = path(run["model.norm"], EPOCHS / EPOCHS[-1])
        rows = pd.DataFrame(dict.fromkeys(COLUMNS, np.nan), index=range(len(EPOCHS)))
        rows = rows.astype({"split": object, "layer": object}).assign(
            epoch=EPOCHS, split="train", layer="last", loss=loss, intra_min=intra, folder=run["folder"]
        )
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)
