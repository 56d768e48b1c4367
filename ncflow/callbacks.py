"""The Lightning callback that measures collapse, on our models and on anybody's."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from math import isfinite, isnan, nan, sqrt
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset
from torchmetrics.utilities.distributed import gather_all_tensors

from ncflow.checks import ArgumentError, require
from ncflow.data.batches import shard
from ncflow.features import LAST, FeatureBatch, extract, resolve_layers
from ncflow.metrics import NeuralCollapse
from ncflow.metrics.margins import folded_weight_norm_product, predictions, weight_norm_product
from ncflow.metrics.quasi_interpolation import classifier_residuals, fitted_gap, output_sums
from ncflow.models.network import find_classifier
from ncflow.results import History
from ncflow.theory.layer_peeled import minimum_loss, minimum_regularized_loss, regularized_loss

# The targets of a loss whose outputs are compared with quasi-interpolation, and whether they are 1 and -1.
_SIGNS = {"one_hot": False, "signs": True}


class NeuralCollapseCallback(Callback):
    """Measure neural collapse of any LightningModule classifier before training, at chosen epochs and at the end.

    The model is frozen (evaluation mode, no gradients), each sample counts exactly once, and training draws the
    same random numbers as without the measurement. The measures of the last layer are logged as
    ``train/intra_min`` and so on, those of another layer as ``train/<layer>/intra_min``.

    Args:
        every_n_epochs: Epochs between measurements, >= 1.
        layers: ``"last"`` (the classifier's input), ``"all"`` or a list of module names
            (see :func:`ncflow.features.resolve_layers`).
        loaders: Batches (inputs, labels) by split name, each sample once and in evaluation form (no shuffling, no
            augmentation). None takes the data module's ``measure_dataloaders()`` where it has one, else sequential
            copies of the trainer's own training, validation and test DataLoaders.
        classifier: Name of the classifier layer; None takes the last ``nn.Linear``.
        norm: Name of the BN right before the classifier, for ``gamma_norm``; None takes the network's ``last_norm``.
        loss: From logits (N, C) and labels (N,) to the mean loss; None takes the module's ``loss`` where that is
            callable, else cross-entropy.
        weight_decay: lambda of ``regularized_loss`` and its gap; None takes the module's ``weight_decay`` where that is
            a number, else the two are NaN.
        delta: Level of the quantiles.
        self_pairs: Whether intra counts the pairs i = j.
        batch_size: Batch size for ``measure_dataloaders()``; values depend on it by rounding alone.
        max_cached_bytes: Bytes of features kept for each layer, on each rank; a split that has more is read twice. None
            for no limit.
        history: File to which a row per split and layer is added at each measurement; training that starts anew,
            rather than from a checkpoint, starts it anew.

    Attributes:
        rows: The rows of the latest measurement: ``epoch`` (finished epochs), ``split``, ``layer`` and the measures.
    """

    def __init__(
        self,
        every_n_epochs: int = 5,
        layers: str | Sequence[str] = LAST,
        *,
        loaders: Mapping[str, Iterable[Any]] | None = None,
        classifier: str | None = None,
        norm: str | None = None,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        weight_decay: float | None = None,
        delta: float = 0.05,
        self_pairs: bool = False,
        batch_size: int = 1000,
        max_cached_bytes: int | None = 2**31,
        history: Path | str | None = None,
    ) -> None:
        require(every_n_epochs >= 1, "every_n_epochs", "at least 1", every_n_epochs)
        require(0 < delta < 1, "delta", "in (0, 1)", delta)
        self.every_n_epochs, self.layers, self.loaders = every_n_epochs, layers, loaders
        require(weight_decay is None or weight_decay >= 0, "weight_decay", "null or at least 0", weight_decay)
        self.classifier, self.norm, self.loss, self.weight_decay = classifier, norm, loss, weight_decay
        self.delta, self.self_pairs, self.batch_size = delta, self_pairs, batch_size
        self.max_cached_bytes = max_cached_bytes
        self.history = None if history is None else History(Path(history))
        self.rows: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail before training if a layer is missing."""
        resolve_layers(_network(pl_module), self.layers)
        find_classifier(_network(pl_module), self.classifier)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an interrupted run wrote after its checkpoint; measure the model as initialised."""
        starts = trainer.global_step == 0
        if self.history is not None and trainer.is_global_zero:
            self.history.restart_after(None if starts else trainer.current_epoch)
        if starts:
            self.measure(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure after every n-th epoch and after the last."""
        if is_due(trainer, self.every_n_epochs):
            self.measure(trainer, pl_module, epoch=trainer.current_epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """The latest rows: a run that was stopped after its last epoch still has its final measures."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the latest rows from a checkpoint."""
        self.rows = state_dict["rows"]

    def measure(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        """Measure every split and layer now, log the values and add them to the history."""
        self.rows = []
        for split, loader in self._loaders(trainer).items():
            for layer, values in self._measure_split(pl_module, loader).items():
                if split == "train" and "accuracy" in values:
                    values["interpolated"] = float(values["accuracy"] == 1)
                self.rows.append({"epoch": epoch, "split": split, "layer": layer, **values})
                prefix = split if layer == LAST else f"{split}/{layer}"
                named = {f"{prefix}/{name}": value for name, value in values.items()}
                trainer.callback_metrics.update({name: torch.tensor(value) for name, value in named.items()})
                for logger in trainer.loggers:
                    logger.log_metrics({**named, "epoch": epoch}, step=trainer.global_step)
        if self.history is not None and trainer.is_global_zero:
            self.history.append(self.rows)

    def _loaders(self, trainer: Trainer) -> Mapping[str, Iterable[Any]]:
        if self.loaders is not None:
            return self.loaders
        own = getattr(getattr(trainer, "datamodule", None), "measure_dataloaders", None)
        if own is not None:
            return own(self.batch_size)
        found = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}
        return {split: sequential(loader) for split, loader in found.items() if loader is not None}

    def _measure_split(self, pl_module: LightningModule, loader: Iterable[Any]) -> dict[str, dict[str, float]]:
        network = _network(pl_module)
        names = resolve_layers(network, self.layers)
        _, head = find_classifier(network, self.classifier)
        metrics: dict[str, NeuralCollapse] = {}
        outputs = _Outputs(self._loss(pl_module), next(network.parameters()).device)
        for batch in extract(network, loader, names, self.classifier):
            for name, features in batch.features.items():
                if name not in metrics:
                    metrics[name] = self._metric(head, name, features)
            _update(metrics, batch)
            outputs.update(batch.logits, batch.labels)
        require(bool(metrics), "loaders", "loaders with at least one batch", "an empty one")
        with torch.no_grad():
            unfit = {name: metric for name, metric in metrics.items() if metric.second_pass()}
            if unfit:
                for batch in extract(network, loader, list(unfit), self.classifier):
                    _update(unfit, batch)
            values = {name: metric.compute() for name, metric in metrics.items()}
            if LAST in values:
                values[LAST] |= outputs.compute()
                values[LAST]["gamma_norm"] = self._gamma_norm(network)
                values[LAST] |= self._norms(network, values[LAST])
                if outputs.signs is not None:
                    values[LAST] |= self._quasi_interpolation(pl_module, head, outputs, metrics[LAST])
        measured = {name: _floats(measures) for name, measures in values.items()}
        if LAST in measured:
            measured[LAST] |= self._optimality(pl_module, head.out_features, measured[LAST])
        return measured

    def _norms(self, network: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Products of weight norms, and the margins of the outputs divided by rho (CBMM Memo 117, section 3).

        In the memo's letters ``normalized_margin_mean`` is mu, ``_std`` sigma and ``_square`` M, the mean square.
        """
        rho = weight_norm_product(network)
        margins = {f"normalized_{name}": values[name] / rho for name in values if name.startswith("margin_")}
        if margins:
            mean, deviation = margins["normalized_margin_mean"], margins["normalized_margin_std"]
            margins["normalized_margin_square"] = mean.square() + deviation.square()
        return {"rho": rho, "rho_folded": folded_weight_norm_product(network), **margins}

    def _quasi_interpolation(
        self, pl_module: LightningModule, head: nn.Linear, outputs: "_Outputs", metric: NeuralCollapse
    ) -> dict[str, Tensor]:
        """e, its spread, and the residuals of eq. 33 and 34, NaN without decay or where a class is missing."""
        gap, spread = fitted_gap(outputs.total_quasi(), head.out_features)
        means, decay = metric.centred_means(), self._decay(pl_module)
        if decay > 0 and len(means) == head.out_features:
            weight = head.weight.detach().to(means.device)
            residuals = classifier_residuals(gap, weight, means, decay, bool(outputs.signs))
        else:
            residuals = (gap.new_tensor(nan), gap.new_tensor(nan))
        names = ("quasi_gap", "quasi_spread", "quasi_residual_means", "quasi_residual_norms")
        return dict(zip(names, (gap, spread, *residuals), strict=True))

    def _decay(self, pl_module: LightningModule) -> float:
        own = getattr(pl_module, "weight_decay", None) if self.weight_decay is None else self.weight_decay
        return float(own) if isinstance(own, int | float) and own >= 0 else nan

    def _optimality(self, pl_module: LightningModule, num_classes: int, values: dict[str, float]) -> dict[str, float]:
        """Regularised loss and the gaps to the least losses of the layer-peeled model, for balanced classes.

        Where the theory does not apply they are NaN: a class is absent, or BN adds an offset, which nothing penalises.
        """
        cross_entropy, gamma = values.pop("cross_entropy"), values["gamma_norm"]
        alpha, weight_norm = values["feature_rms_norm"], values["weight_norm"]
        decay = self._decay(pl_module)
        offset = getattr(self._last_norm(_network(pl_module)), "bias", None) is not None
        applies = values["classes_present"] == num_classes
        finite = isfinite(alpha) and isfinite(weight_norm)
        total = regularized_loss(cross_entropy, decay, alpha if isnan(gamma) else gamma, weight_norm)
        least = minimum_loss(num_classes, alpha, weight_norm / sqrt(num_classes)) if finite else nan
        least_total = nan if isnan(decay) else minimum_regularized_loss(num_classes, decay)
        return {
            "regularized_loss": total,
            "loss_gap": cross_entropy - least if applies else nan,
            "regularized_loss_gap": total - least_total if applies and not offset else nan,
        }

    def _metric(self, head: nn.Linear, name: str, features: Tensor) -> NeuralCollapse:
        # A hidden layer's features have another meaning, and often another size, than the rows of W.
        reads = head if name == LAST else None
        # Apple's GPUs have no float64: there the sums are made on the CPU.
        device = "cpu" if features.device.type == "mps" else features.device
        metric = NeuralCollapse(
            head.out_features,
            features.shape[1],
            reads,
            self.delta,
            self.self_pairs,
            max_cached_bytes=self.max_cached_bytes,
        )
        return metric.to(device)

    def _loss(self, pl_module: LightningModule) -> Callable[[Tensor, Tensor], Tensor]:
        own = getattr(pl_module, "loss", None)
        return self.loss or (own if callable(own) else F.cross_entropy)

    def _last_norm(self, network: nn.Module) -> nn.Module | None:
        return network.get_submodule(self.norm) if self.norm is not None else getattr(network, "last_norm", None)

    def _gamma_norm(self, network: nn.Module) -> Tensor:
        weight = getattr(self._last_norm(network), "weight", None)
        return torch.tensor(torch.nan) if weight is None else weight.double().norm()


def _update(metrics: Mapping[str, NeuralCollapse], batch: FeatureBatch) -> None:
    for name, metric in metrics.items():
        device = metric.sums.device
        logits = batch.logits.to(device) if name == LAST else None
        metric.update(batch.features[name].to(device), batch.labels.to(device), logits)


class _Outputs:
    """Loss, cross-entropy and accuracy over all samples of all ranks, from a loss that is a mean over its batch."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], device: torch.device) -> None:
        self.loss = loss
        self.device = torch.device("cpu") if device.type == "mps" else device
        self.sums = torch.zeros(4, dtype=torch.float64, device=self.device)  # loss, cross-entropy, correct, samples
        self.signs = _SIGNS.get(getattr(loss, "targets", ""))
        self.quasi = torch.zeros(5, dtype=torch.float64, device=self.device)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        logits, labels = logits.to(self.device), labels.to(self.device)
        correct = (predictions(logits) == labels).sum()
        count, exact = len(labels), logits.double()
        losses = [self.loss(exact, labels) * count, F.cross_entropy(exact, labels) * count]
        self.sums += torch.stack([*losses, correct, correct.new_tensor(count)])
        if self.signs is not None:
            self.quasi += output_sums(exact, labels, self.signs)

    def compute(self) -> dict[str, Tensor]:
        loss, cross_entropy, correct, count = _over_ranks(self.sums)
        return {"loss": loss / count, "cross_entropy": cross_entropy / count, "accuracy": correct / count}

    def total_quasi(self) -> Tensor:
        """Sums of :func:`ncflow.metrics.quasi_interpolation.output_sums` over all ranks."""
        return _over_ranks(self.quasi)


def _over_ranks(sums: Tensor) -> Tensor:
    everywhere = gather_all_tensors(sums) if torch.distributed.is_initialized() else [sums]
    return torch.stack(everywhere).sum(0)


def _network(pl_module: LightningModule) -> nn.Module:
    """The network of our Classifier, or a foreign module as it is."""
    network = getattr(pl_module, "network", None)
    return network if isinstance(network, nn.Module) else pl_module


def _floats(measures: Mapping[str, Tensor]) -> dict[str, float]:
    """All values in one transfer from the device."""
    return dict(zip(measures, torch.stack([v.double() for v in measures.values()]).tolist(), strict=True))


def is_due(trainer: Trainer, every_n_epochs: int) -> bool:
    """Whether the epoch that just ended is an n-th one, or the last."""
    epoch = trainer.current_epoch + 1
    return epoch % every_n_epochs == 0 or epoch == trainer.max_epochs or trainer.should_stop


def sequential(loader: Any) -> DataLoader:
    """Copy of a DataLoader that gives each sample of its data set once, in order.

    Under distributed training each rank gets its share and no sample is given twice: Lightning's own samplers would
    pad the shares to one size.

    Raises:
        ArgumentError: For anything but a DataLoader over a map-style data set.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        raise ArgumentError(
            "loaders must be given where the trainer's loader is no DataLoader over a map-style data set, "
            f"found {type(loader).__name__}"
        )
    return DataLoader(
        Subset(loader.dataset, shard(len(cast(Sized, loader.dataset)))),
        batch_size=loader.batch_size or 256,
        collate_fn=loader.collate_fn if loader.batch_size else None,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
    )
