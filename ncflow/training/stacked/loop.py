"""Train a group of cells as one model; each leaves the folder that it would leave alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning import LightningModule, Trainer
from omegaconf import DictConfig
from torch import Tensor, nn

from ncflow.callbacks.schedule import Clock, Scheduled, begin_table, keep
from ncflow.checks import ArgumentError
from ncflow.config.explain import one_line
from ncflow.data.base import InMemoryData
from ncflow.measuring.features import LAST
from ncflow.measuring.groups import Groups
from ncflow.measuring.split import rows_of
from ncflow.results import History, RunFolder, Status
from ncflow.results.files import kept_checkpoint
from ncflow.training.assembly import kept_every, measured, measured_groups
from ncflow.training.checkpoints import write_checkpoint
from ncflow.training.stacked.measure import CellsMeasurer
from ncflow.training.stacked.modules import StackedNetwork, cell_losses
from ncflow.training.stacked.optimizer import CellOptimizer


class StackedClassifier(LightningModule):
    """Train K networks side by side; the loss is the sum of theirs, so that their gradients do not mix.

    Args:
        names: What tells the cells apart in a checkpoint: their run ids.
        network: The stacked network.
        loss: From logits (B, C) and labels (B,) of a cell to its mean loss.
        make_optimizer: From the stacked network to the cells' optimiser.
        make_scheduler: From the PyTorch optimiser to its schedule, stepped once an epoch, or to None.
    """

    def __init__(
        self,
        names: Sequence[str],
        network: StackedNetwork,
        loss: Callable[[Tensor, Tensor], Tensor],
        make_optimizer: Callable[[StackedNetwork], CellOptimizer],
        make_scheduler: Callable[[torch.optim.Optimizer], Any],
    ) -> None:
        super().__init__()
        self.names, self.network, self.loss = list(names), network, loss
        self.make_optimizer, self.make_scheduler = make_optimizer, make_scheduler
        self.loss_sum = torch.zeros(len(names))
        self.cells: CellOptimizer
        self._loaded: dict[str, Any] | None = None

    def on_train_epoch_start(self) -> None:
        """Start the sums of this epoch's losses."""
        self.loss_sum = torch.zeros(len(self.names), device=self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Sum of the cells' losses."""
        inputs, labels = batch
        losses = cell_losses(self.loss, self.network(inputs), labels)
        self.loss_sum.add_(losses.detach())
        return losses.sum()

    def configure_optimizers(self) -> Any:
        """The cells' optimiser, now that the parameters are on their device and in their type, and its schedule."""
        self.network.tie()
        self.cells = self.make_optimizer(self.network)
        scheduler = self.make_scheduler(self.cells.optimizer)
        return (
            self.cells.optimizer
            if scheduler is None
            else {"optimizer": self.cells.optimizer, "lr_scheduler": scheduler}
        )

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Forget the stacked gradients."""
        self.cells.clear_gradients()

    def on_after_backward(self) -> None:
        """Hand the stacked gradients to the optimiser's slices."""
        self.cells.take_gradients()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the optimiser's state by parameter and cell, whatever its slices are."""
        checkpoint["optimizer_states"] = []
        checkpoint["cells"] = {"names": self.names, "optimizer": self.cells.state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the states of this group's cells out of a checkpoint that may hold more."""
        saved = checkpoint["cells"]
        rows = torch.tensor([saved["names"].index(name) for name in self.names])
        checkpoint["state_dict"] = {name: value[rows] for name, value in checkpoint["state_dict"].items()}
        for state in checkpoint["callbacks"].values():
            if state.get("loss_sum") is not None:  # saved within an epoch
                state["loss_sum"] = state["loss_sum"][rows]
        self._loaded = {
            name: {key: value[rows] for key, value in state.items()} for name, state in saved["optimizer"].items()
        }

    def on_train_start(self) -> None:
        """Put the optimiser's state back."""
        if self._loaded is not None:
            self.cells.load_state(self._loaded)
            self._loaded = None


@dataclass(eq=False)
class Cell:
    """One run of a group.

    Attributes:
        cfg: Its config.
        folder: Its folder; None where the run is at its end, or not asked for, and only keeps its place in the group,
            as the last bits of its neighbours may depend on how many they are.
        data: Its data, set up.
        network: Its network, a view into the stacked one.
        loggers: Its own.
        history: Its history file, None for none.
        nc0_at: As of :class:`ncflow.models.Classifier`.
        rows: Of its latest measurement.
        status: ``done``, ``diverged`` or ``failed`` once it is at its end, None before.
        steps: Optimiser steps until then.
        error: Why nothing more can be written for it.
    """

    cfg: DictConfig
    folder: RunFolder | None
    data: InMemoryData
    network: nn.Module
    loggers: list[Any]
    history: History | None
    nc0_at: Callable[[int], float] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    status: str | None = None
    steps: int = 0
    error: str = ""

    @property
    def is_going(self) -> bool:
        """Whether it is measured and written."""
        return self.folder is not None and self.status is None

    @property
    def run_id(self) -> str:
        """Its identity."""
        return "" if self.folder is None else self.folder.run_id

    def weights(self) -> dict[str, Tensor]:
        """Its weights, as the checkpoint of a run has them: copies, as a view would be saved with those of all."""
        return {f"network.{name}": value.clone() for name, value in self.network.state_dict().items()}

    def fail(self, error: BaseException) -> None:
        """Leave it out from now on; the others go on."""
        self.status, self.error = Status.FAILED, one_line(error)


class MeasureCells(Scheduled):
    """Measure every cell when it is due, as :class:`ncflow.callbacks.NeuralCollapseCallback` measures a run.

    A cell whose mean loss is not finite is measured a last time and then left alone; the others go on.

    Args:
        cells: The cells.
        layers: As for :func:`ncflow.measuring.features.resolve_layers`.
        loss: The cells' loss.
        clock: Of the group's training.
        finish: Called with each cell at its end and its status, which it gives to the cell.
        at_once: Whether to measure them side by side if that can be done; None: on a GPU. One by one they get what
            they get alone to the last bit.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        layers: Any,
        loss: Callable[[Tensor, Tensor], Tensor],
        clock: Clock,
        finish: Callable[[Cell, str], None],
        at_once: bool | None = None,
    ) -> None:
        measure = cells[0].cfg.measure
        super().__init__(measure.every_n_epochs, batch_size=measure.batch_size, first_epochs=measure.first_epochs)
        self.cells, self.layers, self.loss, self.clock = cells, layers, loss, clock
        self.finish, self.at_once = finish, at_once
        self._measurer: CellsMeasurer | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure when due; say which cells are at their end."""
        finite = pl_module.loss_sum.isfinite().tolist()  # type: ignore[union-attr, operator]
        epoch = trainer.current_epoch + 1
        self.clock.look()
        going = {cell: ok for cell, ok in zip(self.cells, finite, strict=True) if cell.is_going}
        ended = [cell for cell, ok in going.items() if not ok or epoch == trainer.max_epochs]
        self._measure(trainer, pl_module, list(going) if self._is_due(trainer) else ended, epoch)
        self._keep_weights(going, epoch)
        for cell in ended:
            if cell.is_going:
                with losing(cell):
                    cell.steps = trainer.global_step
                    self.finish(cell, Status.DONE if going[cell] else Status.DIVERGED)
        if not self._going():
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: each cell was measured at its own end."""

    def measure(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Measure all cells that are not at their end, before training."""
        self._measure(trainer, pl_module, self._going(), epoch)
        self._keep_weights(self._going(), epoch)

    def _keep_weights(self, cells: Iterable[Cell], epoch: int) -> None:
        """As :class:`ncflow.callbacks.kept.KeepCheckpoints` keeps those of a run."""
        for cell in cells:
            every_n_epochs = kept_every(cell.cfg)
            if cell.folder is not None and every_n_epochs is not None and epoch % every_n_epochs == 0:
                with losing(cell):
                    path = kept_checkpoint(cell.folder.path, epoch)
                    write_checkpoint(path, {"state_dict": cell.weights(), "epoch": epoch}, [cell.run_id])

    def _begin(self, trainer: Trainer, starts: bool) -> None:
        for cell in self._going():
            if cell.history is not None:
                with losing(cell):
                    begin_table(cell.history, starts, self._saved_marks.get(cell.run_id))

    def _going(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.is_going]

    def _measure(self, trainer: Trainer, pl_module: LightningModule, cells: Sequence[Cell], epoch: int) -> None:
        together = self._together(trainer, pl_module) if len(cells) > 1 else {}
        for cell in cells:
            measure = cell.cfg.measure
            cell.rows, groups = [], Groups(measured_groups(cell.cfg))
            for split, loader in cell.data.measure_dataloaders(measure.batch_size).items():
                own = together[split][self.cells.index(cell)] if split in together else None
                found = measured(cell.cfg, cell.network, self.loss, loader, groups) if own is None else {LAST: own}
                cell.rows += rows_of(epoch, split, found, cell.nc0_at)
            with losing(cell):
                keep(cell.rows, cell.loggers, cell.history, epoch, trainer.global_step)

    def _together(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, list[dict[str, float] | None]]:
        """Measures of all cells by split, if they can be measured side by side."""
        on_gpu = pl_module.device.type == "cuda"
        measure = self.cells[0].cfg.measure
        if self.layers != LAST or measure.groups or not (on_gpu if self.at_once is None else self.at_once):
            return {}
        if self._measurer is None:
            network, decays = pl_module.network, [cell.cfg.weight_decay for cell in self.cells]
            assert isinstance(network, StackedNetwork)
            self._measurer = CellsMeasurer(network, self.loss, decays, measure.delta, measure.self_pairs)
        data = trainer.datamodule  # type: ignore[attr-defined]
        splits = [split for split in ("train", "test") if data.same_size(split)]
        return {split: self._measurer.measure(data.measure_batches(split, measure.batch_size)) for split in splits}

    def state_dict(self) -> dict[str, Any]:
        """What is written of the cells that are not at their end."""
        marks = {cell.run_id: cell.history.mark for cell in self._going() if cell.history is not None}
        return {"histories": marks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over how far the histories were."""
        self._saved_marks = state_dict["histories"]


@contextmanager
def losing(cell: Cell) -> Iterator[None]:
    """Lose a cell whose files cannot be written, and no other."""
    try:
        yield
    except (OSError, ArgumentError) as error:
        cell.fail(error)
