"""Predictions of CBMM Memo 117 on the square loss, judged on runs. A new claim is an entry of ``CLAIMS``."""

from ncflow.figures.papers.cbmm_117.batch_sizes import exponential_loss_needs_small_batches
from ncflow.figures.papers.cbmm_117.collapse import (
    no_collapse_without_decay,
    poor_margins_collapse,
    quasi_interpolation_fixes_the_classifier,
    random_labels_collapse,
    square_loss_chooses_nearest_mean,
    square_loss_collapses,
    square_loss_makes_dual,
)
from ncflow.figures.papers.cbmm_117.equilibrium import norms_rest_at_equilibrium
from ncflow.figures.papers.cbmm_117.initial_norms import (
    decay_concentrates_margins,
    decay_frees_margins_of_their_start,
    decay_frees_rho_of_its_start,
    margins_anticorrelate_with_accuracy,
    rho_is_monotone_without_decay,
    small_norms_reach_less_loss,
    small_norms_test_best,
)
from ncflow.figures.papers.cbmm_117.random_labels import (
    random_labels_raise_rho,
    random_labels_raise_test_error,
    random_labels_shrink_margins,
)
from ncflow.figures.papers.cbmm_117.seed_spread import large_norms_scatter_accuracy, large_norms_scatter_rho
from ncflow.figures.papers.verdict import Claim

CLAIMS: tuple[Claim, ...] = (
    decay_frees_rho_of_its_start,
    decay_frees_margins_of_their_start,
    decay_concentrates_margins,
    norms_rest_at_equilibrium,
    rho_is_monotone_without_decay,
    small_norms_reach_less_loss,
    small_norms_test_best,
    margins_anticorrelate_with_accuracy,
    large_norms_scatter_rho,
    large_norms_scatter_accuracy,
    random_labels_raise_rho,
    random_labels_shrink_margins,
    random_labels_raise_test_error,
    square_loss_collapses,
    square_loss_makes_dual,
    square_loss_chooses_nearest_mean,
    poor_margins_collapse,
    random_labels_collapse,
    no_collapse_without_decay,
    quasi_interpolation_fixes_the_classifier,
    exponential_loss_needs_small_batches,
)
