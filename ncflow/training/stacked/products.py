"""Matrix products of all cells at once that have the very bits of each cell's own product.

A batched product is free to sum in another order than the product of one cell, and on some CPUs it does: where the two
matrices change places (the gradient of a weight is G^T X, or (X^T G)^T), for small shapes, and for matrices that start
elsewhere than on a cache line. Training amplifies the last bit within some epochs. So on a CPU each shape is tried:
where the batched product has other bits than the single ones, the cells are multiplied one by one.
"""

import functools
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes: where PyTorch places what it allocates on a CPU, so where a run alone has its matrices
_TRIED = 4096  # numbers that must agree: one may do so by chance

_Place = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shape, strides, and bytes beyond a boundary: with the type and the threads all that a product's order depends on."""


class _Linear(torch.autograd.Function):
    """Of inputs (K, B, d_in), weights (K, d_out, d_in) and biases (K, d_out) or None, (K, B, d_out).

    The three products are those of ``F.linear`` and its gradient, each with the matrices in the same places.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _product(inputs, weight.transpose(1, 2), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        gradient = gradients[0]
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        return (
            _product(gradient, weight) if of_inputs else None,
            _product(gradient.transpose(1, 2), inputs) if of_weight else None,
            gradient.sum(1) if of_bias else None,
        )


def is_whole(cell: Tensor, vectors: int = 2) -> bool:
    """Whether what works number by number gives a cell the bits beside others that it gives it alone.

    On a CPU it takes some vectors at a time and may round otherwise in the rest at the end, fusing a product and a sum
    or not: so no cell may have such a rest.

    Args:
        cell: The numbers of one cell.
        vectors: How many it takes at a time; BN takes one.
    """
    return not cell.is_cpu or cell.nbytes % (vectors * ALIGNMENT) == 0


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` of each cell, (K, B, d_out), on a CPU to the last bit.

    Args:
        inputs: (K, B, d_in).
        weight: (K, d_out, d_in).
        bias: (K, d_out) or None.
    """
    if inputs.is_cpu and not torch.is_autocast_enabled("cpu"):
        return _Linear.apply(inputs, weight, bias)  # type: ignore[no-untyped-call]
    return _batched(inputs, weight.transpose(1, 2), bias)


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    places = [None if t is None else _place(t) for t in (left, right, bias)]
    same = _has_the_same_bits(*places, left.dtype, torch.get_num_threads())
    return (_batched if same else _one_by_one)(left, right, bias)


def _batched(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    return torch.bmm(left, right) if bias is None else torch.baddbmm(bias[:, None], left, right)


def _one_by_one(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    pairs = [(_as_alone(a), _as_alone(b)) for a, b in zip(left, right, strict=True)]
    if bias is None:
        return torch.stack([torch.mm(a, b) for a, b in pairs])
    return torch.stack([torch.addmm(own, a, b) for own, (a, b) in zip(bias, pairs, strict=True)])


def _as_alone(matrix: Tensor) -> Tensor:
    """A matrix as a run alone has it: rows, or columns, without gaps, and on a boundary."""
    rows, columns = matrix.shape
    if matrix.data_ptr() % ALIGNMENT == 0 and matrix.stride() in ((columns, 1), (1, rows)):
        return matrix
    if matrix.stride(0) < matrix.stride(1):
        return matrix.t().clone(memory_format=torch.contiguous_format).t()
    return matrix.clone(memory_format=torch.contiguous_format)


def _place(tensor: Tensor) -> _Place:
    return tensor.shape, tensor.stride(), tensor.data_ptr() % ALIGNMENT


@functools.cache
def _has_the_same_bits(left: _Place, right: _Place, bias: _Place | None, dtype: torch.dtype, threads: int) -> bool:
    """Whether cells multiplied at once get what they get one by one, found on random numbers."""
    generator = torch.Generator().manual_seed(0)
    numbers = left[0][0] * left[0][1] * right[0][2]
    for _ in range(-(-_TRIED // max(1, numbers))):
        a, b = _random(left, dtype, generator), _random(right, dtype, generator)
        c = None if bias is None else _random(bias, dtype, generator)
        if not torch.equal(_batched(a, b, c), _one_by_one(a, b, c)):
            return False
    return True


def _random(place: _Place, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    shape, strides, beyond = place
    first = beyond // dtype.itemsize
    length = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return torch.randn(first + length, dtype=dtype, generator=generator)[first:].as_strided(shape, strides, first)
