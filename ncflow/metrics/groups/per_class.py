"""Values of single classes and of single pairs of classes, of which the measures of a layer are the summary."""

import torch
from torch import Tensor

from ncflow.metrics.class_means import Geometry
from ncflow.metrics.cosine import intra_cosines, mean_directions
from ncflow.metrics.duality import row_cosines
from ncflow.metrics.scatter import SecondSums

MOST_CLASSES = 100
"""Classes up to which pairs have rows: 4950 of them."""


def class_values(
    means: Geometry, second: SecondSums, weight: Tensor | None, correct: Tensor | None, self_pairs: bool
) -> dict[str, Tensor]:
    """Of each present class, (K,) each; a value that is undefined is NaN.

    Args:
        means: Class means.
        second: Sums around them, over all ranks.
        weight: Classifier W, (C, d); None of another layer than the last.
        correct: Samples of each class that the classifier puts into it, over all ranks, (C,); None likewise.
        self_pairs: Whether intra counts the pairs i = j.

    Returns:
        ``class``; ``count``, n_c; ``intra``, of which ``intra_min`` is the least; ``variance``, v_c, the mean of
        |h - mu_c|^2; ``mean_norm``, |mu_c - mu_G|; with a classifier ``nc3_cosine``, of which ``nc3_cosine_min`` is the
        least, and ``accuracy``.
    """
    present, n = means.present, second.directed
    values = {
        "class": means.names,
        "count": means.counts[present].long(),
        "intra": intra_cosines(mean_directions(second.directions, n), n, self_pairs)[present],
        "variance": second.squares[present] / means.counts[present],
        "mean_norm": torch.linalg.vector_norm(means.centred, dim=1),
    }
    if weight is not None:
        rows = (weight.double() - weight.double().mean(0))[present]
        values["nc3_cosine"], _ = row_cosines(rows, means.centred)
    if correct is not None:
        values["accuracy"] = correct[present] / means.counts[present]
    return values


def pair_values(means: Geometry, second: SecondSums) -> dict[str, Tensor]:
    """Of each pair of present classes, c < k, (K (K - 1)/2,) each; a value that is undefined is NaN.

    Returns:
        ``class``, c, and ``other``, k; ``inter``, of which ``inter_max`` is the largest; ``distance``, |mu_c - mu_k|;
        ``cdnv``, (v_c + v_k)/(2 |mu_c - mu_k|^2), of which ``cdnv`` of the layer is the mean.
    """
    present = means.present
    rows, columns = torch.triu_indices(means.num_present, means.num_present, offset=1, device=means.names.device)
    units = mean_directions(second.directions, second.directed)[present]
    variances = second.squares[present] / means.counts[present]
    squares = means.distances(slice(None))[rows, columns]
    return {
        "class": means.names[rows],
        "other": means.names[columns],
        "inter": (units @ units.T)[rows, columns],
        "distance": squares.sqrt(),
        "cdnv": (variances[rows] + variances[columns]) / (2 * squares),
    }
