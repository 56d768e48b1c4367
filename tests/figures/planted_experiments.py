"""Planted runs of each experiment in ``conf``: its own configs, with measures made up, a part of each grid."""

import itertools
from functools import cache
from zlib import crc32

import numpy as np
import pandas as pd
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime
from hydra.types import HydraContext, RunMode

from ncflow.config.compose import Composer
from ncflow.config.identity import describe
from ncflow.config.schema import CONF_DIR, register
from ncflow.results import COLUMNS, MARGIN_QUANTILES, RUN, SNAPSHOTS, write_json

EXPERIMENTS = sorted(
    str(file.relative_to(CONF_DIR / "experiment").with_suffix("")) for file in (CONF_DIR / "experiment").rglob("*.yaml")
)
_MOMENTS = np.linspace(0, 1, 12)


@cache
def descriptions(experiment):
    """What describes each run of an experiment, of a part of its grid."""
    GlobalHydra.instance().clear()
    register()
    JobRuntime.instance().set("name", "ncflow")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        chosen = [f"experiment={experiment}"]
        sweep = loader.load_configuration("train", overrides=chosen, run_mode=RunMode.MULTIRUN)
        params = sweep.hydra.sweeper.params or {}
        grid = [f"{key}={_few(key, value)}" for key, value in params.items()]
        parsed = OverridesParser.create(config_loader=loader).parse_overrides([*grid, *chosen])
        (cells,) = BasicSweeper.split_arguments(parsed, None)
        composer = Composer(HydraContext(config_loader=loader, callbacks=Callbacks()), sweep)
        found = [describe(composer.shared(cell), experiment) for cell in cells]
    GlobalHydra.instance().clear()
    return found


def _few(option, values):
    """Two seeds, and of numbers the first, the middle and the last; every other choice."""
    several = str(values).split(",")
    if option == "seed":
        return "0,1"
    numbers = option in ("weight_decay", "model.gamma", "model.init_norm", "data.random_labels")
    return ",".join(dict.fromkeys([several[0], several[len(several) // 2], several[-1]]) if numbers else several)


def planted(experiment, root):
    """(runs, history) of an experiment, as they are loaded; what is read from a run's folder lies below ``root``."""
    rows, histories = [], []
    runs = descriptions(experiment)
    while len(runs) < 3 and "gap" in runs[0]["figures"]:  # which needs three
        runs = [*runs, {**runs[0], "seed": len(runs), "run_id": str(len(runs))}]
    for described in runs:
        folder = root / f"{described['name']}-{described['run_id']}"
        rng = np.random.default_rng(crc32(described["run_id"].encode()))
        final, path = _measures(described, rng)
        _leave(folder, described, rng)
        named = {f"train/{name}": value for name, value in final.items()} | {"test/accuracy": 0.9 + rng.normal(0, 0.01)}
        done = {"status": "done", "folder": str(folder), "seconds": 10.0, "steps_per_second": 30.0}
        rows.append({**described, **done, **named})
        layers = [f"layers.{number}" for number in range(5)] if described["measure.layers"] == "all" else []
        epochs = np.unique((_MOMENTS * described["epochs"]).round())
        for layer, split in itertools.product([*layers, "last"], ("train", "test")):
            texts = {"folder": str(folder), "split": split, "layer": layer}
            own = {name: np.full(len(epochs), text, object) for name, text in texts.items()}
            histories.append({**own, "epoch": epochs} | {name: path[name][: len(epochs)] for name in path})
    columns = {name: np.concatenate([own[name] for own in histories]) for name in histories[0]}
    history = pd.DataFrame(columns)
    return pd.DataFrame(rows), history.reindex(columns=["folder", *COLUMNS])


def _measures(described, rng):
    """Measures at the end by their names, and over the training."""
    classes = described.get("data.num_classes", 10)
    norm, decay = described.get("model.norm"), described["weight_decay"]
    worst = np.clip((0.99 if norm != "none" else 0.8) + rng.normal(0, 0.005), -1, 1)
    inter, gap = -1 / (classes - 1) + (0.02 if norm != "none" else 0.3), 10.0 ** rng.uniform(-8, 0)
    rho = (described.get("model.init_norm") or 1) ** 3 * (1.5 + rng.normal(0, 0.02))
    final = {"intra_min": worst, "inter_max": inter, "interpolated": float(rng.random() < 0.9), "rho": rho}
    for kind in ("mean", "quantile", "raw_min", "raw_max"):
        final |= {f"intra_{kind}": worst + 0.005, f"inter_{kind}": inter - 0.005}
    final |= {"classes_present": classes, "class_share_min": 0.9 / classes, "class_share_max": 1.1 / classes}
    final |= {"inter_max_limit": -1 / (classes - 1), "inter_raw_max_limit": -1 / (classes - 1)}
    final |= {"inter_mean_limit": -1 / (classes - 1), "inter_quantile_limit": -1 / (classes - 1)}
    final |= {"normalized_margin_mean": 0.1 / rho, "regularized_loss_gap": gap, "regularized_loss": gap + 40 * decay}
    final |= {"nc1": 0.02 + 0.1 * rng.random(), "nc0_relative": 0.01 + 0.3 * rng.random()}
    final |= {"gamma_norm": 8 * (described.get("model.gamma") or 1), "feature_rms_norm": 2.0, "weight_norm": 3.0}
    start, falls = np.exp(-4 * _MOMENTS), 10 ** (-4 * _MOMENTS)
    path = {"intra_min": worst * (1 - start), "inter_max": inter * (1 - start) + 0.5 * start, "loss": 2 * falls}
    path |= {"nc3_cosine_min": worst - 1.4 * start, "accuracy": 1 - 0.9 * start, "ncc_accuracy": 1 - 0.9 * start}
    path |= {"intra_raw_min": path["intra_min"], "inter_raw_max": path["inter_max"]}
    path |= {"rho": rho ** (1 - start) * 2**start, "nc1": falls + 1e-3 * rng.random()}
    path |= {f"nc2_{kind}_{of}": falls for kind in ("equinorm", "equiangular") for of in ("means", "weights")}
    path |= {"nc0": 2 * start + 0.01, "nc0_relative": start + 0.01, "weight_norm": 3 - start}
    path |= {"nc0_predicted": path["nc0"] if described["optimizer.name"] == "sgd" else np.full(len(start), np.nan)}
    kept = ("classes_present", "class_share_min", "class_share_max", "inter_max_limit", "inter_raw_max_limit")
    return final, path | {name: np.full(len(_MOMENTS), final[name]) for name in kept}


def _leave(folder, described, rng):
    """Snapshots and margins, where the run is to keep them."""
    if described["measure.snapshot_samples"]:
        (folder / SNAPSHOTS).mkdir(parents=True)
        classes, planes = described.get("data.num_classes", 3), rng.normal(size=(2, 2))
        inputs = rng.normal(size=(40 * classes, 2 if "data.dim" in described else 0)).astype("f")
        labels = np.arange(len(inputs)) % classes if not inputs.size else (inputs @ planes.T > 0) @ [1, 2]
        corners = np.eye(classes, 5, dtype="f")
        for epoch in (0, 5):
            features = corners[labels] + rng.normal(0, 1 / (1 + epoch), (len(labels), 5)).astype("f")
            arrays = {"features": features, "labels": labels, "means": corners, "center": corners.mean(0)}
            np.savez(folder / SNAPSHOTS / f"epoch_{epoch:03d}.npz", **arrays, weight=corners, inputs=inputs)
    if described["measure.margins"]:
        write_json(folder / RUN, described)
        steps = np.unique(np.geomspace(1, 1000, 12).round()) - 1
        quantiles = np.linspace(-0.2, 0.5, len(MARGIN_QUANTILES)) * np.log1p(steps)[:, None]
        table = pd.DataFrame({"epoch": steps // 2, "step": steps, "rho": 1.0 + steps, "samples": 10})
        table.join(pd.DataFrame(quantiles, columns=list(MARGIN_QUANTILES))).to_csv(folder / "margins.csv", index=False)
