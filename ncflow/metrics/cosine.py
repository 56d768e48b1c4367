"""The cosine family: intra- and inter-class cosine similarity, and NC3 as a cosine (Pan, Cao, section 2.2).

With u_c the mean over class c of the centred, normalised features, the mean cosine over all pairs of class c is
|u_c|^2, and over the pairs of two classes u_c . u_c' (Lemma C.5). Nothing of size N x N is ever formed.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

Batches = Iterable[tuple[Tensor, Tensor]]
"""Features (B, d) of any floating type with their labels (B,), in as many batches as there are."""

# Rows that are centred and normalised at a time: in float64 they stay in the processor's cache.
_CHUNK = 256


def _chunks(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Small pieces of the batches, features in float64."""
    for features, labels in batches:
        for rows, classes in zip(features.split(_CHUNK), labels.split(_CHUNK), strict=True):
            yield rows.double(), classes


def class_sums(batches: Batches, num_classes: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of the features of each class (C, d), number of samples of each (C,), and sum of all |h|^2 (scalar).

    Args:
        batches: Features and labels, labels in 0..C-1.
        num_classes: C.
        dim: d.
        device: Where the features are.
    """
    sums = torch.zeros(num_classes, dim, dtype=torch.float64, device=device)
    counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
    squares = torch.zeros((), dtype=torch.float64, device=device)
    for rows, classes in _chunks(batches):
        sums.index_add_(0, classes, rows)
        counts += torch.bincount(classes, minlength=num_classes)
        squares += torch.linalg.vector_norm(rows).square()
    return sums, counts, squares


def direction_sums(batches: Batches, centre: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sum over each class of (h - h_G)/|h - h_G|, (C, d), and the number of samples that have a direction, (C,).

    A feature that lies exactly at the centre has no direction and is in neither.

    Args:
        batches: Features and labels, labels in 0..C-1.
        centre: h_G, (d,), float64.
        num_classes: C.
    """
    sums = torch.zeros(num_classes, len(centre), dtype=torch.float64, device=centre.device)
    counts = torch.zeros(num_classes, dtype=torch.int64, device=centre.device)
    for rows, classes in _chunks(batches):
        centred = rows - centre
        norms = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        directed = norms != 0
        centred /= torch.where(directed, norms, 1.0)
        sums.index_add_(0, classes, centred)
        counts.index_add_(0, classes, directed.flatten().long())
    return sums, counts


def cosine_measures(sums: Tensor, counts: Tensor, delta: float, self_pairs: bool) -> dict[str, Tensor]:
    """``intra_min/mean/quantile`` and ``inter_max/mean/quantile``, float64 scalars.

    Args:
        sums: Sum of directions of each class, (C, d).
        counts: Number of directions of each class, (C,).
        delta: The quantiles are at delta for intra and at 1 - delta for inter, interpolated linearly.
        self_pairs: Whether intra counts the pairs i = j, as the text of Pan and Cao does; their published numbers
            do not. Without them intra is (n |u|^2 - 1)/(n - 1), undefined for a class of one.

    Returns:
        Minimum over classes, maximum over unordered pairs of classes, and so on; NaN where nothing is defined.
    """
    n = counts.double()
    means = sums / torch.where(counts > 0, n, torch.nan)[:, None]
    squares = means.square().sum(1)
    intra = squares if self_pairs else (n * squares - 1) / torch.where(counts > 1, n - 1, torch.nan)
    gram = means @ means.T
    pairs = torch.triu_indices(len(gram), len(gram), offset=1, device=gram.device)
    inter = gram[pairs[0], pairs[1]]
    return {
        **_summary("intra", intra[counts > (0 if self_pairs else 1)], "min", delta),
        **_summary("inter", inter[(counts[pairs] > 0).all(0)], "max", 1 - delta),
    }


def _summary(family: str, values: Tensor, worst: str, level: float) -> dict[str, Tensor]:
    """Worst, mean and quantile of the defined values; a value that is NaN all the same makes them NaN."""
    if len(values) == 0:
        undefined = torch.full((), torch.nan, dtype=torch.float64, device=values.device)
        return {f"{family}_{name}": undefined for name in (worst, "mean", "quantile")}
    return {
        f"{family}_{worst}": values.min() if worst == "min" else values.max(),
        f"{family}_mean": values.mean(),
        f"{family}_quantile": quantile(values, level),
    }


def quantile(values: Tensor, level: float) -> Tensor:
    """Linearly interpolated quantile of (n,), of any length (``torch.quantile`` stops at 16 million)."""
    ordered = values.sort().values
    position = level * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return torch.lerp(ordered[low], ordered[high], position - low)


def duality_cosines(weight: Tensor, means: Tensor, mean_of_means: Tensor) -> dict[str, Tensor]:
    """``nc3_cosine_min`` and ``nc3_cosine_mean``: cos(w_c - mean_c w, mu_c - mu_G) over the classes present.

    Args:
        weight: Classifier W, (C, d).
        means: Class means mu_c, (C, d), float64; NaN rows for absent classes.
        mean_of_means: mu_G, (d,).

    Returns:
        Over the classes whose cosine is defined; NaN where there is none.
    """
    rows = weight.double()
    rows = rows - rows.mean(0)
    cosines = torch.cosine_similarity(rows, means - mean_of_means, dim=1, eps=0.0)
    present = ~means.isnan().any(1)
    zero = (rows == 0).all(1) | (means == mean_of_means).all(1)
    summary = _summary("nc3_cosine", cosines[present & ~zero], "min", 0.5)
    summary.pop("nc3_cosine_quantile")
    return summary
