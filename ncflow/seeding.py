"""Every random choice of a run has its own generator, derived from the run's seed and the purpose of the choice.

A purpose that draws more or fewer numbers than before therefore shifts no other: the same seed gives the same data
with any model, and the same initial weights with any data of the same shape.
"""

import zlib

import numpy as np
import torch


def derive_seed(seed: int, purpose: str, *index: int) -> int:
    """Mix a run's seed with a purpose and optional indices into an independent 32-bit seed.

    Args:
        seed: The run's seed, >= 0.
        purpose: What the numbers are for, such as ``"data"``, ``"labels"``, ``"init"``, ``"order"``.
        index: Further non-negative integers, for example the epoch.

    Returns:
        An integer in [0, 2**32). PyTorch's CPU generator reads no more than these 32 bits.
    """
    entropy = [seed, zlib.crc32(purpose.encode()), *index]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def generator(seed: int, purpose: str, *index: int) -> torch.Generator:
    """CPU generator seeded with :func:`derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *index))


def epoch_order(seed: int, epoch: int, num_samples: int) -> torch.Tensor:
    """Order in which epoch ``epoch`` (from 0) visits the training samples, shape (num_samples,).

    It depends on nothing but its arguments, so a resumed run needs no sampler state.
    """
    return torch.randperm(num_samples, generator=generator(seed, "order", epoch))
