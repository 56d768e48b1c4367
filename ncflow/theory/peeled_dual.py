"""The loss of the layer-peeled model for class shares, as a function of the logits, its gradient and its dual.

:mod:`ncflow.theory.given_shares` says what the problem is, and solves it.
"""

from functools import lru_cache
from math import exp, inf, log, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ncflow.theory.simplex import simplex_etf

Form = Literal["free", "centred", "bias"]
Floats = NDArray[np.float64]


@lru_cache(maxsize=64)
def problem_of(shares: tuple[float, ...], form: Form) -> "Problem":
    """The problem of shares of sum 1 and a form; remembered, as its bases are used again."""
    return Problem(shares, form)


class Problem:
    """The loss as a function of X, (C - 1, r), and b, (C - 1,): A = U X V^T + U b s^T.

    Columns of U are orthonormal and sum to 0, as nothing else changes a cross-entropy. Those of V are all axes in the
    form ``free`` and orthonormal and orthogonal to s otherwise. b is 0 but in the form ``bias``.

    Args:
        shares: p, of sum 1.
        form: The form.
    """

    def __init__(self, shares: tuple[float, ...], form: Form) -> None:
        self.shares, self.form, self.C = np.array(shares), form, len(shares)
        self.shares.setflags(write=False)
        self.roots = np.sqrt(self.shares)
        self.left = simplex_etf(self.C) * sqrt((self.C - 1) / self.C)
        self.right = np.eye(self.C) if form == "free" else _complement(self.roots)
        self.to_logits = self.right.T / self.roots  # Z = U X to_logits + U b 1^T

    def nothing(self) -> tuple[Floats, Floats]:
        """X = 0, and the best b."""
        b = self.left.T @ np.log(self.shares) if self.form == "bias" else np.zeros(self.C - 1)
        return np.zeros((self.C - 1, self.right.shape[1])), b

    def relative_slope(self, X: Floats, b: Floats) -> tuple[float, Floats]:
        """Log F, and the gradient of log F in the logits Z, (C, C); both stand any underflow of F."""
        Z = self.left @ (X @ self.to_logits + b[:, None])
        Z = Z - np.diag(Z)
        np.fill_diagonal(Z, -inf)
        highest = Z.max(0)
        others = highest + np.log(np.exp(Z - highest).sum(0))
        losses = np.logaddexp(0, others)
        logs = np.where(others < -40, others, np.log(np.logaddexp(0, np.maximum(others, -40)))) + np.log(self.shares)
        log_loss = float(logs.max() + log(np.exp(logs - logs.max()).sum()))
        S = np.exp(Z - losses + np.log(self.shares) - log_loss)
        np.fill_diagonal(S, -S.sum(0))
        return log_loss, S

    def slope(self, X: Floats, b: Floats) -> tuple[float, Floats, Floats]:
        """Log F, the gradient of F in X, and that in Z."""
        log_loss, S = self.relative_slope(X, b)
        S = S * exp(log_loss)
        return log_loss, self.left.T @ S @ self.to_logits.T, S

    # Factors are one vector x: W, (C - 1, C - 1), G, (C - 1, r), and in the form `bias` b.

    def start(self, norm: float) -> Floats:
        """Factors of about that nuclear norm: near the solution for equal shares, and near no saddle."""
        left, _, right = np.linalg.svd(self.left.T @ self.right, full_matrices=False)
        size = sqrt(norm / (self.C - 1))
        factors = np.concatenate([size * left.ravel(), size * right.ravel()])
        factors += 0.03 * size * np.random.default_rng(0).standard_normal(len(factors))
        return np.concatenate([factors, self.nothing()[1]]) if self.form == "bias" else factors

    def factors(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """W, G and b."""
        n, cut = self.C - 1, (self.C - 1) * (self.C - 1 + self.right.shape[1])
        b = x[cut:] if self.form == "bias" else np.zeros(n)
        return x[: n * n].reshape(n, n), x[n * n : cut].reshape(n, -1), b

    def product(self, x: Floats) -> tuple[Floats, Floats]:
        """X = W G, and b."""
        W, G, b = self.factors(x)
        return W @ G, b

    def split(self, X: Floats, b: Floats) -> Floats:
        """Balanced factors of X, and b; where X has no full rank, no descent from there will give it one."""
        left, values, right = np.linalg.svd(X, full_matrices=False)
        factors = np.concatenate([(left * np.sqrt(values)).ravel(), (np.sqrt(values)[:, None] * right).ravel()])
        return np.concatenate([factors, b]) if self.form == "bias" else factors

    def penalised(self, x: Floats, decay: float) -> tuple[float, Floats]:
        """log(F + lambda/2 (|W|^2 + |G|^2)) and its gradient."""
        W, G, b = self.factors(x)
        log_loss, Y, S = self.slope(W @ G, b)
        total = exp(log_loss) + decay / 2 * float((W * W).sum() + (G * G).sum())
        return log(total), self._joined(Y @ G.T + decay * W, W.T @ Y + decay * G, S) / total

    def on_sphere(self, x: Floats, norm: float) -> tuple[float, Floats]:
        """Log F at the factors scaled to (|W|^2 + |G|^2)/2 = norm, which bounds the nuclear norm, and its gradient."""
        W, G, b = self.factors(x)
        size = float((W * W).sum() + (G * G).sum()) / 2
        X = norm / size * (W @ G)
        log_loss, S = self.relative_slope(X, b)
        Y = self.left.T @ S @ self.to_logits.T
        along = float((Y * X).sum()) / size
        return log_loss, self._joined(norm / size * Y @ G.T - along * W, norm / size * W.T @ Y - along * G, S)

    def _joined(self, of_W: Floats, of_G: Floats, S: Floats) -> Floats:
        of_b = self.left.T @ S.sum(1) if self.form == "bias" else np.zeros(0)
        return np.concatenate([of_W.ravel(), of_G.ravel(), of_b])

    def lower_bound(self, X: Floats, b: Floats, decay: float) -> float:
        """A value of the dual at this lambda, which no F + lambda |X|_* is below; -inf where none was found."""
        _, Y, S = self.slope(X, b)
        largest = float(np.linalg.norm(X, 2))
        # At the optimum -Y is lambda times an element of the nuclear norm's subdifferential at X.
        left, values, right = np.linalg.svd((decay / largest if largest else 0.0) * X - Y, full_matrices=False)
        G = -self.left @ (left * np.minimum(values, decay)) @ right @ self.right.T
        if self.form == "centred":
            # The norm does not see G s: it keeps the largest class as it is, whose probabilities may be the least.
            largest_class = self.shares.argmax()
            root = self.roots[largest_class]
            G += np.outer((S[:, largest_class] / root - G[:, largest_class]) / root, self.roots)
        wrong = G / self.roots  # probabilities of the wrong classes
        np.fill_diagonal(wrong, 0)
        if self.form == "bias" and wrong.min() < -1e-13:
            return -inf  # what follows would leave more than rounding of G s
        return self._entropy(np.maximum(wrong, 0), decay)

    def _entropy(self, wrong: Floats, decay: float) -> float:
        """Sum of p_c times the entropy of q_c, once Q is moved towards I until the norm is at most lambda."""
        G = (wrong - np.diag(wrong.sum(0))) * self.roots
        spectral = float(np.linalg.norm(G @ self.right, 2))
        wrong = wrong * min(1.0, decay / spectral) if spectral else wrong
        right = wrong.sum(0)
        if right.max() >= 1:
            return -inf
        terms = -(wrong * np.log(np.where(wrong > 0, wrong, 1))).sum(0) - (1 - right) * np.log1p(-right)
        return float(self.shares @ terms)


def _complement(unit: Floats) -> Floats:
    """Orthonormal columns (C, C - 1) that are orthogonal to a unit vector with positive entries (Householder)."""
    mirror = unit.copy()
    mirror[-1] += 1
    mirror /= np.linalg.norm(mirror)
    columns: Floats = (np.eye(len(unit)) - 2 * np.outer(mirror, mirror))[:, :-1]
    return columns
