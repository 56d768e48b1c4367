"""Cutting a data set that comes without a test split."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ncflow.checks import ArgumentError, require
from ncflow.seeding import derive_seed, generator


def stratified(labels: NDArray[np.int64], test_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the training and the test samples, classes in the same shares in both.

    Args:
        labels: Shape (N,).
        test_fraction: Share of the samples that go to the test split, in [0, 1).
        seed: The run's seed; the same seed gives the same split.

    Raises:
        ArgumentError: If the fraction is out of range, or a class has too few samples to be in both splits.
    """
    require(0 <= test_fraction < 1, "test_fraction", "in [0, 1)", test_fraction)
    everything = np.arange(len(labels))
    if test_fraction == 0:
        return everything.tolist(), []
    from sklearn.model_selection import train_test_split  # which takes most of a second to import

    try:
        train, test = train_test_split(
            everything, test_size=test_fraction, stratify=labels, random_state=derive_seed(seed, "split")
        )
    except ValueError as error:
        rule = f"such that a stratified split exists ({error})"
        raise ArgumentError(f"test_fraction must be {rule}, found {test_fraction}") from error
    return sorted(train.tolist()), sorted(test.tolist())


def few_of_each(labels: Tensor, limit: int) -> Tensor:
    """Indices, in their order, of at most so many samples of each class, drawn once and for all by a seed of its own.

    Args:
        labels: Shape (N,), integers.
        limit: The number, >= 1.
    """
    count = len(labels)
    mixed = torch.randperm(count, generator=generator(0, "limit"))
    order = labels[mixed].argsort(stable=True)
    classes = labels[mixed][order]
    rank_in_class = torch.arange(count) - torch.searchsorted(classes, classes)
    return mixed[order[rank_in_class < limit]].sort().values
