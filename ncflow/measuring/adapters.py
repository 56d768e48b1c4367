"""What a batch and an output of anybody's model are: the inputs, the labels, the logits."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ncflow.checks import ArgumentError, error_line

_LABELS = ("labels", "label", "targets", "target", "y")
# What the losses of PyTorch, and the data sets of tokens and of pixels, leave out.
_IGNORED = -100


class Call(NamedTuple):
    """How to call a model, and the labels of the samples.

    Attributes:
        args: For its ``forward``.
        kwargs: For its ``forward``.
        labels: (B,), or (B, ...) of tokens or pixels.
        doubt: What to say if it fails, as the whole batch is then not what ``forward`` takes; "" if that is known.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    labels: Tensor
    doubt: str = ""

    def of(self, model: nn.Module) -> Any:
        """What the model returns.

        Raises:
            ArgumentError: If it does not take the whole batch.
        """
        try:
            return model(*self.args, **self.kwargs)
        except Exception as error:  # whatever a model of others may raise
            if not self.doubt:
                raise
            raise ArgumentError(f"{self.doubt} ({error_line(error)})") from error


@dataclass(frozen=True)
class Adapters:
    """How to read batches and outputs. Without any, the usual shapes are understood, and others refused.

    Attributes:
        batch: From a batch to (inputs, labels), labels being integers (B,), or of each token or pixel (B, ...). Inputs
            are one tensor, a tuple in the order of ``forward``'s arguments, or a dict by their names. None understands
            a pair (inputs, labels), and a dict (of Hugging Face, say) with one entry ``labels``, ``label``,
            ``targets``, ``target`` or ``y``.
        output: From what the model returns to logits (B, C). None understands a tensor, what has an entry ``logits``,
            and a tuple or dict of which one entry is the classifier's output.
        ignore_index: Label of samples to leave out; None is -100 where tokens or pixels have labels, else none.
    """

    batch: Callable[[Any], tuple[Any, Tensor]] | None = None
    output: Callable[[Any], Any] | None = None
    ignore_index: int | None = None

    def read(self, model: nn.Module, batch: Any) -> Call:
        """How to call a model on a batch, and the labels.

        Raises:
            ArgumentError: If it is not known which part of the batch is what.
        """
        if self.batch is not None:
            inputs, labels = _pair(self.batch(batch), "batch must return (inputs, labels)")
            return _call(model, inputs, inputs, labels)
        if isinstance(batch, Mapping):
            names = [name for name in _LABELS if name in batch]
            if len(names) != 1:
                raise ArgumentError(
                    f"batch must be given, a function from a batch to (inputs, labels): of its entries "
                    f"{', '.join(map(str, batch))} it is not known which one the labels are"
                )
            inputs = {name: value for name, value in batch.items() if name != names[0]}
            return _call(model, inputs, batch, batch[names[0]])
        if isinstance(batch, tuple | list) and len(batch) > 2:
            raise ArgumentError(
                f"batch must be given, a function from a batch to (inputs, labels): of the {len(batch)} parts of a "
                "batch it is not known which ones they are; batch=lambda b: (b[0], b[1]) takes the first two"
            )
        inputs, labels = _pair(batch, "loader must give (inputs, labels), or batch be a function to them")
        return _call(model, inputs, inputs, labels)

    def logits(self, output: Any, of_head: Tensor | None) -> Tensor:
        """The logits in what a model returned.

        Args:
            output: What it returned.
            of_head: What its classifier returned on the way.

        Raises:
            ArgumentError: If it is not known what they are.
        """
        if self.output is not None:
            output = self.output(output)
        if isinstance(output, Tensor):
            return output
        parts = dict(_parts(output))
        if isinstance(parts.get("logits"), Tensor):
            return parts["logits"]
        tensors = [part for part in parts.values() if isinstance(part, Tensor)]
        for part in tensors:
            if of_head is not None and same(part, of_head):
                return part
        raise ArgumentError(
            "output must be given, a function from what the model returns to its logits: found "
            f"{type(output).__name__} of which no part is the classifier's output"
        )

    def kept(self, labels: Tensor) -> Tensor | None:
        """Which of the labels (N,) or (B, ...) count, as a mask of their shape; None for all."""
        ignored = _IGNORED if self.ignore_index is None and labels.ndim > 1 else self.ignore_index
        return None if ignored is None else labels != ignored


USUAL = Adapters()


def next_token(batch: Any) -> tuple[Any, Tensor]:
    """Inputs and labels of a batch of tokens for a language model, the label of a token being the next one: ``batch=``.

    The last token has none, and neither has one whose next is padding: their label is -100, which is ignored.

    Args:
        batch: Tokens (B, T), alone or as the one part of a tuple; or a dict with ``input_ids``, which is the input with
            what is beside it: an ``attention_mask`` is 0 where there is padding, and ``labels`` are the tokens, -100
            where they should not be predicted.

    Raises:
        ArgumentError: If it is none of these.
    """
    single = isinstance(batch, tuple | list) and len(batch) == 1
    inputs = batch[0] if single else batch
    tokens, known, mask = inputs, None, None
    if isinstance(inputs, Mapping):
        tokens, known, mask = (inputs.get(name) for name in ("input_ids", "labels", "attention_mask"))
        inputs = {name: value for name, value in inputs.items() if name != "labels"}
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.is_floating_point():
        shape = f" of shape {tuple(tokens.shape)} in {tokens.dtype}" if isinstance(tokens, Tensor) else ""
        raise ArgumentError(
            "batch must be integer tokens (B, T), or a dict with input_ids, where labels are the next token, found "
            f"{type(batch).__name__}{shape}"
        )
    labels = torch.full_like(tokens, _IGNORED, dtype=torch.long)
    labels[:, :-1] = (tokens if known is None else known)[:, 1:]
    if mask is not None:
        labels[:, :-1][mask[:, 1:] == 0] = _IGNORED
    return inputs, labels


def moved(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """Tensors, also in tuples, lists and dicts, on a device and, if they are floating, in a type; None leaves that.

    What is there already is given back as the object that it is.
    """
    if isinstance(value, Tensor):
        return value.to(device, dtype if value.is_floating_point() else None)
    if isinstance(value, Mapping):
        there = {name: moved(part, device, dtype) for name, part in value.items()}
        return value if all(there[name] is part for name, part in value.items()) else there
    if isinstance(value, tuple | list):
        parts = [moved(part, device, dtype) for part in value]
        return value if all(one is other for one, other in zip(parts, value, strict=True)) else parts
    return value


def same(one: Tensor, other: Tensor) -> bool:
    """Equal values, NaN being equal to NaN: a diverged model is still measured."""
    if one is other:
        return True
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())


def _pair(found: Any, rule: str) -> tuple[Any, Any]:
    if not isinstance(found, tuple | list) or len(found) != 2:
        size = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        raise ArgumentError(f"{rule}, found {type(found).__name__}{size}")
    return found[0], found[1]


def _parts(output: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(output, Mapping):
        yield from output.items()
    elif is_dataclass(output):
        yield from ((field.name, getattr(output, field.name)) for field in fields(output))
    elif isinstance(output, tuple | list):
        names = getattr(output, "_fields", range(len(output)))
        yield from zip(names, output, strict=True)
    elif hasattr(output, "logits"):
        yield "logits", output.logits


def _call(model: nn.Module, inputs: Any, whole: Any, labels: Any) -> Call:
    """By name, one after the other, or as the one thing that they are: as ``forward`` takes the inputs of a batch."""
    if not isinstance(labels, Tensor):
        raise ArgumentError(f"labels must be a tensor, found {type(labels).__name__}; batch= may make one of it")
    if not isinstance(inputs, Mapping | tuple | list):
        return Call((inputs,), {}, labels)
    names = ", ".join(inspect.signature(model.forward).parameters)
    takes = f"batch must be given, a function from a batch to (inputs, labels): forward({names})"
    if isinstance(inputs, Mapping):
        if _takes(model, **inputs):
            return Call((), inputs, labels)
        if len(inputs) == 1:
            return Call(tuple(inputs.values()), {}, labels)
        doubt = f"{takes} does not take {', '.join(map(str, inputs))}"
        if _takes(model, whole):
            return Call((whole,), {}, labels, doubt)
        raise ArgumentError(doubt)
    apart, together = _takes(model, *inputs), _takes(model, inputs)
    if apart and together:
        raise ArgumentError(
            f"{takes} takes the {len(inputs)} inputs both as one argument and as several; a dict of its arguments by "
            "name says which"
        )
    if not apart and not together:
        raise ArgumentError(f"{takes} does not take {len(inputs)} inputs")
    return Call(tuple(inputs) if apart else (inputs,), {}, labels)


def _takes(model: nn.Module, *args: Any, **kwargs: Any) -> bool:
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError:
        return False
    return True
