"""Neural collapse of one layer as a pure function, and what the Metric shares with it."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ncflow.checks import require
from ncflow.metrics.class_means import FirstSums, geometry
from ncflow.metrics.collapse import choice_measures, collapse_measures
from ncflow.metrics.margins import margins, predictions
from ncflow.metrics.scatter import Around, SecondSums

Center = Literal["samples", "classes", "none"]


def neural_collapse(
    features: Tensor | NDArray[Any],
    labels: Tensor | NDArray[Any],
    num_classes: int,
    weight: Tensor | NDArray[Any] | None = None,
    bias: Tensor | NDArray[Any] | None = None,
    delta: float = 0.05,
    self_pairs: bool = False,
    *,
    center: Center = "samples",
    logits: Tensor | NDArray[Any] | None = None,
) -> dict[str, Tensor]:
    """Measure the collapse of features, tensors or NumPy arrays.

    Sums are in float64 whatever the type of the features. What leaves a measure undefined (an absent class, a class of
    one, a feature at the centre) is left out of it; a measure that nothing defines is NaN, and so is one that reads a
    feature that is not finite.

    Args:
        features: H, (N, d), any floating type.
        labels: y, (N,), integers 0..C-1.
        num_classes: C >= 2.
        weight: Classifier W, (C, d), for the measures of NC3, NC4 and the weights; None leaves them out.
        bias: Classifier b, (C,), used for the choices W h + b of NC4; None for 0.
        delta: Level of ``intra_quantile``; ``inter_quantile`` is at 1 - delta. In (0, 1).
        self_pairs: Whether intra counts the pairs i = j (see :func:`ncflow.metrics.cosine.cosine_measures`).
        center: h_G of the cosine family: ``samples``, the mean over samples; ``classes``, the mean of the class means;
            ``none``, 0, the setting of the theorem. ``intra_raw_*`` and ``inter_raw_*`` are always those of 0.
        logits: (N, C), in place of W h + b.

    Returns:
        Float64 scalars by name. Their definitions and limits at collapse are with the functions of the families:
        :mod:`~ncflow.metrics.cosine`, :mod:`~ncflow.metrics.covariance` (NC1, NC2), :mod:`~ncflow.metrics.duality`
        (NC3); here ``nc4_agreement``, the share of samples whose nearest class mean is the classifier's choice (1),
        ``ncc_accuracy``, whose nearest class mean is the label's (1), ``margin_min``, ``margin_mean``, ``margin_std``,
        ``feature_rms_norm`` (alpha = sqrt(mean |h|^2), not centred), ``classes_present`` (C), ``nonfinite_samples``.

    Raises:
        ArgumentError: (a ValueError) naming the argument, the rule and the value found.

    Example:
        >>> import torch
        >>> H = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
        >>> measures = neural_collapse(H, torch.tensor([0, 0, 1, 1]), num_classes=2)
        >>> measures["intra_min"].item(), measures["inter_max"].item(), measures["nc1"].item()
        (1.0, -1.0, 0.0)
    """
    features, labels = as_tensor("features", features), as_tensor("labels", labels)
    weight = None if weight is None else as_tensor("weight", weight)
    bias = None if bias is None else as_tensor("bias", bias)
    logits = None if logits is None else as_tensor("logits", logits)
    require(features.ndim == 2, "features", "of shape (N, d)", tuple(features.shape))
    require(len(features) > 0, "features", "at least one sample", tuple(features.shape))
    if weight is not None and bias is not None:
        require(tuple(bias.shape) == (num_classes,), "bias", f"of shape (C,) = ({num_classes},)", tuple(bias.shape))
    check_options(num_classes, features.shape[1], delta, center)
    check_batch(features, labels, logits, num_classes, features.shape[1], weight)
    check_labels(int(labels.min()), int(labels.max()), num_classes)
    features, labels = features.detach(), labels.long()
    first = FirstSums.zeros(num_classes, features.shape[1], features.device)
    first.add(features, labels)
    means = geometry(first, center)
    if logits is None and weight is not None:
        logits = exact_logits(features, weight, bias)
    chosen = None if logits is None else predictions(logits.detach())
    second = SecondSums.zeros(num_classes, features.shape[1], features.device)
    second.add(features, labels, chosen, Around.of(means))
    classifier = None if weight is None else weight.detach()
    measures = collapse_measures(means, first, second, classifier, delta, self_pairs)
    if logits is not None:
        own, agreeing = margins(logits.detach(), labels), second.nearest_is_predicted
        measures |= choice_measures(own, agreeing, first.squares, len(labels))
    return measures


def as_tensor(name: str, value: Any) -> Tensor:
    """A tensor as it is, and the numbers of a NumPy array as one.

    Args:
        name: Of the argument.
        value: Its value.

    Raises:
        ArgumentError: For anything else, and for an array that has no numbers.
    """
    if isinstance(value, Tensor):
        return value
    require(isinstance(value, np.ndarray), name, "a tensor or a NumPy array", f"of type {type(value).__name__}")
    is_known = value.dtype.kind in "biuf" and value.dtype.itemsize <= 8
    require(is_known, name, "an array of real numbers of at most 64 bits", value.dtype)
    # PyTorch takes neither another byte order nor memory that must not be written to, and knows few unsigned types.
    kind = np.int64 if value.dtype.kind == "u" else value.dtype.newbyteorder("=")
    return torch.from_numpy(np.require(value, kind, ["C", "W"]))


def exact_logits(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W h + b in float64, (B, C)."""
    return nn.functional.linear(
        features.double(), weight.detach().double(), None if bias is None else bias.detach().double()
    )


def check_options(num_classes: int, feature_dim: int, delta: float, center: str) -> None:
    """Refuse options that no features have.

    Raises:
        ArgumentError: Naming the argument, the rule and the value found.
    """
    require(num_classes >= 2, "num_classes", "at least 2", num_classes)
    require(feature_dim >= 1, "feature_dim", "at least 1", feature_dim)
    require(0 < delta < 1, "delta", "in (0, 1)", delta)
    require(center in ("samples", "classes", "none"), "center", "'samples', 'classes' or 'none'", center)


def check_batch(
    features: Tensor, labels: Tensor, logits: Tensor | None, num_classes: int, feature_dim: int, weight: Tensor | None
) -> None:
    """Refuse a batch by its shapes and types; nothing waits for a device.

    Raises:
        ArgumentError: Naming the argument, the rule and the value found.
    """
    for name, value in (("features", features), ("labels", labels), ("logits", logits)):
        require(value is None or isinstance(value, Tensor), name, "a tensor", f"of type {type(value).__name__}")
    shape = tuple(features.shape)
    require(len(shape) == 2 and shape[1] == feature_dim, "features", f"of shape (B, {feature_dim})", shape)
    require(features.is_floating_point(), "features", "of a floating type", features.dtype)
    require(tuple(labels.shape) == shape[:1], "labels", f"of shape {shape[:1]}", tuple(labels.shape))
    whole = not labels.is_floating_point() and not labels.is_complex() and labels.dtype != torch.bool
    require(whole, "labels", "integers", labels.dtype)
    if logits is not None:
        widths = (num_classes, 1) if num_classes == 2 else (num_classes,)
        fits = logits.ndim == 2 and len(logits) == len(labels) and logits.shape[1] in widths
        require(fits, "logits", f"of shape ({len(labels)}, {num_classes})", tuple(logits.shape))
    if weight is not None:
        expected, found = (num_classes, feature_dim), tuple(weight.shape)
        require(found == expected, "weight", f"of shape (C, d) = {expected}", found)


def check_labels(low: int, high: int, num_classes: int) -> None:
    """Refuse labels by the lowest and the highest.

    Raises:
        ArgumentError: Naming the argument, the rule and the value found.
    """
    require(low >= 0 and high < num_classes, "labels", f"in 0..{num_classes - 1}", f"{low}..{high}")
