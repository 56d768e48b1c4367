#!/usr/bin/env python3
"""How far one run can be trusted: its final measures when one initial weight moves by one unit in the last place.

Trains a run of pan_cao/fig2_small as it is, then again and again with another weight of the initial network moved to
the next number of its type, and for comparison with other seeds. Printed: min, median, max and standard deviation of
the final measures of the training data over the repetitions, the unmoved run among them, and over the seeds.

usage: scripts/bench_ulp.py [--repeats 8] [--seeds 5] [OVERRIDE ...]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from ncflow.config.identity import describe
from ncflow.config.schema import CONF_DIR, register
from ncflow.results import RunFolder
from ncflow.training.assembly import prepare
from ncflow.training.fit import fit

RECIPE = ["experiment=pan_cao/fig2_small", "trainer=cpu", "logger.name=none"]
RUN = ["data=teacher_mlp_small", "model.norm=last", "weight_decay=5e-3"]
MEASURES = ("train/intra_min", "train/inter_max", "train/loss", "train/accuracy")


def configuration(seed: int, overrides: list[str]) -> DictConfig:
    """The config of the run, measured at its end alone."""
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("train", overrides=[*RECIPE, *RUN, f"seed={seed}", *overrides])
    cfg.measure.every_n_epochs = cfg.epochs
    return cfg


def final(cfg: DictConfig, moved: int | None) -> dict[str, float]:
    """Final measures of a run, with one initial weight moved, None for none; ``moved`` chooses which."""
    data, classifier = prepare(cfg)
    if moved is not None:
        generator = torch.Generator().manual_seed(moved)
        matrices = [parameter for parameter in classifier.network.parameters() if parameter.ndim > 1]
        chosen = matrices[moved % len(matrices)].data.view(-1)
        index = int(torch.randint(len(chosen), (), generator=generator))
        chosen[index] = torch.nextafter(chosen[index], torch.tensor(torch.inf))
    with tempfile.TemporaryDirectory() as folder:
        return fit(cfg, RunFolder(Path(folder), describe(cfg, "bench")), (data, classifier)).values


def show(title: str, found: list[dict[str, float]]) -> None:
    """Print the spread of each measure."""
    print(f"{title}\n{'':16} {'min':>9} {'median':>9} {'max':>9} {'std':>9}")
    for name in MEASURES:
        values = [measures[name] for measures in found]
        summary = (min(values), statistics.median(values), max(values), statistics.stdev(values))
        print(f"{name:16} " + " ".join(f"{value:9.4f}" for value in summary), flush=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("overrides", nargs="*", help="of the config, for example weight_decay=2e-3")
    arguments = parser.parse_args()
    first = configuration(0, arguments.overrides)
    show(
        f"one seed, {arguments.repeats} weights moved one by one",
        [final(first, moved) for moved in (None, *range(arguments.repeats))],
    )
    if arguments.seeds > 1:
        seeds = [final(configuration(seed, arguments.overrides), None) for seed in range(arguments.seeds)]
        show(f"{arguments.seeds} seeds", seeds)


if __name__ == "__main__":
    main()
