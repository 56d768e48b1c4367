"""A case: somebody's module and loaders, which know nothing of ncflow, and what measuring them must give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ncflow.callbacks import NeuralCollapseCallback
from tests.naive import naive

torch.manual_seed(0)
N, C = 60, 3
Y = torch.arange(N)[torch.randperm(N, generator=torch.Generator().manual_seed(1))] % C
X = torch.randn(N, 5, generator=torch.Generator().manual_seed(2)) + torch.eye(5)[Y] * 2
DATA = TensorDataset(X, Y)

Truth = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Features H, labels y, classifier W, and b."""


@dataclass
class Fit:
    """A training to be measured.

    Attributes:
        module: Of somebody.
        train: Its training loader.
        truth: From the module as it was trained, in evaluation mode, to H, y, W and b by brute force.
        callback: Options of the callback.
        trainer: Options of the trainer.
        fit: Options of ``fit``.
        measures: More measures and their values, from the module.
    """

    module: L.LightningModule
    train: Any = None
    truth: Callable[[Any], Truth] | None = None
    callback: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    measures: Callable[[Any], dict[str, float]] = lambda module: {}


@dataclass(frozen=True)
class Case:
    """A row of the table.

    Attributes:
        name: What a user would call it.
        make: The training.
        says: What a line says: of the refusal, or beside the numbers; "" for no line.
        refused: Whether it is refused.
    """

    name: str
    make: Callable[[], Fit]
    says: str = ""
    refused: bool = False


CASES: list[Case] = []


def case(name: str, says: str = "", refused: bool = False) -> Callable[[Callable[[], Fit]], Callable[[], Fit]]:
    """Put what makes a training into the table."""

    def put(make: Callable[[], Fit]) -> Callable[[], Fit]:
        CASES.append(Case(name, make, says, refused))
        return make

    return put


class Module(L.LightningModule):
    """What the cases have in common: the training, of a body and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.fc = nn.Linear(6, C)

    def forward(self, x: Any) -> Any:
        return self.fc(self.body(x))

    def training_step(self, batch: Any, index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(data: Any = DATA, size: int = 20, **options: Any) -> DataLoader:
    return DataLoader(data, size, **options)


def plain(module: Any, X: Tensor = X, Y: Tensor = Y) -> Truth:
    """Of a body and a head."""
    return module.body(X), Y, module.fc.weight, module.fc.bias


def brute_force(truth: Truth) -> dict[str, Any]:
    """The measures of features, labels, W and b."""
    H, y, W, b = (part if part is None else part.detach().double().numpy() for part in truth)
    return naive(H, y.astype(int), len(W), W, b)


def run(fit: Fit, callbacks: Sequence[L.Callback] | None = None) -> tuple[NeuralCollapseCallback, L.Trainer]:
    """Train; the callback that measured."""
    measure = NeuralCollapseCallback(1, **fit.callback)
    torch.manual_seed(5)
    trainer = L.Trainer(
        **{"max_epochs": 1, "num_sanity_val_steps": 0, **fit.trainer},
        accelerator="cpu",
        callbacks=[measure] if callbacks is None else [*callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(fit.module, fit.train if fit.train is not None or "datamodule" in fit.fit else loader(), **fit.fit)
    return measure, trainer
