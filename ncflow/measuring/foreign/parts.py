"""Which layers of somebody's network there are to measure."""

from collections.abc import Sequence

from torch import nn

from ncflow.checks import ArgumentError, require
from ncflow.measuring.features import LAST
from ncflow.measuring.foreign.scripted import WAY_OUT, Scripted
from ncflow.measuring.heads import find_head


def layers_of(network: nn.Module, layers: str | Sequence[str], classifier: str | None) -> str | Sequence[str]:
    """The layers to measure; of a network that lists none, ``all`` are its parts with weights before the classifier.

    A part that holds all the others, a backbone say, is not meant, but its parts are.

    Args:
        network: The network.
        layers: As for :func:`ncflow.measuring.features.resolve_layers`.
        classifier: As for :func:`ncflow.measuring.heads.find_head`.

    Raises:
        ArgumentError: If they cannot be measured of a TorchScript file, or there are no parts.
    """
    if isinstance(network, Scripted) and layers != LAST:
        raise ArgumentError(f"layers must be 'last' of a TorchScript file, found {layers!r}; {WAY_OUT}")
    if layers != "all" or getattr(network, "layer_names", None):
        return layers
    head, _ = find_head(network, classifier)
    parts = _parts(network, "", head)
    while len(parts) == 1:
        ((name, part),) = parts.items()
        inside = _parts(part, f"{name}.", head)
        if not inside:
            break
        parts = inside
    require(
        bool(parts), "layers", "'last' or names of layers, as this model shows no parts before its classifier", "all"
    )
    return [*parts, LAST]


def _parts(module: nn.Module, place: str, head: str) -> dict[str, nn.Module]:
    """What has weights directly below a module and does not hold the classifier, by name; of a list its items."""
    found: dict[str, nn.Module] = {}
    for name, part in module.named_children():
        whole = f"{place}{name}"
        if f"{head}.".startswith(f"{whole}.") or not any(True for _ in part.parameters()):
            continue
        found |= _parts(part, f"{whole}.", head) if isinstance(part, nn.ModuleList | nn.ModuleDict) else {whole: part}
    return found
