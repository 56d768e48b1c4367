"""What a run cannot be, told before it is trained: each check names the option, its rule and the value found."""

import copy
import inspect
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from ncflow.checks import error_line
from ncflow.config.build import BUILD_ERRORS
from ncflow.config.schema import ConfigError
from ncflow.data.base import InMemoryData
from ncflow.data.batches import batch_bounds
from ncflow.models import Classifier
from ncflow.models.decay import is_shared
from ncflow.runtime import processes


def check_loss(loss: Any, num_classes: int) -> None:
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


def check_smallest_batch(cfg: DictConfig, data: InMemoryData, network: nn.Module) -> None:
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


def check_decay(cfg: DictConfig, classifier: Classifier) -> None:
    """Refuse a weight decay that is of nothing, as that of a classifier that is not trained.

    Raises:
        ConfigError: Naming the option, the rule and the value found.
    """
    groups = classifier.parameter_groups()
    if cfg.weight_decay > 0 and groups and not any(group["weight_decay"] for group in groups):
        rule = "one in which something is trained where weight_decay is not 0"
        raise ConfigError(f"weight_decay_scope must be {rule}, found {cfg.weight_decay_scope!r}")


def check_optimizer(cfg: DictConfig, optimizer: torch.optim.Optimizer) -> None:
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


def check_shared(cfg: DictConfig, network: nn.Module) -> None:
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
