"""How a trainer's module is to be read: as validation reads it, and as the same network on every rank."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import RunningStage

from ncflow.callbacks.loaders import SequentialLoader
from ncflow.checks import ArgumentError
from ncflow.measuring.notes import note

_SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
_AVERAGING = {"WeightAveraging", "StochasticWeightAveraging"}  # by name: Lightning 2.5 has not both


class AsTrained:
    """Batches of a loader as they reach the module in training, on its device.

    The hooks ``on_before_batch_transfer``, ``transfer_batch_to_device`` and ``on_after_batch_transfer`` of module and
    data module have had them.

    Args:
        loader: The loader.
        trainer: The trainer of the module.
        split: Its name.
        index: Its index among the loaders of its kind, which the hooks are told.
    """

    def __init__(self, loader: Iterable[Any], trainer: Trainer, split: str, index: int = 0) -> None:
        self.loader, self.trainer, self.split, self.index = loader, trainer, split, index

    def __iter__(self) -> Iterator[Any]:
        strategy, module = self.trainer.strategy, self.trainer.lightning_module
        for batch in Noted(self.loader, self.split):
            converted = strategy.precision_plugin.convert_input(batch)
            before = module._on_before_batch_transfer(converted, dataloader_idx=self.index)
            yield strategy.batch_to_device(before, dataloader_idx=self.index)


class Noted:
    """Batches of a loader; one line says if a DataLoader, or the model that is called on them, draws random numbers.

    Args:
        loader: The loader.
        split: Its name.
    """

    def __init__(self, loader: Iterable[Any], split: str) -> None:
        self.loader, self.split = loader, split

    def __iter__(self) -> Iterator[Any]:
        before = _random_states()
        yield from self.loader
        if isinstance(self.loader, SequentialLoader) and _random_states() != before:
            note(
                f"{self.split}: random numbers were drawn to measure it, by augmentation or by the model: its samples "
                "are measured as they came; give clean ones as loaders="
            )


def _random_states() -> tuple[Any, ...]:
    of_numpy: Any = np.random.get_state(legacy=False)["state"]
    return torch.get_rng_state().numpy().tobytes(), of_numpy["key"].tobytes(), of_numpy["pos"], random.getstate()


@contextmanager
def as_validated(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Let the trainer say that it validates, and ranks have the first one's buffers, as a checkpoint has.

    Hooks that augment in training alone leave a batch as it is. BN that is not synchronised differs from rank to rank,
    and sums over ranks would mix their networks.
    """
    stage = trainer.state.stage
    trainer.state.stage = RunningStage.VALIDATING
    buffers = dict(pl_module.named_buffers()) if trainer.world_size > 1 else {}
    own = {name: buffer.clone() for name, buffer in buffers.items()}
    if buffers:
        first = trainer.strategy.broadcast({name: buffer.cpu() for name, buffer in buffers.items()})
        for name, buffer in buffers.items():
            buffer.data.copy_(first[name])
    try:
        yield
    finally:
        trainer.state.stage = stage
        for name, buffer in buffers.items():
            buffer.data.copy_(own[name])


def averaging(trainer: Trainer) -> str | None:
    """Name of the callback that averages the weights, None if there is none."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next(
        (type(one).__name__ for one in callbacks if _AVERAGING & {kind.__name__ for kind in type(one).__mro__}), None
    )


def check_strategy(trainer: Trainer) -> None:
    """Refuse strategies under which no rank has the whole network.

    Raises:
        ArgumentError: For these.
    """
    kind = type(trainer.strategy).__name__
    if isinstance(trainer.strategy, _SHARDED):
        raise ArgumentError(f"strategy must leave each rank all the weights, as ddp does, found {kind}")
