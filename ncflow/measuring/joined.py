"""Small batches put together, so that what is done once a batch is not most of the work."""

from collections.abc import Iterable, Iterator

import torch

from ncflow.measuring.features import FeatureBatch

# Samples of a batch of our own data, which so stays as it is: alone and stacked, its sums have one order.
_ROWS = 1000
# Beyond this, a batch is large whatever its samples; on a GPU too, one more copy of it should not matter.
_BYTES = 2**26


def joined(batches: Iterable[FeatureBatch]) -> Iterator[FeatureBatch]:
    """The same samples in the same order, in batches of at least 1000 samples or 64 MiB where there are as many."""
    waiting: list[FeatureBatch] = []
    for batch in batches:
        if waiting and not _fit(waiting[0], batch):
            yield _whole(waiting)
            waiting = []
        waiting.append(batch)
        if sum(len(one.labels) for one in waiting) >= _ROWS or sum(map(_bytes, waiting)) >= _BYTES:
            yield _whole(waiting)
            waiting = []
    if waiting:
        yield _whole(waiting)


def _fit(one: FeatureBatch, other: FeatureBatch) -> bool:
    """Whether they differ in nothing but the number of samples; what is refused of the others is told of their own."""
    pairs = [(one.features[name], other.features[name]) for name in one.features]
    pairs += [(one.labels, other.labels), (one.logits, other.logits)]
    return all(a.shape[1:] == b.shape[1:] and a.dtype == b.dtype and a.device == b.device for a, b in pairs)


def _bytes(batch: FeatureBatch) -> int:
    return sum(value.nbytes for value in batch.features.values())


def _whole(batches: list[FeatureBatch]) -> FeatureBatch:
    if len(batches) == 1:
        return batches[0]
    features = {name: torch.cat([batch.features[name] for batch in batches]) for name in batches[0].features}
    labels, logits = (torch.cat([getattr(batch, part) for batch in batches]) for part in ("labels", "logits"))
    return FeatureBatch(features, labels, logits)
