"""The papers' claims, judged on runs. A new paper is a module and an entry of ``CLAIMS``."""

import pandas as pd

from ncflow.figures.papers.cbmm_117 import claims as cbmm_117
from ncflow.figures.papers.optimizers import claims as optimizers
from ncflow.figures.papers.pan_cao import claims as pan_cao
from ncflow.figures.papers.pan_thesis import claims as pan_thesis
from ncflow.figures.papers.verdict import Claim, Verdict
from ncflow.results import describe

CLAIMS: dict[str, tuple[Claim, ...]] = {
    "pan_cao": pan_cao.CLAIMS,
    "pan_thesis": pan_thesis.CLAIMS,
    "cbmm_117": cbmm_117.CLAIMS,
    "optimizers": optimizers.CLAIMS,
}
_DEFAULT = "pan_cao"

PAPERS = {
    "pan_cao": "Pan and Cao, Towards Understanding Neural Collapse: The Effects of Batch Normalization and Weight "
    "Decay",
    "pan_thesis": "Pan's thesis on neural collapse",
    "cbmm_117": "Rangamani, Xu, Banburski, Liao and Poggio, Dynamics and Neural Collapse in Deep Classifiers trained "
    "with the Square Loss, CBMM Memo 117 (2021)",
    "optimizers": "Zhao, Cheng, Masarczyk and Lucchi, Optimizer choice matters for the emergence of Neural Collapse "
    "(ICLR 2026)",
}
"""What the claims are of, by the first part of their ids."""


def judge(runs: pd.DataFrame, history: pd.DataFrame, failed: list[str] | None = None) -> list[Verdict]:
    """The verdict on each claim of which there are runs, whatever experiment they came from.

    Of a paper whose experiments are among the runs, and of Pan and Cao if there is none, all claims are told.

    Args:
        runs: Table of :func:`ncflow.results.load_runs`.
        history: Table of :func:`ncflow.results.load_history`.
        failed: Takes a line for each claim that could not be judged, so that one does not stop the others.
    """
    experiments = list(runs["experiment"].dropna().unique()) if "experiment" in runs else []
    papers = {str(experiment).rpartition("/")[0] for experiment in experiments}
    told = [paper for paper in CLAIMS if paper in papers] or [_DEFAULT]
    verdicts = []
    for paper, claim in ((paper, claim) for paper, claims in CLAIMS.items() for claim in claims):
        try:
            verdict = claim(runs, history)
            if verdict.settings or paper in told:
                verdicts.append(verdict)
        except Exception as error:  # whatever runs of strangers bring about
            if failed is None:
                raise
            failed.append(f"not judged: {claim.__name__.replace('_', ' ')}: {describe(error)}")
    return verdicts
