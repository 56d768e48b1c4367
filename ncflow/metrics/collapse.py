"""All measures of one layer from the sums over its features: what the metric ends with, wherever they were made."""

from collections.abc import Callable

import torch
from torch import Tensor

from ncflow.metrics.class_means import FirstSums, Geometry
from ncflow.metrics.cosine import cosine_measures
from ncflow.metrics.covariance import simplex_measures, variability_measures, weight_measures
from ncflow.metrics.duality import duality_measures
from ncflow.metrics.scatter import SecondSums


def collapse_measures(
    around: Geometry,
    first: FirstSums,
    second: SecondSums,
    weight: Tensor | None,
    delta: float,
    self_pairs: bool,
) -> dict[str, Tensor]:
    """Measures of the features, and with a classifier those of NC3 and its weights; float64 scalars by name.

    Args:
        around: Class means, over all samples.
        first: The sums that they are of.
        second: Sums around them.
        weight: Classifier W, (C, d), or None.
        delta: Level of the quantiles.
        self_pairs: Whether intra counts the pairs i = j.
    """
    total, squares = around.counts.sum(), first.squares
    measures = {
        **cosine_measures(second.directions, second.directed, delta, self_pairs),
        **cosine_measures(first.directions, first.directed, delta, self_pairs, "_raw"),
        **variability_measures(around, second),
        **simplex_measures(around),
        # NaN where a feature is not finite: such a sample has no nearest class mean.
        "ncc_accuracy": second.nearest_is_label / total + 0 * squares,
        "feature_rms_norm": torch.sqrt(squares / total),
        "classes_present": around.present.sum().double(),
        "nonfinite_samples": first.nonfinite,
    }
    if weight is not None:
        measures |= {**weight_measures(weight), **duality_measures(weight, around)}
    return measures


def choice_measures(
    margins: Tensor,
    nearest_is_predicted: Tensor,
    squares: Tensor,
    count: int,
    total: Callable[[Tensor], Tensor] = lambda value: value,
    least: Callable[[Tensor], Tensor] = lambda value: value,
) -> dict[str, Tensor]:
    """``nc4_agreement``, ``margin_min``, ``margin_mean`` and ``margin_std`` (divisor N); float64 scalars.

    Args:
        margins: Of this rank's samples, (n,).
        nearest_is_predicted: Samples of all ranks whose nearest class mean is the classifier's choice, ().
        squares: Sum of |h|^2 over all ranks, ().
        count: N, over all ranks.
        total: Sum over ranks.
        least: Minimum over ranks.
    """
    mean = total(margins.sum()) / count
    deviation = total((margins - mean).square().sum()) / count
    return {
        "nc4_agreement": nearest_is_predicted / count + 0 * squares,
        "margin_min": least(margins.min() if len(margins) else margins.new_full((), torch.inf)),
        "margin_mean": mean,
        "margin_std": deviation.sqrt(),
    }
