"""Squared distances between rows, without a tensor of three dimensions."""

from torch import Tensor

# Against |x|^2 + |y|^2: closer than this, the products have lost digits.
_NEAR = 1e-4


def squared_distances(rows: Tensor, others: Tensor) -> Tensor:
    """|x - y|^2 of rows (n, d) and others (m, d), (n, m); pairs so close that products cancel are taken one by one."""
    total = rows.square().sum(1)[:, None] + others.square().sum(1)
    squares = (total - 2 * (rows @ others.T)).clamp_(min=0)
    for pairs in (squares < _NEAR * total).nonzero().split(4096):
        squares[pairs[:, 0], pairs[:, 1]] = (rows[pairs[:, 0]] - others[pairs[:, 1]]).square().sum(1)
    return squares
