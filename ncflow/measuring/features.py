"""Read features out of a model: every sample once, the model frozen, nothing of the training disturbed."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ncflow.checks import ArgumentError
from ncflow.models.network import find_classifier

LAST = "last"


@dataclass(frozen=True)
class FeatureBatch:
    """Features (B, d) of each layer, labels (B,) and logits (B, C) of one batch."""

    features: dict[str, Tensor]
    labels: Tensor
    logits: Tensor


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; each module's own mode and the random states are put back at the end.

    BN uses its running statistics and dropout is off. A loader that draws random numbers (PyTorch's draws one a
    pass) does not change what training draws next.
    """
    modes = [(module, module.training) for module in model.modules()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices, key=str)), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode


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
    model: nn.Module, loader: Iterable[Any], layers: Sequence[str] = (LAST,), classifier: str | None = None
) -> Iterator[FeatureBatch]:
    """Run a loader through a frozen model and yield the features of some layers.

    Args:
        model: From inputs to logits.
        loader: Batches (inputs, labels, ...), each sample once.
        layers: Names as :func:`resolve_layers` gives them.
        classifier: Name of the classifier; None takes the last ``nn.Linear`` and makes sure that its output is the
            model's.

    Raises:
        ArgumentError: If a batch is no pair, the classifier found is not the model's last step, or a layer's output
            is no tensor.
    """
    _, head = find_classifier(model, classifier)
    first = next(model.parameters())
    seen: dict[str, Tensor] = {}

    def keep(name: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise ArgumentError(f"layers must give a tensor, found {type(value).__name__} from {name!r}")
        seen[name] = value.detach().flatten(1)

    def head_hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        keep(LAST, args[0])
        seen["logits"] = output

    modules = dict(model.named_modules())
    handles = [head.register_forward_hook(head_hook)]
    handles += [
        modules[name].register_forward_hook(lambda m, a, out, name=name: keep(name, out))
        for name in layers
        if name != LAST
    ]
    try:
        with frozen(model):
            for batch in loader:
                if not isinstance(batch, tuple | list) or len(batch) < 2:
                    raise ArgumentError(f"loader must give (inputs, labels), found {type(batch).__name__}")
                inputs, labels = batch[0].to(first.device), batch[1].to(first.device)
                if inputs.is_floating_point():  # as Lightning does in training with precision 64-true and the like
                    inputs = inputs.to(first.dtype)
                seen.clear()
                logits = model(inputs)
                if classifier is None:
                    _check_is_last_step(seen.get("logits"), logits)
                yield FeatureBatch({name: seen[name] for name in layers}, labels, logits)
    finally:
        for handle in handles:
            handle.remove()


def _check_is_last_step(head_output: Tensor | None, logits: Tensor) -> None:
    if head_output is logits:
        return
    if head_output is None or not _same(head_output, logits):
        raise ArgumentError(
            "classifier must be named: the output of the last nn.Linear is not the output of the model, "
            "so it is not known which layer's input is the feature"
        )


def _same(one: Tensor, other: Tensor) -> bool:
    """Equal values, NaN being equal to NaN: a diverged model is still measured."""
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
