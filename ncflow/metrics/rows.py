"""Rows of features (..., B, d), of one run or of many with a leading axis: cut, cast, and summed by class."""

from collections.abc import Iterator

import torch
from torch import Tensor

# Classes up to which products with the matrix of membership are faster.
_FEW_CLASSES = 16
# Elements of a chunk: in float64 it stays in a CPU's cache; a GPU wants few, large kernels.
_CHUNK_ELEMENTS = {"cpu": 2**18}
_GPU_CHUNK_ELEMENTS = 2**24


def chunks(features: Tensor, *beside: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut features (..., B, d), and tensors (..., B) beside them, into rows that are worked on at a time."""
    elements = _CHUNK_ELEMENTS.get(features.device.type, _GPU_CHUNK_ELEMENTS)
    count = features.shape[-2]
    pieces = max(1, round(features.numel() / elements))
    rows = max(256, -(-count // pieces))  # of one size: a short last chunk costs nearly as much as a long one
    return zip(features.split(rows, -2), *(tensor.split(rows, -1) for tensor in beside), strict=True)


def add_product(sums: Tensor, left: Tensor, right: Tensor, sign: int = 1) -> None:
    """Add a product of matrices (n, m) and (m, d), or of as many as there are runs, in place."""
    add = sums.addmm_ if sums.ndim == 2 else sums.baddbmm_
    add(left, right, alpha=sign)


def rows_of(table: Tensor, index: Tensor) -> Tensor:
    """Rows (..., B, m) of tables (..., C, m) at an index (..., B)."""
    if index.ndim == 1:
        return table.index_select(0, index)
    return table.gather(-2, index[..., None].expand(*index.shape, table.shape[-1]))


def where(mask: Tensor, rows: Tensor) -> Tensor:
    """The rows (K, ...) of a mask (K,); the very tensor where it has all, as many rows take much memory."""
    return rows if bool(mask.all()) else rows[mask]


class Membership:
    """Which class each row of a chunk belongs to: adds table rows to feature rows, and sums feature rows by class.

    For a few classes on a CPU, and for many runs, both are products with the 0/1 matrix of membership: on a CPU they
    cost a third of gathering.
    """

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self.labels = labels
        self.matrix = None
        if labels.ndim > 1 or (labels.device.type == "cpu" and num_classes <= _FEW_CLASSES):
            identity = torch.eye(num_classes, dtype=torch.float64, device=labels.device)
            self.matrix = identity.index_select(0, labels.flatten()).view(*labels.shape, num_classes)

    def add_to(self, rows: Tensor, table: Tensor, sign: int) -> None:
        """Add ``sign`` times its class's row of ``table`` (..., C, d) to each of ``rows`` (..., B, d), in place."""
        if self.matrix is not None:
            add_product(rows, self.matrix, table, sign)
        else:
            rows.add_(table.index_select(0, self.labels), alpha=sign)

    def sum_into(self, sums: Tensor, rows: Tensor, weights: Tensor | None = None) -> None:
        """Add each of ``rows`` (..., B, d), times its weight (..., B, 1), to the row of ``sums`` of its class."""
        if self.matrix is not None:
            add_product(sums, (self.matrix if weights is None else self.matrix * weights).mT, rows)
        else:
            sums.index_add_(0, self.labels, rows if weights is None else rows.mul_(weights))

    def sum_directions_into(
        self, sums: Tensor, counts: Tensor, rows: Tensor, norms: Tensor, tolerance: Tensor | float = 0.0
    ) -> None:
        """Add ``rows`` of these norms (..., B), scaled to norm 1, to ``sums``, and count them by class in ``counts``.

        Those that are no longer than ``tolerance`` have no direction and are left out. The rows may be scaled in place.
        """
        # Not `norms > tolerance`: a row that is not finite must not pass for one of norm 0.
        without = norms <= tolerance
        self.sum_into(sums, rows, (1 / norms.masked_fill(without, torch.inf))[..., None])
        counts.scatter_add_(-1, self.labels, (~without).double())


def cast_rows(rows: Tensor, buffer: Tensor | None) -> Tensor:
    """The rows in float64, in the memory of an earlier chunk: fresh memory would cost as much as the cast."""
    if buffer is None or buffer.shape[-2] < rows.shape[-2]:
        return rows.double() if rows.dtype != torch.float64 else rows.clone()
    return buffer[..., : rows.shape[-2], :].copy_(rows)
