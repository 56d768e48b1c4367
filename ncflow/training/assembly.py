"""From a config to what a run is made of, checked: data, model, logger."""

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
from ncflow.results import HISTORY, History, RunFolder, columns_with, final_measures
from ncflow.runtime import processes
from ncflow.seeding import derive_seed
from ncflow.training.checkpoints import Checkpoints
from ncflow.training.loggers import check_logger
from ncflow.training.nc0_law import nc0_law
from ncflow.training.refusals import check_decay, check_loss, check_optimizer, check_shared, check_smallest_batch
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
    check_loss(loss, data.num_classes)
    check_smallest_batch(cfg, data, network)
    classifier = Classifier(
        network,
        loss,
        partial(_optimizer, cfg),
        partial(_scheduler, cfg),
        cfg.weight_decay,
        cfg.weight_decay_scope,
        cfg.get("weight_decay_coupling"),
    )
    check_decay(cfg, classifier)
    # Now, not in the first epoch, is the time to refuse their options.
    try:
        configured = classifier.configure_optimizers()
        optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
        check_optimizer(cfg, optimizer)
        steps = -(-len(batch_bounds(len(data.train.labels), cfg.batch_size)) // (cfg.trainer.get(_ACCUMULATE) or 1))
        classifier.nc0_at = nc0_law(classifier, optimizer, cfg.epochs, steps, cfg.trainer.precision)
    except ArgumentError as error:
        raise ConfigError(str(error)) from error
    if processes.wanted(cfg.trainer) > 1:
        check_shared(cfg, network)
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
