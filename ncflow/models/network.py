"""What the rest of ncflow needs to know of a network, ours or anybody's."""

from torch import nn

from ncflow.checks import ArgumentError


class Network(nn.Module):
    """A network whose last step is a linear classifier.

    Attributes:
        classifier: The last linear layer; its input is the last-layer feature h (d,), its weight W (C, d).
        last_norm: The BN whose output the classifier reads, None if there is none.
        layer_names: Names of the hidden layers whose outputs can be measured, from the first to the last.
        is_chain: Whether its modules are applied one after the other, each once, in the order of ``modules()``.
    """

    is_chain: bool = False
    classifier: nn.Linear
    last_norm: nn.Module | None
    layer_names: list[str]


def find_classifier(module: nn.Module, name: str | None = None) -> tuple[str, nn.Linear]:
    """Name and module of the classifier of any network.

    Args:
        module: The network, or a LightningModule that holds one.
        name: Name of the layer as in ``named_modules()``; None takes the last ``nn.Linear`` in that order.

    Raises:
        ArgumentError: If there is no such layer, or it is no ``nn.Linear``.
    """
    linears = {key: layer for key, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    if not linears:
        raise ArgumentError(f"classifier must be an nn.Linear, found none in {type(module).__name__}")
    chosen = list(linears)[-1] if name is None else name
    if chosen not in linears:
        raise ArgumentError(f"classifier must be one of the linear layers {', '.join(linears)}, found {chosen!r}")
    return chosen, linears[chosen]
