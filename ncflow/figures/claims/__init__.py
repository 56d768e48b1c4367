"""The papers' claims, judged on runs. A new paper is a module and an entry of ``CLAIMS``."""

import pandas as pd

from ncflow.figures.claims import cbmm_117, pan_cao, pan_thesis
from ncflow.figures.claims.verdict import Claim, Verdict

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "pan_cao": pan_cao.CLAIMS,
    "pan_thesis": pan_thesis.CLAIMS,
    "cbmm_117": cbmm_117.CLAIMS,
}
_DEFAULT = "pan_cao"


def judge(runs: pd.DataFrame, history: pd.DataFrame) -> list[Verdict]:
    """The verdict on each claim of the papers whose experiments are among the runs; of other runs on Pan and Cao's.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        history: Table of :func:`ncflow.results.load_history`.
    """
    experiments = list(runs["experiment"].dropna().unique()) if "experiment" in runs else []
    papers = {str(experiment).rpartition("/")[0] for experiment in experiments}
    chosen = [paper for paper in CLAIMS if paper in papers] or [_DEFAULT]
    return [claim(runs, history) for paper in chosen for claim in CLAIMS[paper]]
