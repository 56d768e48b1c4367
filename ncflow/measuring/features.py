"""Read features out of a model: every sample once, the model frozen, nothing of the training disturbed."""

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ncflow.checks import ArgumentError
from ncflow.measuring.adapters import USUAL, Adapters, Call, moved, same
from ncflow.measuring.heads import find_head, is_convolution

LAST = "last"


@dataclass(frozen=True)
class FeatureBatch:
    """Features (N, d) of each layer, labels (N,) and logits (N, C) of one batch; a token or pixel is a sample."""

    features: dict[str, Tensor]
    labels: Tensor
    logits: Tensor


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; modes, buffers and random states are put back at the end.

    BN uses its running statistics and dropout is off. Each module's flag is set, and no ``eval()`` or ``train()`` of
    its own is called. A buffer that changes in evaluation mode as well, a counter say, has its value again afterwards.
    What :func:`torch.compile` made runs as it was written: compiled code does not see who reads along.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not is_lazy(buffer)
    ]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with ExitStack() as stack:
        stack.enter_context(random_states_kept(sorted(devices, key=str)))
        if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it would take a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.no_grad())
        for module, _ in modes:
            module.training = False
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            for module, name, buffer, value in buffers:
                module._buffers[name] = buffer.copy_(value)


@contextmanager
def random_states_kept(devices: Sequence[torch.device] = ()) -> Iterator[None]:
    """Put the random states of PyTorch (on the CPU and some GPUs), NumPy and Python back at the end.

    A generator that is an object of its own, in a data set say, is not among them.
    """
    of_numpy, of_python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_python)


def resolve_layers(model: nn.Module, layers: str | Sequence[str]) -> list[str]:
    """Names of the layers to measure.

    Args:
        model: The network.
        layers: ``"last"`` (the classifier's input), ``"all"`` (the hidden layers that the network lists in
            ``layer_names``, and ``"last"``), or names as in ``named_modules()``, of which ``"last"`` may be one.

    Raises:
        ArgumentError: For a name that the model does not have, and for ``"all"`` where nothing is listed.
    """
    listed = list(getattr(model, "layer_names", []))
    if isinstance(layers, str) and layers == "all":
        if not listed:
            raise ArgumentError("layers must be 'last' or a list of names: this network lists no hidden layers")
        # The last hidden layer's output is the classifier's input, which "last" already is.
        return [*listed[:-1], LAST]
    names = [layers] if isinstance(layers, str) else list(layers)
    known = {name for name, _ in model.named_modules() if name}
    for name in names:
        if name != LAST and name not in known:
            examples = ", ".join(listed or sorted(known)[:12])
            raise ArgumentError(f"layers must be 'last', 'all' or names of layers ({examples}), found {name!r}")
    if not names or len(set(names)) != len(names):
        raise ArgumentError(f"layers must be different names, at least one, found {names}")
    return names


def extract(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Sequence[str] = (LAST,),
    classifier: str | None = None,
    adapters: Adapters = USUAL,
) -> Iterator[FeatureBatch]:
    """Run a loader through a frozen model and yield the features of some layers.

    Args:
        model: From inputs to logits.
        loader: Batches, each sample once.
        layers: Names as :func:`resolve_layers` gives them.
        classifier: Name of the classifier; None takes the last ``nn.Linear`` and makes sure that its output is the
            model's.
        adapters: How to read a batch and what the model returns.

    Raises:
        ArgumentError: If a batch or an output cannot be read, labels are no classes, the classifier is not what makes
            the logits, or a layer's output is no tensor.
    """
    name, head = find_head(model, classifier)
    device, dtype = _place(model)
    seen: dict[str, Any] = {}
    modules = dict(model.named_modules())

    def head_hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        seen[LAST] = args[0] if args else next(iter(kwargs.values()))
        seen["logits"] = output

    def hook(layer: str) -> Any:
        return lambda module, args, output: seen.update({layer: output})

    with ExitStack() as stack, frozen(model):
        stack.callback(head.register_forward_hook(head_hook, with_kwargs=True).remove)
        for layer in layers:
            if layer != LAST:
                stack.callback(modules[layer].register_forward_hook(hook(layer)).remove)
        checked = False
        for batch in loader:
            call = Call(*(moved(part, device, dtype) for part in adapters.read(model, batch)))
            seen.clear()
            logits = adapters.logits(call.of(model), seen.get("logits"))
            if LAST not in seen:
                raise ArgumentError(f"classifier must be a layer that forward calls, {name!r} is not called")
            if not checked:
                _check_makes_the_logits(model, (name, head), call, adapters, logits, seen["logits"], classifier is None)
                checked = True
            yield _batch(seen, layers, call.labels, logits, adapters, is_convolution(head))


def _place(model: nn.Module) -> tuple[torch.device, torch.dtype | None]:
    """Where a model's inputs are, and their type as Lightning has it with precision 64-true and the like.

    A model of several types does with them what it likes.
    """
    parameters = list(model.parameters())
    types = {parameter.dtype for parameter in parameters if parameter.is_floating_point()}
    return parameters[0].device, types.pop() if len(types) == 1 else None


def _check_makes_the_logits(
    model: nn.Module,
    named: tuple[str, nn.Module],
    call: Call,
    adapters: Adapters,
    logits: Tensor,
    of_head: Any,
    is_found: bool,
) -> None:
    """Refuse a classifier beside which something else makes the logits: what it reads is then not the feature."""
    name, head = named
    if isinstance(of_head, Tensor) and (same(of_head, logits) or _are_alike(of_head, logits)):
        return
    if is_found:
        raise ArgumentError(
            f"classifier must be named: the output of the last nn.Linear, {name!r}, is not the output of the model, "
            "so it is not known which layer's input is the feature"
        )
    if not isinstance(of_head, Tensor):
        raise ArgumentError(f"classifier must give a tensor, {name!r} gives {type(of_head).__name__}")
    # Softmax or a scale may follow. With the classifier's output blanked, all samples must then look the same.
    handle = head.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    try:
        blank = adapters.logits(call.of(model), torch.zeros_like(of_head))
    finally:
        handle.remove()
    if not same(blank, blank[:1].expand_as(blank)):
        raise ArgumentError(
            f"classifier must be what makes the logits: without {name!r} they still differ from sample to sample, "
            "as something beside it, an adapter say, adds to them; name the module that has both"
        )


def _are_alike(of_head: Tensor, logits: Tensor) -> bool:
    """The same numbers in another shape, such as (N, C, 1, 1) or (N, 1) for (N,)."""
    return of_head.shape[0] == logits.shape[0] and same(of_head.flatten(), logits.flatten())


def _batch(
    seen: dict[str, Any], layers: Sequence[str], labels: Tensor, logits: Tensor, adapters: Adapters, channels: bool
) -> FeatureBatch:
    if logits.ndim == 1:
        logits = logits[:, None]
    if labels.ndim == 2 and labels.shape[1] == 1 and logits.ndim == 2:
        labels = labels[:, 0]  # as the logistic loss of one output has them
    labels = _classes(labels, logits)
    kept = adapters.kept(labels)

    def rows(name: str, value: Any) -> Tensor:
        if not isinstance(value, Tensor):
            raise ArgumentError(f"layers must give a tensor, found {type(value).__name__} from {name!r}")
        flat = _rows(name, value.detach(), labels, channels)
        return flat if kept is None else flat[kept.flatten()]

    features = {name: rows(name, seen[name]) for name in layers if name in seen}
    if len(features) < len(layers):
        missing = next(name for name in layers if name not in seen)
        raise ArgumentError(f"layers must be ones that forward calls, {missing!r} is not called")
    flat = labels.flatten()
    return FeatureBatch(features, flat if kept is None else flat[kept.flatten()], rows("logits", logits))


def _rows(name: str, value: Tensor, labels: Tensor, channels: bool) -> Tensor:
    """A row (N, d) for each label; ``channels``: dimensions of space, if labels have them, come after the channels."""
    if labels.ndim > 1 and channels and value.ndim == labels.ndim + 1:
        value = value.movedim(1, -1)
    if labels.ndim == 1 and channels and name == LAST and value[0].numel() > value.shape[1]:
        raise ArgumentError(
            f"classifier must read one feature a sample, found a map of {tuple(value.shape[2:])}: pool before the 1x1 "
            "convolution rather than after it, which gives the same logits"
        )
    if value.shape[: labels.ndim] != labels.shape:
        raise ArgumentError(
            f"labels must be one for each sample, token or pixel of {name!r}, {tuple(value.shape)}, found labels "
            f"{tuple(labels.shape)}"
        )
    return value.flatten(0, labels.ndim - 1).flatten(1)


def _classes(labels: Tensor, logits: Tensor) -> Tensor:
    """Labels as integers; the 0. and 1. of a logistic loss are."""
    if labels.shape == logits.shape and logits.ndim > 1 and logits.shape[1] > 1:
        raise ArgumentError(
            f"labels must be one class a sample, found {tuple(labels.shape)}, a number a class: of soft or one-hot "
            "labels, batch=lambda b: (b[0], b[1].argmax(1)) takes the largest"
        )
    if not labels.is_floating_point():
        return labels.long()
    whole = labels.long()
    if logits.shape[-1] != 1 or not torch.equal(whole.to(labels.dtype), labels):
        raise ArgumentError(
            f"labels must be integers, found {labels.dtype}: soft labels belong to no class; batch= may give integers"
        )
    return whole
