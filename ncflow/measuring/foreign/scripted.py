"""A TorchScript module without its Python code: its classifier's input is read where PyTorch multiplies by W."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ncflow.checks import ArgumentError, require
from ncflow.measuring.adapters import same

WAY_OUT = "give --constructor module:function, which builds the model in Python: its weights are taken out of the file"


class Scripted(nn.Module):
    """A TorchScript module as a network whose classifier can be read. Its other layers, and their weights, cannot.

    TorchScript calls no hooks: its interpreter does not see Python. But PyTorch shows each operation to a dispatch
    mode, and so h is seen in the one that multiplies by W. From it W h + b is made once more, and must be what the
    script returns.

    Args:
        script: The module; it is put into evaluation mode.
        classifier: Name of the classifier in it; None takes its last linear layer.

    Attributes:
        classifier: The classifier, for hooks.

    Raises:
        ArgumentError: If there is no such layer.
    """

    def __init__(self, script: Any, classifier: str | None = None) -> None:
        super().__init__()
        own = dict(script.named_parameters())
        if not own:
            raise ArgumentError(
                "the TorchScript file must have its weights as parameters, which a frozen one has not: give the one of "
                "which it was made"
            )
        modules = [name for name, part in script.named_modules() if getattr(part, "original_name", "") == "Linear"]
        linear = [name for name in modules if f"{name}.weight" in own]
        if not linear:
            raise ArgumentError(f"the TorchScript file must have a linear layer to be read, found none; {WAY_OUT}")
        known = classifier is None or classifier in linear
        require(known, "classifier", f"one of {', '.join(linear[-12:])}", classifier)
        # In a tuple, so that its layers, on which hooks fail, are no layers of ours.
        self._script, self._name = (script.eval(),), classifier or linear[-1]
        weight, bias = own[f"{self._name}.weight"], own.get(f"{self._name}.bias")
        self.classifier = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, weight.device, weight.dtype)
        self.classifier.weight.data = weight.data
        if bias is not None:
            self.classifier.bias.data = bias.data

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move the script as well."""
        self._script[0]._apply(fn)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the script returns.

        Raises:
            ArgumentError: If the classifier's input is not seen, it is not what makes the logits, or the script is in
                training mode, as one that was traced so stays.
        """
        script = self._script[0]
        buffers, random = [buffer.clone() for buffer in script.buffers()], torch.get_rng_state()
        with _Products(dict(script.named_parameters())[f"{self._name}.weight"]) as products:
            output = script(*args, **kwargs)
        kept = all(same(one, other) for one, other in zip(buffers, script.buffers(), strict=True))
        if not kept or not torch.equal(random, torch.get_rng_state()):
            raise ArgumentError(
                "the TorchScript file must be in evaluation mode, found one that draws random numbers or changes its "
                "buffers, as one that was traced in training mode: call eval() before tracing it"
            )
        found = products.inputs
        if len(found) != 1 or not isinstance(output, Tensor):
            what = (
                f"{len(found)} of them" if len(found) != 1 else f"an output that is no tensor, {type(output).__name__}"
            )
            raise ArgumentError(
                f"the TorchScript file must multiply by {self._name}'s weights once, found {what}; {WAY_OUT}"
            )
        logits = self.classifier(found[0])
        if not same(logits, output):
            raise ArgumentError(
                f"classifier must be what makes the logits, {self._name!r} of the TorchScript file is not; {WAY_OUT}"
            )
        return logits


class _Products(TorchDispatchMode):
    """Notes what is multiplied by a matrix.

    Attributes:
        inputs: The other factors, (N, d), in order.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shape, self.place = tuple(weight.T.shape), weight.data_ptr()
        self.inputs: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.addmm.default, torch.ops.aten.mm.default):
            left, right = args[-2:]
            if right.data_ptr() == self.place and tuple(right.shape) == self.shape:
                self.inputs.append(left)
        return func(*args, **(kwargs or {}))
