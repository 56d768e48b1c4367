"""The nearest of many class means, exactly, at little more than the cost of products in float32."""

import torch
from torch import Tensor

from ncflow.metrics.class_means import Geometry

# Scores at a time: on a CPU they stay in its cache; a GPU wants few, large kernels.
_SCORES = {"cpu": 2**22}
_GPU_SCORES = 2**27
# Twice the relative error of a number in float32, and in bfloat16 or TF32, to which a user may have products shortened.
_UNIT, _SHORT_UNIT = 2.0**-23, 2.0**-7


class NearestMean:
    """Finds the class mean that is nearest to a feature.

    With z = h - mu_G and m_k = mu_k - mu_G, the nearest mean has the smallest |m_k|^2/2 - z.m_k. These scores are made
    in float32, where their error is at most (d + 4) 2^-23 (|z| max|m| + max|m|^2/2) (Higham 2002, section 3.1, in any
    order of summation). A sample whose best score is ahead by more than twice that is settled; the few others are
    compared again in float64, by r = h - mu_c and |mu_c - mu_k|^2 - 2 r.m_k, in which nothing large cancels.

    Args:
        means: Class means.
    """

    def __init__(self, means: Geometry) -> None:
        self._means = means
        K, dim = means.centred.shape
        # In units of about the longest, a power of 2: squares of 1e-30 or of 1e30 are 0 or infinite in float32.
        longest = torch.linalg.vector_norm(means.centred, dim=1).amax()
        self._unit = torch.ldexp(torch.ones_like(longest), -torch.frexp(longest).exponent)
        self._longest = longest * self._unit
        self._centred = longest.new_empty(dim, K, dtype=torch.float32)
        self._half_squares = longest.new_empty(K, dtype=torch.float32)
        for start in range(0, K, 4096):
            rows = means.centred[start : start + 4096] * self._unit
            self._centred[:, start : start + 4096] = rows.T
            self._half_squares[start : start + 4096] = rows.square().sum(1) / 2
        self._rows = max(1, _SCORES.get(longest.device.type, _GPU_SCORES) // K)
        self._error = (dim + 4) * _UNIT + (2 * _SHORT_UNIT if self._shortens() else 0)

    def __call__(self, residuals: Tensor, own: Tensor) -> Tensor:
        """Row of M of the nearest class mean, (B,); of equally near ones the first.

        Args:
            residuals: h - mu_c, (B, d), float64.
            own: Row of M of the own class c, (B,).
        """
        parts = zip(residuals.split(self._rows), own.split(self._rows), strict=True)
        return torch.cat([self._nearest(rows, places) for rows, places in parts])

    def _nearest(self, residuals: Tensor, own: Tensor) -> Tensor:
        z = (residuals + self._means.centred.index_select(0, own)) * self._unit
        with torch.autocast(z.device.type, enabled=False):
            scores = torch.addmm(self._half_squares, z.float(), self._centred, alpha=-1)
        best, nearest = scores.min(1)
        second = scores.scatter_(1, nearest[:, None], torch.inf).amin(1)
        length = torch.linalg.vector_norm(z, dim=1)
        error = self._error * (length + self._longest / 2) * self._longest
        # As it is written, what is not finite does not pass for settled; nor does what may overflow on the way.
        settled = (second.double() - best.double() > 2 * error) & (length < 2.0**60)
        for index in (~settled).nonzero().flatten().split(max(1, self._rows // 4)):  # several tables, in float64
            gaps = self._means.distances(own[index]).addmm_(residuals[index], self._means.centred.T, alpha=-2)
            nearest[index] = gaps.argmin(1)
        return nearest

    def _shortens(self) -> bool:
        """Whether products like those of the scores are not of float32 numbers, but of shortened ones: tried."""
        longest = self._centred.abs().amax(1).argmax()
        probe = self._centred.new_zeros(self._rows, len(self._centred))
        probe[:, longest] = 1 + 2.0**-20
        with torch.autocast(probe.device.type, enabled=False):
            found = probe @ self._centred
        return not torch.equal(found, probe[:, longest, None] * self._centred[longest])
