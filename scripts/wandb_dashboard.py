#!/usr/bin/env python3
"""Save a W&B workspace that compares the runs of an experiment: collapse, trajectories, layers, gamma, table of runs.

Runs that differ in the seed alone are one group, shown by its mean and standard deviation, in every panel but the
parallel coordinates, which have a line a run. Each call saves a new view.

usage: scripts/wandb_dashboard.py --experiment pan_cao/fig2_small [--entity E] [--project P] [--layers layers.0 ...]
"""

import argparse
import os
import re
import sys
from typing import NoReturn

from ncflow.runtime.environment import load_environment

# What runs log: the metrics that the workspace names, and those that it names once more for each layer.
METRICS = INTRA, INTER, NC1, LOSS, ACCURACY, TEST_ACCURACY, GAMMA_NORM, STATUS = (
    "train/intra_min",
    "train/inter_max",
    "train/nc1",
    "train/loss",
    "train/accuracy",
    "test/accuracy",
    "train/gamma_norm",
    "status",
)
LAYER_MEASURES = ("intra_min", "inter_max", "nc1", "ncc_accuracy")
# What the papers' grids vary besides the seed, and last all that a run is but its seed, whatever a sweep varies.
GROUPS = ("model.norm", "data.name", "model.name", "model.depth", "model.gamma", "weight_decay", "setting")
PARALLEL = "Parallel coordinates"


def fail(message: str) -> NoReturn:
    """End with one line on stderr."""
    print(f"wandb_dashboard: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


try:
    import wandb
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
except ImportError as missing:
    fail(f"{missing}; install it with: pip install -e '.[dashboard]'")


class Comparison(ws.Workspace):
    """A workspace whose panels find ``model.norm``, and whose parallel coordinates have a line a run.

    The package takes a dotted config key for a nested one, and has no setting for the grouping of a section.
    """

    def _to_model(self):
        view = super()._to_model()
        text = view.spec.model_dump_json(by_alias=True, exclude_none=True)
        flat = re.sub(r'"config:([^".]+)\.value\.([^"]+)"', r'"config:\1.\2.value"', text)
        view.spec = type(view.spec).model_validate_json(flat)
        for section in view.spec.section.panel_bank_config.sections:
            if section.name == PARALLEL:
                section.local_panel_settings.use_runs_table_grouping_in_panels = False
        return view


def scatter(x, y: str, log_x: bool = False):
    """Panel with a point a group of runs: a final metric against a config key or another final metric."""
    return wr.ScatterPlot(title=f"{y} against {x.name}", x=x, y=wr.SummaryMetric(y), log_x=log_x)


def line(x: str, y: str, log_x: bool = False, log_y: bool = False):
    """Panel with a line a group of runs: the mean and the standard deviation over its runs."""
    return wr.LinePlot(
        title=f"{y} over {x}",
        x=x,
        y=[y],
        log_x=log_x,
        log_y=log_y,
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
    )


def profile(measure: str, layers: list[str]):
    """Panel with a bar a layer, the last one for the classifier's input: mean and standard deviation of each group."""
    metrics = [*(f"train/{layer}/{measure}" for layer in layers), f"train/{measure}"]
    return wr.BarPlot(
        title=f"{measure} layer by layer",
        metrics=metrics,
        orientation="v",
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
    )


def parallel_coordinates():
    """Panel from the settings to collapse and accuracy, with a line a run."""
    config = [("weight_decay", True), ("model.norm", False), ("model.gamma", True), ("seed", False)]
    settings = [wr.ParallelCoordinatesPlotColumn(wr.Config(name), display_name=name, log=log) for name, log in config]
    results = [
        wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(name), display_name=name)
        for name in (INTRA, INTER, ACCURACY, TEST_ACCURACY)
    ]
    return wr.ParallelCoordinatesPlot(title=PARALLEL, columns=[*settings, *results])


def sections(layers: list[str]) -> list[ws.Section]:
    """The panels in the order of the page."""
    decay, gamma, norm = wr.Config("weight_decay"), wr.Config("model.gamma"), wr.SummaryMetric(GAMMA_NORM)
    panels = {
        "Collapse against weight decay": [scatter(decay, y, log_x=True) for y in (INTRA, INTER)],
        "Trajectories": [
            *(line("epoch", y, log_y=y == NC1) for y in (INTRA, INTER, NC1)),
            *(line(LOSS, y, log_x=True) for y in (INTRA, INTER)),
        ],
        "Layers": [profile(measure, layers) for measure in LAYER_MEASURES] if layers else [],
        "Gamma": [scatter(x, y) for x in (gamma, norm) for y in (INTRA, INTER)],
        PARALLEL: [parallel_coordinates()],
        # Tables of these names are logged by ncflow-figures --wandb.
        "Runs": [
            wr.RunComparer(diff_only=True),
            wr.WeavePanelSummaryTable(table_name="runs"),
            wr.WeavePanelSummaryTable(table_name="verdicts"),
        ],
    }
    return [ws.Section(name=name, panels=found, is_open=True) for name, found in panels.items() if found]


def workspace(entity: str, project: str, experiment: str, layers: list[str], groups: list[str]) -> Comparison:
    """The whole workspace: the experiment's runs, grouped, their table's first columns, and the panels."""
    config = [f"config:{name}.value" for name in (*GROUPS, "seed")]
    summary = [f"summary:{name}" for name in METRICS]
    return Comparison(
        entity=entity,
        project=project,
        name=f"Neural collapse: {experiment}",
        sections=sections(layers),
        # By default W&B plots the first 10 runs alone.
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=1000),
        runset_settings=ws.RunsetSettings(
            filters=f"group == '{experiment}'",
            groupby=[ws.Config(f"{name}.value") for name in groups],
            pinned_columns=["run:displayName", "run:state", *config, *summary],
        ),
    )


def parse() -> argparse.Namespace:
    """Read the command line, what it leaves out from the environment, and check both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--entity", default=os.environ.get("WANDB_ENTITY"), help="WANDB_ENTITY by default, else the account's own"
    )
    parser.add_argument("--project", default=os.environ.get("WANDB_PROJECT"), help="WANDB_PROJECT by default")
    parser.add_argument("--experiment", required=True, help="group of the runs, for example pan_cao/fig2_small")
    parser.add_argument("--layers", nargs="+", default=[], metavar="LAYER", help="layers that were measured too")
    parser.add_argument(
        "--group-by", nargs="*", default=list(GROUPS), metavar="KEY", help=f"config keys; {' '.join(GROUPS)} by default"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the workspace as JSON and contact nobody")
    parsed = parser.parse_args()
    if not parsed.project:
        fail("--project must be given, or WANDB_PROJECT set")
    if re.search(r"""['"\\=<>\n]""", parsed.experiment):  # the package's filters are expressions, without escapes
        fail(f"--experiment must have no quote, backslash, =, < or >, found {parsed.experiment!r}")
    return parsed


def own_entity() -> str:
    """The entity of the account whose key this is, which W&B is asked for."""
    try:
        found = wandb.Api().default_entity
    except Exception as error:  # W&B's errors share no class
        fail(f"W&B: {type(error).__name__}: {error}")
    return found or fail("--entity must be given, or WANDB_ENTITY set: this account has none of its own")


def main() -> None:
    """Build the workspace; print it or save it."""
    load_environment()
    parsed = parse()
    entity = parsed.entity or ("" if parsed.dry_run else own_entity())
    built = workspace(entity, parsed.project, parsed.experiment, parsed.layers, parsed.group_by)
    if parsed.dry_run:
        print(built._to_model().model_dump_json(by_alias=True, exclude_none=True, indent=1))
        return
    try:
        url = built.save().url
    except Exception as error:  # W&B's errors share no class
        fail(f"W&B: {type(error).__name__}: {error}")
    print(url)


if __name__ == "__main__":
    main()
