"""From a config to what a run is made of, checked: data, model, logger."""

import copy
import inspect
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ncflow.checks import ArgumentError, error_line
from ncflow.config.build import BUILD_ERRORS, build
from ncflow.config.schema import ConfigError
from ncflow.config.validate import check_fields
from ncflow.data.base import InMemoryData
from ncflow.data.batches import batch_bounds
from ncflow.data.memory import free_memory, in_words
from ncflow.measuring.features import resolve_layers
from ncflow.measuring.groups import Groups, check_groups
from ncflow.measuring.split import measure_split, rows_of
from ncflow.models import Classifier
from ncflow.models.decay import is_shared
from ncflow.results import HISTORY, History, RunFolder, columns_with, final_measures
from ncflow.runtime import processes
from ncflow.seeding import derive_seed
from ncflow.training.checkpoints import Checkpoints
from ncflow.training.loggers import check_logger
from ncflow.training.nc0_law import nc0_law
from ncflow.training.trainer import is_submitted, make_trainer, set_up_process, trainer_options

_ACCUMULATE = "accumulate_grad_batches"


def prepare(cfg: DictConfig, data: InMemoryData | None = None) -> tuple[InMemoryData, Classifier]:
    """Build data and model, and check everything that can be checked without training.

    Args:
        cfg: The config.
        data: Of :func:`prepare_data` for this config, None to build it.

    Raises:
        ConfigError: One line that names the option, its rule and the value found.
    """
    check_fields(cfg)
    trainer_options(cfg)
    data = prepare_data(cfg) if data is None else data
    assert data.train is not None
    network = _network(cfg, data)
    for group, check in (
        ("data", data.check_network),
        ("measure", partial(resolve_layers, layers=measured_layers(cfg))),
    ):
        try:
            check(network)
        except ArgumentError as error:
            raise ConfigError(f"{group}.{error}") from error
    _check_groups(cfg, data, network)
    loss = build(cfg, "loss")
    _check_loss(loss, data.num_classes)
    _check_smallest_batch(cfg, data, network)
    classifier = Classifier(
        network,
        loss,
        partial(_optimizer, cfg),
        partial(_scheduler, cfg),
        cfg.weight_decay,
        cfg.weight_decay_scope,
        cfg.get("weight_decay_coupling"),
    )
    _check_decay(cfg, classifier)
    # Now, not in the first epoch, is the time to refuse their options.
    try:
        configured = classifier.configure_optimizers()
        optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
        _check_optimizer(cfg, optimizer)
        steps = -(-len(batch_bounds(len(data.train.labels), cfg.batch_size)) // (cfg.trainer.get(_ACCUMULATE) or 1))
        classifier.nc0_at = nc0_law(classifier, optimizer, cfg.epochs, steps, cfg.trainer.precision)
    except ArgumentError as error:
        raise ConfigError(str(error)) from error
    if processes.wanted(cfg.trainer) > 1:
        _check_shared(cfg, network)
    return data, classifier


def check(cfg: DictConfig, data: InMemoryData | None = None) -> tuple[InMemoryData, Classifier]:
    """Check all that can be checked before training, and give what :func:`prepare` gives; nothing is written.

    Raises:
        ConfigError: One line that names the option, its rule and the value found.
    """
    prepared = prepare(cfg, data)
    set_up_process(cfg)
    if not is_submitted():  # the machine that submits may not have the devices
        make_trainer(cfg, Path(), [], [], Checkpoints([]))
    check_logger(cfg)
    return prepared


def prepare_data(cfg: DictConfig, group: str = "data") -> InMemoryData:
    """Build and load the data of a config.

    Args:
        cfg: The config.
        group: Where its options are.

    Raises:
        ConfigError: One line that names the option, its rule and the value found.
    """
    data = build(cfg, group, seed=cfg.seed, batch_size=cfg.batch_size)
    try:
        data.setup()
    except ArgumentError as error:
        raise ConfigError(f"{group}.{error}" if not str(error).startswith("seed") else str(error)) from error
    except BUILD_ERRORS as error:
        raise ConfigError(f"{group} cannot be made: {error_line(error)}") from error
    return data


def _network(cfg: DictConfig, data: InMemoryData) -> nn.Module:
    """Build the model from the run's seed, if its weights fit into memory."""
    assert data.train is not None
    given = {"input_shape": data.input_shape, "num_classes": data.num_classes, "num_samples": len(data.train.labels)}
    with torch.random.fork_rng():
        try:
            with torch.device("meta"):  # shapes without numbers
                outline = build(cfg, "model", **given)
        except ConfigError as error:
            if isinstance(error.__cause__, ArithmeticError) or "overflow" in str(error).lower():
                raise
            outline = None  # perhaps a model that computes with its weights: the building itself says what is wrong
        if isinstance(outline, nn.Module):
            # Training keeps a gradient and often two moments beside each weight.
            needed = 4 * sum(tensor.nbytes for tensor in (*outline.parameters(), *outline.buffers()))
            free = free_memory()
            if needed > free:
                found = f"{in_words(needed)} for its weights, their gradients and moments"
                raise ConfigError(f"model must fit into memory, of which {in_words(free)} are free, found {found}")
        torch.manual_seed(derive_seed(cfg.seed, "init"))
        network = build(cfg, "model", **given)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"model._target_ must give an nn.Module, found {type(network).__name__}")
    # By their extremes, which take no copy of the weights.
    extremes = [extreme for p in network.parameters() if p.numel() for extreme in p.detach().aminmax()]
    if not all(bool(extreme.isfinite()) for extreme in extremes):
        raise ConfigError(f"model must start from finite weights, found NaN or infinity in {type(network).__name__}")
    return network


def _check_groups(cfg: DictConfig, data: InMemoryData, network: nn.Module) -> None:
    """Refuse groups of measures that the run cannot have, and give the data the samples of the second data set.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    has_ood, layers = cfg.measure.ood is not None, resolve_layers(network, measured_layers(cfg))
    try:
        check_groups(measured_groups(cfg), has_ood, network, layers)
    except ArgumentError as error:
        raise ConfigError(f"measure.{error}") from error
    if not has_ood:
        return
    other = prepare_data(cfg, "measure.ood")
    assert data.train is not None
    assert other.test is not None
    own, found = data.train.inputs, other.test.inputs
    if (found.shape[1:], found.dtype) != (own.shape[1:], own.dtype) or len(found) == 0:
        rule = f"a data set with test inputs like the run's, {tuple(own.shape[1:])} of {own.dtype}"
        raise ConfigError(f"measure.ood must be {rule}, found {len(found)} of {tuple(found.shape[1:])}, {found.dtype}")
    data.ood = other.test


def _check_loss(loss: Any, num_classes: int) -> None:
    """Refuse what fails in the first step, or is no mean over the samples: measures and shares of a batch need that.

    Raises:
        ConfigError: Naming the rule and the value found.
    """
    if isinstance(loss, nn.CrossEntropyLoss) and not 0 <= loss.label_smoothing < 1:  # PyTorch takes less for none
        raise ConfigError(f"loss.label_smoothing must be null or in [0, 1), found {loss.label_smoothing!r}")
    labels = torch.arange(min(num_classes, 10))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        logits = torch.randn(len(labels), num_classes)
    try:
        whole = loss(logits, labels)
        alone = [loss(logits[i : i + 1], labels[i : i + 1]) for i in range(len(labels))]
        mean = torch.stack(alone).mean()
        is_mean = whole.shape == () and bool(torch.isclose(whole, mean, rtol=1e-3))
    except BUILD_ERRORS as error:
        raise ConfigError(f"loss: {error_line(error)}") from error
    if not is_mean:
        raise ConfigError(f"loss must be the mean over the samples of a minibatch, found {_shown(whole)}, not {mean:g}")


def _shown(value: Tensor) -> str:
    return f"{value:g}" if value.shape == () else f"a tensor of shape {tuple(value.shape)}"


def _check_smallest_batch(cfg: DictConfig, data: InMemoryData, network: nn.Module) -> None:
    """Refuse a minibatch of one sample where BN would see one value of a channel, which PyTorch does in training alone.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    assert data.train is not None
    count = len(data.train.labels)
    smallest = min(stop - start for start, stop in batch_bounds(count, cfg.batch_size))
    if smallest > 1 or not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        return
    inputs = data.network_inputs(data.train.inputs[:1]).to("meta")
    try:  # shapes alone: nothing is computed, no running statistics change
        copy.deepcopy(network).to("meta").train()(inputs)
    except BUILD_ERRORS as error:
        if "more than 1 value per channel" not in str(error):  # perhaps a model of somebody's that needs numbers
            return
        option = "batch_size" if count > 1 else "the number of training samples"
        raise ConfigError(f"{option} must be at least 2 where the model has BN, found 1") from error


def _check_decay(cfg: DictConfig, classifier: Classifier) -> None:
    """Refuse a weight decay that is of nothing, as that of a classifier that is not trained.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    groups = classifier.parameter_groups()
    if cfg.weight_decay > 0 and groups and not any(group["weight_decay"] for group in groups):
        rule = "one in which something is trained where weight_decay is not 0"
        raise ConfigError(f"weight_decay_scope must be {rule}, found {cfg.weight_decay_scope!r}")


def _check_optimizer(cfg: DictConfig, optimizer: torch.optim.Optimizer) -> None:
    """Refuse options that the optimiser would not heed.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    kind = type(optimizer)
    known = inspect.signature(kind).parameters.values()
    heeds = cfg.weight_decay == 0 or cfg.get("weight_decay_coupling") is not None
    if not heeds and not any(p.name == "weight_decay" or p.kind is p.VAR_KEYWORD for p in known):
        raise ConfigError(f"weight_decay must be 0 with {kind.__name__}, which has none, found {cfg.weight_decay!r}")
    scales_itself = getattr(optimizer, "_step_supports_amp_scaling", False)
    clips, shares = cfg.trainer.get("gradient_clip_val") is not None, is_shared(optimizer)
    if cfg.trainer.precision == "16-mixed" and (clips or shares) and scales_itself:
        cause = "trainer.gradient_clip_val is set" if clips else "weight_decay_coupling is not the optimizer's own"
        rule = f"false where {cause} and trainer.precision is '16-mixed'"
        raise ConfigError(f"optimizer.fused must be {rule}, found {cfg.optimizer.get('fused')!r}")


def _check_shared(cfg: DictConfig, network: nn.Module) -> None:
    """Refuse what would give other numbers on several devices than on one.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    number = processes.wanted(cfg.trainer)
    where = f"where {number} devices share a run"
    if cfg.batch_size is not None and cfg.batch_size < number:
        raise ConfigError(f"batch_size must be at least {number} {where}, found {cfg.batch_size}")
    normalizes = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    synchronized = cfg.trainer.get("sync_batchnorm", False)
    if normalizes and not synchronized:
        reason = "each would normalise by its own part of a batch"
        raise ConfigError(f"trainer.sync_batchnorm must be true for BN {where} ({reason}), found {synchronized!r}")
    if normalizes and cfg.trainer.accelerator == "cpu":
        raise ConfigError(f"trainer.accelerator must be gpu for BN {where}: PyTorch synchronises BN on GPUs alone")
    for name in ("margins", "snapshot_samples"):
        if cfg.measure[name]:
            raise ConfigError(f"measure.{name} must be null {where}, found {cfg.measure[name]!r}")


def measured_layers(cfg: DictConfig) -> Any:
    """The field ``measure.layers``: a word or a list of names."""
    layers = cfg.measure.layers
    return OmegaConf.to_container(layers) if OmegaConf.is_config(layers) else layers


def measured(
    cfg: DictConfig, network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], loader: Iterable[Any], groups: Groups
) -> dict[str, dict[str, float]]:
    """Measures of a split as the config asks for them, by layer and name, where no trainer is at work."""
    return measure_split(
        network,
        loader,
        measured_layers(cfg),
        loss=loss,
        weight_decay=cfg.weight_decay,
        delta=cfg.measure.delta,
        self_pairs=cfg.measure.self_pairs,
        groups=groups,
    )


def measure_names(cfg: DictConfig) -> list[str]:
    """The names under which the result of a run has its final measures, found by measuring a batch of it untrained.

    Args:
        cfg: The run's config.

    Raises:
        ConfigError: As of :func:`prepare`.
    """
    data, classifier = prepare(cfg)
    ood = data.ood_dataloader()
    groups = Groups(measured_groups(cfg), None if ood is None else list(islice(ood, 1)))
    rows: list[dict[str, Any]] = []
    for split, loader in data.measure_dataloaders(cfg.measure.batch_size).items():
        found = measured(cfg, classifier.network, classifier.loss, list(islice(loader, 1)), groups)
        rows += rows_of(0, split, found, classifier.nc0_at)
    return list(final_measures(rows))


def measured_groups(cfg: DictConfig) -> list[str]:
    """The field ``measure.groups``, none where it is null."""
    return list(cfg.measure.groups or ())


def kept_every(cfg: DictConfig) -> int | None:
    """The field ``checkpoint.keep_every_n_epochs``; null in a config that was written before there was one."""
    every_n_epochs: int | None = OmegaConf.select(cfg, "checkpoint.keep_every_n_epochs")
    return every_n_epochs


def _optimizer(cfg: DictConfig, groups: list[dict[str, Any]]) -> Any:
    return build(cfg, "optimizer", params=groups)


def _scheduler(cfg: DictConfig, optimizer: torch.optim.Optimizer) -> Any:
    return build(cfg, "scheduler", optimizer=optimizer, epochs=cfg.epochs)


def history_of(cfg: DictConfig, folder: RunFolder) -> History | None:
    """The table of a run; None if it keeps none. A run that goes on with another logger keeps the table that it has."""
    path = folder.path / HISTORY
    columns = columns_with(measured_groups(cfg))
    return History(path, columns, owned=True) if cfg.logger.name != "none" or path.exists() else None
