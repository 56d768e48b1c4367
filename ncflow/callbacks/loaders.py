"""Loaders for measurement: the samples that a trainer's loader gives, each once and in a fixed order."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from ncflow.checks import ArgumentError, error_line
from ncflow.data.batches import Batches, shard
from ncflow.data.splits import few_of_each
from ncflow.measuring.adapters import Adapters
from ncflow.measuring.features import random_states_kept
from ncflow.measuring.ranks import gathered, ranks


class Order(NamedTuple):
    """Which samples a loader gives.

    Attributes:
        samples: Their indices, each once, for all ranks together.
        is_fixed: Whether every epoch gives them in this order, so that its first batches are known.
        said: What a reader of the measures must know of them, "" for nothing.
    """

    samples: Sequence[int]
    is_fixed: bool = False
    said: str = ""


class SequentialLoader(DataLoader[Any]):
    """Batches of given samples of a loader's data set, made as the loader makes its own, the same at every pass.

    Its workers draw the same random numbers at every pass, and it draws none of the process.

    Args:
        loader: A DataLoader over a map-style data set.
        batches: The indices of each batch, or single ones where the loader makes no batches itself.
        is_batched: Whether it does.
        order: Of the samples of all ranks; this rank has its share.
        origin: The loader that it stands for; None for ``loader``.
    """

    def __init__(
        self, loader: DataLoader[Any], batches: Sequence[Any], is_batched: bool, order: Order, origin: Any = None
    ) -> None:
        by_index: dict[str, Any] = (
            {"batch_sampler": batches} if is_batched else {"sampler": batches, "batch_size": None}
        )
        super().__init__(
            loader.dataset,
            **by_index,
            collate_fn=loader.collate_fn,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            prefetch_factor=loader.prefetch_factor,
            generator=torch.Generator(),
        )
        self.order, self.origin = order, origin or loader

    def __iter__(self) -> Any:
        self.generator.manual_seed(0)
        return super().__iter__()


class _Chunks(Sequence[list[int]]):
    """Indices in lists of one size, made when they are asked for."""

    def __init__(self, samples: Sequence[int], size: int) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        return -(-len(self.samples) // self.size)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return list(self.samples[index * self.size : (index + 1) * self.size])


def sequential(loader: Any, limit: float | None = None, is_trial: bool = False) -> SequentialLoader:
    """Copy of a DataLoader that gives each of its samples once, in a fixed order.

    Under distributed training each rank gets its share and no sample is given twice: Lightning's own samplers would
    pad the shares to one size. The loader's generator and its samplers' are left as they are.

    Args:
        loader: The loader.
        limit: Batches an epoch, or the share of them, to which Lightning limits it; None for all. A loader that
            shuffles is not limited, as the next epoch has others.
        is_trial: Whether it is limited even so, as nothing is trained but for a trial.

    Raises:
        ArgumentError: For anything but a DataLoader over a map-style data set whose samples can be known.
    """
    why = _why_unknown(loader)
    if why:
        raise _unknown(why)
    own = loader.batch_sampler
    if own is not None and type(own) is not BatchSampler:
        return _by_batches(loader, own, limit)
    size = own.batch_size if isinstance(own, BatchSampler) else 1
    order = _order(loader, own.sampler if isinstance(own, BatchSampler) else loader.sampler)
    drops_last = isinstance(own, BatchSampler) and own.drop_last
    order = _limited(order, size, limit, drops_last, is_trial)
    return _of(loader, order, size if own is not None else None)


def _of(loader: DataLoader[Any], order: Order, size: int | None, origin: Any = None) -> SequentialLoader:
    mine = order.samples[_share(len(order.samples))]
    batches = mine if size is None else _Chunks(mine, size)
    return SequentialLoader(loader, batches, size is not None, order, origin)


def _share(count: int) -> slice:
    """This rank's of 0..count-1."""
    own = shard(count)
    return slice(own.start, own.stop, own.step)


def _why_unknown(loader: Any) -> str:
    if not isinstance(loader, DataLoader):
        return f"the trainer's loader is no DataLoader, found {type(loader).__name__}"
    if isinstance(loader.dataset, IterableDataset):
        return f"an IterableDataset is read, whose samples have no indices, found {type(loader.dataset).__name__}"
    if type(loader).__iter__ not in (DataLoader.__iter__, SequentialLoader.__iter__):
        return f"the loader has its own way to give batches, found {type(loader).__name__}"
    return ""


def _unknown(why: str) -> ArgumentError:
    return ArgumentError(f"loaders must be given where {why}: loaders={{'train': a loader of each sample once}}")


def _order(loader: DataLoader[Any], sampler: Any) -> Order:
    """The samples that a sampler chooses from; of a sampler that is not PyTorch's, those of this epoch."""
    kind = type(sampler).__name__
    if type(sampler) is SequentialSampler:
        return Order(range(len(sampler)), True)
    if type(sampler) is RandomSampler:
        count = len(sampler.data_source)
        every = not sampler.replacement and sampler.num_samples >= count
        said = f"{kind} draws {sampler.num_samples} of {count} samples an epoch: each of these is measured once"
        return Order(range(count), said="" if every else said)
    if type(sampler) is SubsetRandomSampler:
        return Order(list(dict.fromkeys(int(index) for index in sampler.indices)))
    if type(sampler) is WeightedRandomSampler:
        can_be = (sampler.weights > 0).nonzero().flatten().tolist()
        return Order(can_be, said=f"{kind} draws some samples more often: each that it can draw is measured once")
    if isinstance(sampler, DistributedSamplerWrapper):
        return _order(loader, sampler.dataset._sampler)  # type: ignore[attr-defined]
    if type(sampler) is DistributedSampler:
        return Order(range(len(sampler.dataset)), not sampler.shuffle)  # type: ignore[arg-type]
    return _chosen_by(sampler, {int(index) for index in _drawn(loader, sampler)})


def _chosen_by(sampler: Any, samples: set[int]) -> Order:
    said = f"{type(sampler).__name__} chooses: the {len(samples)} samples that it gives this epoch are measured"
    return Order(sorted(samples), said=said)


def _by_batches(loader: DataLoader[Any], sampler: Any, limit: float | None) -> SequentialLoader:
    """With a batch sampler that is not PyTorch's: the batches of this epoch, without samples that came before."""
    seen: set[int] = set()
    batches = []
    for drawn in _drawn(loader, sampler, limit):
        fresh = [index for index in dict.fromkeys(drawn) if index not in seen]
        seen.update(fresh)
        if fresh:
            batches.append(fresh)
    return SequentialLoader(loader, batches[_share(len(batches))], True, _chosen_by(sampler, seen))


def _drawn(loader: DataLoader[Any], sampler: Any, limit: float | None = None) -> list[Any]:
    """What a sampler gives on all ranks, of a copy of it: it is not moved on.

    Raises:
        ArgumentError: If it cannot be copied, or does not say how much it gives.
    """
    try:
        twin = copy.deepcopy(sampler, {id(loader.dataset): loader.dataset})
        with random_states_kept():
            drawn = list(islice(twin, len(sampler) if limit is None else _most(limit, len(sampler))))
    except Exception as error:  # whatever a sampler of others may raise
        raise _unknown(f"a copy of {type(sampler).__name__} cannot be read to its end ({error_line(error)})") from error
    return [index for own in gathered(drawn) for index in own]


def _most(limit: float, batches: int) -> int:
    """How many batches Lightning gives."""
    return min(limit, batches) if isinstance(limit, int) else int(limit * batches)


def _limited(order: Order, size: int, limit: float | None, drops_last: bool, is_trial: bool) -> Order:
    """What remains where an epoch ends before the samples do."""
    count = len(order.samples)
    each = -(-count // ranks())
    batches = each // size if drops_last else -(-each // size)
    most = batches if limit is None else _most(limit, batches)
    if order.is_fixed or (is_trial and most < batches):
        kept = order.samples[: most * size * ranks()]
        said = f"an epoch is limited to {len(kept)} of {count} samples, which are measured"
        return order._replace(samples=kept, said=said if most < batches else "")
    if most == batches:  # what is dropped at the end of an epoch is another one each time
        return order
    said = f"an epoch is limited to {most} of {batches} batches, other ones each time: all {count} samples are measured"
    return order._replace(said="; ".join(filter(None, (order.said, said))))


class OwnShare:
    """Each rank's share of the batches of a loader that gives all ranks the same."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return islice(self.loader, torch.distributed.get_rank(), None, ranks())


def given(loader: Any) -> Iterable[Any]:
    """A loader that the user gave: a DataLoader's samples each once, anything else as it is, a share on each rank.

    Raises:
        ArgumentError: If ranks were given different batches.
    """
    if isinstance(loader, DataLoader) and not _why_unknown(loader):
        return sequential(loader)
    if ranks() == 1 or isinstance(loader, Batches):
        return loader
    if len(set(gathered(_fingerprint(next(iter(loader), None))))) > 1:
        raise ArgumentError(
            "loaders must give every process the same batches, of which each measures its share, found different ones"
        )
    return OwnShare(loader)


def _fingerprint(batch: Any) -> str:
    if isinstance(batch, Tensor):
        return f"{tuple(batch.shape)} {batch.double().sum().item()}"
    if isinstance(batch, dict):
        return str({name: _fingerprint(part) for name, part in batch.items()})
    return str([_fingerprint(part) for part in batch]) if isinstance(batch, tuple | list) else ""


def labels_of(network: nn.Module, batches: Iterable[Any], adapters: Adapters) -> Tensor:
    """Labels of all samples, (n,), in their order; the network is not called, and random states stay."""
    with random_states_kept():
        labels = [adapters.read(network, batch).labels.flatten().cpu().long() for batch in batches]
    return torch.cat([torch.zeros(0, dtype=torch.long), *labels])


def at_most(loader: SequentialLoader, own_labels: Tensor, limit: int) -> SequentialLoader:
    """The same loader with at most so many samples of each class, drawn once and for all by a seed of its own.

    Args:
        loader: Of all samples.
        own_labels: Of its samples on this rank, in their order, (n,).
        limit: The number.
    """
    everywhere = gathered(own_labels)
    count, found = len(loader.order.samples), sum(map(len, everywhere))
    if found != count or not isinstance(loader.batch_sampler, _Chunks):
        raise ArgumentError(f"limit must be None where batches are not of single samples, found {found} of {count}")
    labels = torch.empty(count, dtype=torch.long)
    for rank, own in enumerate(everywhere):
        labels[rank :: len(everywhere)] = own
    samples = [loader.order.samples[index] for index in few_of_each(labels, limit).tolist()]
    said = f"at most {limit} samples of each class, drawn once, are measured: {len(samples)} of {count}"
    return _of(loader, Order(samples, said=said), loader.batch_sampler.size, loader.origin)
