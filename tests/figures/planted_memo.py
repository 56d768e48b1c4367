"""A planter for each claim of CBMM Memo 117: sweeps with an effect of a known size.

``planter(size, seeds, sd, rng)`` gives (runs, history) in which the claim has an effect of ``size`` times the smallest
that matters: 0 is none, and a negative size is the opposite of the claim. ``sd`` is the standard deviation of what is
between seeds and, as large again, of each run, in the unit of the claim (decades of a measure, or a share); its default
is what small runs have, on two of the bundled digits. The same ``rng`` gives the same noise at every size.
"""

import numpy as np
import pandas as pd

from ncflow.figures.papers.cbmm_117 import claims as memo
from ncflow.figures.papers.cbmm_117 import collapse, equilibrium, initial_norms, own, random_labels, seed_spread
from ncflow.figures.papers.verdict import FACTOR_TWO

NO_HISTORY = pd.DataFrame(columns=["folder", "epoch", "split", "layer"])
CONFIG = {
    "status": "done",
    "experiment": "any",
    "loss.name": "square_signs",
    "data.name": "digits",
    "data.num_classes": 2,
    "data.random_labels": 0.0,
    "data.num_samples": 1000,
    "model.name": "convnet",
    "model.norm": "all",
    "model.affine": False,
    "model.normalization": None,
    "model.init_norm": 1.0,
    "optimizer.name": "sgd",
    "batch_size": 100.0,
    "weight_decay": 0.01,
    "epochs": 100,
    "train/interpolated": 1.0,
}
INITS = (0.01, 1.0, 5.0)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
EPOCHS = np.arange(0, 101, 5)


class Sweep:
    """Runs of a grid, its columns as arrays, and noise that seeds share or do not."""

    def __init__(self, seeds, sd, rng, **grid):
        self.sd, self.noise = sd, np.random.default_rng(rng)
        axes = [np.arange(seeds), *(np.arange(len(values)) for values in grid.values())]
        self.seed, *places = (place.ravel() for place in np.meshgrid(*axes, indexing="ij"))
        self.seeds = seeds
        self.columns = {
            name.replace("__", "."): np.array(values, object if isinstance(values[0], str) else float)[place]
            for (name, values), place in zip(grid.items(), places, strict=True)
        }

    def __getitem__(self, name):
        return self.columns[name]

    def noisy(self, values, sd=None):
        """Values with noise of seeds and of runs."""
        sd = self.sd if sd is None else sd
        of_seeds, of_runs = self.noise.normal(0, sd, self.seeds), self.noise.normal(0, sd, len(self.seed))
        return values + of_seeds[self.seed] + of_runs

    def table(self, **measures):
        """The runs, with measures by their names in ``result.json``."""
        folders = [f"run{number}" for number in range(len(self.seed))]
        named = {name.replace("__", "/"): values for name, values in measures.items()}
        own_names = {"seed": self.seed, "folder": folders, "run_id": folders}
        return pd.DataFrame({**CONFIG, **own_names, **self.columns, **named})


def of_init(size, seeds=5, sd=0.01, rng=0):
    """Over initial norms log rho, and the margin against it, differ without decay; against the claim, with it."""
    sweep = Sweep(seeds, sd, rng, model__init_norm=INITS, weight_decay=(0.01, 0.0))
    decayed, place = sweep["weight_decay"] > 0, np.searchsorted(INITS, sweep["model.init_norm"]) / (len(INITS) - 1)
    spread = np.where(decayed, max(-size, 0), max(size, 0)) * initial_norms.SAME
    rho = sweep.noisy(2 + spread * place)
    return sweep.table(train__rho=10**rho, train__normalized_margin_mean=10**-rho), NO_HISTORY


def concentrated(size, seeds=5, sd=0.04, rng=0):
    """Without decay the margins' deviation over their mean is larger."""
    sweep = Sweep(seeds, sd, rng, model__init_norm=INITS, weight_decay=(0.01, 0.0))
    spread = sweep.noisy(-1 + size * own.TENTH * (sweep["weight_decay"] == 0))
    return sweep.table(train__margin_std=2 * 10**spread, train__margin_mean=2.0), NO_HISTORY


def at_rest(size, seeds=5, sd=0.003, rng=0):
    """Of the twelve percent from rho_eq to rho_0 rho has gone half, less a share."""
    sweep = Sweep(seeds, sd, rng)
    way = 0.5 - size * equilibrium.NEARER / 2
    rho = 10 ** sweep.noisy(2 + way * np.log10(1.12))
    mean, without = 0.01, 112.0
    measures = {"normalized_output_mean": mean, "normalized_output_square": mean / without, "rho_eq": 100.0}
    return sweep.table(train__rho=rho, **{f"train__{name}": value for name, value in measures.items()}), NO_HISTORY


def monotone(size, seeds=5, sd=0.03, rng=0):
    """Of the way of log rho some goes back, at every second measurement."""
    sweep = Sweep(seeds, sd, rng, model__init_norm=(0.01, 5.0), weight_decay=(0.0,))
    share = sweep.noisy(initial_norms.BETWEEN + size * initial_norms.MONOTONE).clip(-1, 1)
    steps = np.where(np.arange(len(EPOCHS) - 1) % 2 == 0, (1 + share[:, None]) / 2, -(1 - share[:, None]) / 2)
    signs = np.where(sweep["model.init_norm"] < 1, 1, -1)[:, None]
    paths = np.concatenate([np.zeros((2 * seeds, 1)), np.cumsum(signs * steps / 10, axis=1)], axis=1)
    runs = sweep.table(train__rho=10 ** paths[:, -1])
    folders = np.repeat(runs["folder"].to_numpy(object), len(EPOCHS))
    rows = {"folder": folders, "epoch": np.tile(EPOCHS, len(runs)), "rho": 10 ** paths.ravel()}
    return runs, pd.DataFrame({**rows, "split": "train", "layer": "last"})


def less_loss(size, seeds=5, sd=0.06, rng=0):
    """Without decay the loss is larger from a large initial norm."""
    sweep = Sweep(seeds, sd, rng, model__init_norm=INITS, weight_decay=(0.0,))
    loss = sweep.noisy(-3 + size * FACTOR_TWO * (sweep["model.init_norm"] == INITS[-1]))
    return sweep.table(train__loss=10**loss), NO_HISTORY


def best_tested(size, seeds=5, sd=0.003, rng=0):
    """The least initial norm has a better test accuracy."""
    sweep = Sweep(seeds, sd, rng, model__init_norm=INITS, weight_decay=(0.01,))
    accuracy = sweep.noisy(0.9 + size * initial_norms.POINT * (sweep["model.init_norm"] == INITS[0]))
    return sweep.table(test__accuracy=accuracy.clip(0, 1)), NO_HISTORY


def correlated(size, seeds=5, sd=0.005, rng=0):
    """Over seven initial norms log rho and test accuracy have a correlation, so many times that which matters.

    ``sd`` is of both, and of no matter.
    """
    sweep = Sweep(seeds, sd, rng, model__init_norm=(0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0))
    share = np.clip(size * initial_norms.CORRELATED, -0.98, 0.98)
    rho, other = sweep.noise.normal(0, sd, (2, len(sweep.seed)))
    accuracy = 0.9 + share * rho + np.sqrt(1 - share**2) * other
    return sweep.table(train__rho=10 ** (2 + rho), test__accuracy=accuracy), NO_HISTORY


def _scatter(sweep, size):
    """Normal noise of runs, wider at the largest initial norm; against the claim, at the least."""
    wide, factor = sweep["model.init_norm"] == INITS[-1 if size > 0 else 0], 10 ** abs(size * seed_spread.MATTERS)
    return sweep.noise.normal(0, sweep.sd, len(wide)) * np.where(wide, factor, 1)


def scattered_rho(size, seeds=10, sd=0.01, rng=0):
    """Without decay log rho has a larger standard deviation over seeds from a large initial norm."""
    sweep = Sweep(seeds, sd, rng, model__init_norm=INITS, weight_decay=(0.0,))
    return sweep.table(train__rho=10 ** (2 + _scatter(sweep, size))), NO_HISTORY


def scattered_accuracy(size, seeds=10, sd=0.004, rng=0):
    """Test accuracy has a larger standard deviation over seeds from a large initial norm."""
    sweep = Sweep(seeds, sd, rng, model__init_norm=INITS, weight_decay=(0.01,))
    return sweep.table(test__accuracy=0.9 + _scatter(sweep, size)), NO_HISTORY


def labelled_at_random(size, seeds=5, sd=0.01, rng=0):
    """Log rho rises, and the margin falls, with the share of random labels."""
    sweep = Sweep(seeds, sd, rng, data__random_labels=SHARES)
    rho = sweep.noisy(2 + size * own.TENTH * sweep["data.random_labels"])
    return sweep.table(train__rho=10**rho, train__normalized_margin_mean=10**-rho), NO_HISTORY


def erring(size, seeds=5, sd=0.01, rng=0):
    """Test accuracy falls with the share of random labels."""
    sweep = Sweep(seeds, sd, rng, data__random_labels=SHARES)
    return sweep.table(
        test__accuracy=sweep.noisy(0.7 - size * random_labels.ERROR * sweep["data.random_labels"])
    ), NO_HISTORY


def _collapsed(sweep, size):
    """Measures below a level, by so many halves of it; the agreement of NC4 likewise."""
    level = collapse.COLLAPSED * (1 - size / 2)
    names = ("nc1", "nc2_equinorm_weights", "nc2_equiangular_weights", "nc3_distance")
    measures = {f"train__{name}": sweep.noisy(level).clip(0) for name in names}
    agreement = collapse.AGREES + size * collapse.DISAGREES + sweep.noisy(0.0, 0.001)
    return {**measures, "train__nc4_agreement": agreement.clip(0, 1), "data.num_classes": 3}


def collapsed(size, seeds=5, sd=0.01, rng=0):
    """At little weight decay, where margins are poor, NC1 to NC4 of three classes; at much decay all is collapsed."""
    sweep = Sweep(seeds, sd, rng, weight_decay=(0.0001, 0.01))
    little = sweep["weight_decay"] < 0.001
    measures = _collapsed(sweep, np.where(little, size, max(size, 2)))
    return sweep.table(**measures, train__normalized_margin_mean=np.where(little, 0.003, 0.01)), NO_HISTORY


def collapsed_at_random(size, seeds=5, sd=0.01, rng=0):
    """NC1 to NC4 of random labels."""
    sweep = Sweep(seeds, sd, rng, data__random_labels=(0.5,))
    return sweep.table(**_collapsed(sweep, size)), NO_HISTORY


def not_collapsed(size, seeds=5, sd=0.3, rng=0):
    """Without decay NC1 is above a level, and above what it is with decay."""
    sweep = Sweep(seeds, sd, rng, weight_decay=(0.01, 0.0))
    without = sweep["weight_decay"] == 0
    level = np.log10(collapse.COLLAPSED) + size * collapse.STAYS - ~without * size * collapse.NEEDED
    return sweep.table(train__nc1=10 ** sweep.noisy(level)), NO_HISTORY


def fixed(size, seeds=5, sd=0.01, rng=0):
    """The residuals of eq. 33 and 34 are below a level, by so many halves of it."""
    sweep = Sweep(seeds, sd, rng, weight_decay=(0.01,))
    names = ("train__quasi_residual_means", "train__quasi_residual_norms")
    return sweep.table(**{name: sweep.noisy(collapse.RESIDUAL * (1 - size / 2)).clip(0) for name in names}), NO_HISTORY


def of_batches(size, seeds=5, sd=0.1, rng=0):
    """At equal steps NC1 rises with the batch size under the exponential loss; against the claim, under the square."""
    sizes = (10.0, 50.0, 200.0, np.nan)
    sweep = Sweep(seeds, sd, rng, loss__name=("exponential", "square_signs"), batch_size=sizes)
    batch = np.where(np.isnan(sweep["batch_size"]), CONFIG["data.num_samples"], sweep["batch_size"])
    slope = np.where(sweep["loss.name"] == "exponential", max(size, 0), max(-size, 0)) * FACTOR_TWO
    epochs = 4000 / np.ceil(CONFIG["data.num_samples"] / batch)
    columns = {"epochs": epochs.round(), "seconds": 100.0, "steps_per_second": 40.0}
    return sweep.table(train__nc1=10 ** sweep.noisy(-3 + slope * np.log10(batch)), **columns), NO_HISTORY


# Five seeds tell two standard deviations apart only if they differ by a factor of 9; the memo has ten.
scattered_rho.fewest_seeds = scattered_accuracy.fewest_seeds = 10

PLANTERS = {
    memo.decay_frees_rho_of_its_start: of_init,
    memo.decay_frees_margins_of_their_start: of_init,
    memo.decay_concentrates_margins: concentrated,
    memo.norms_rest_at_equilibrium: at_rest,
    memo.rho_is_monotone_without_decay: monotone,
    memo.small_norms_reach_less_loss: less_loss,
    memo.small_norms_test_best: best_tested,
    memo.margins_anticorrelate_with_accuracy: correlated,
    memo.large_norms_scatter_rho: scattered_rho,
    memo.large_norms_scatter_accuracy: scattered_accuracy,
    memo.random_labels_raise_rho: labelled_at_random,
    memo.random_labels_shrink_margins: labelled_at_random,
    memo.random_labels_raise_test_error: erring,
    memo.square_loss_collapses: collapsed,
    memo.square_loss_makes_dual: collapsed,
    memo.square_loss_chooses_nearest_mean: collapsed,
    memo.poor_margins_collapse: collapsed,
    memo.random_labels_collapse: collapsed_at_random,
    memo.no_collapse_without_decay: not_collapsed,
    memo.quasi_interpolation_fixes_the_classifier: fixed,
    memo.exponential_loss_needs_small_batches: of_batches,
}
"""By claim."""
