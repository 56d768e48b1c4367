"""Effective depth: how early in a network the nearest class centre decides as well as its end does."""

from collections.abc import Sequence

from ncflow.checks import require


def effective_depth(ncc_errors: Sequence[float], epsilon: float) -> int:
    """The epsilon-effective depth: the first layer whose nearest-class-centre error is at most epsilon.

    (Galanti, Galanti, Ben-Shaul 2022; Pan's thesis, Definition 3.2.2.)

    Args:
        ncc_errors: Share of training samples whose nearest class mean is of another class, from the first layer to the
            last, each in 0..1.
        epsilon: In 0..1.

    Returns:
        A number in 1..L, L being the number of layers; L where no layer is good enough.

    Example:
        >>> effective_depth([0.6, 0.2, 0.004, 0.0], epsilon=0.01)
        3
    """
    require(len(ncc_errors) > 0, "ncc_errors", "one value a layer, at least one", list(ncc_errors))
    require(all(0 <= error <= 1 for error in ncc_errors), "ncc_errors", "in 0..1", list(ncc_errors))
    require(0 <= epsilon <= 1, "epsilon", "in 0..1", epsilon)
    good = (layer for layer, error in enumerate(ncc_errors, start=1) if error <= epsilon)
    return next(good, len(ncc_errors))
