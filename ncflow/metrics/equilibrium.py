"""The norm at which weight decay balances the square loss, rho_eq = mu/(M + lambda) (CBMM Memo 117, eq. 8 and 11).

With the targets y and the outputs f = rho phi of a network, phi its normalised outputs, the loss of a run with weight
decay lambda is

    mean |y - f|^2 + lambda/2 sum |W_k|^2 = |y|^2 (1 - 2 rho mu + rho^2 M) + lambda/2 sum |W_k|^2,

where mu = mean <y, phi>/|y|^2 and M = mean |phi|^2/|y|^2. The memo's f is one output and its y is +-1: there mu and M
are the means of y phi and of phi^2, as they are, of the label's output, for two opposite outputs with targets +-1
(|y|^2 = C). For one-hot targets (|y|^2 = 1) mu is the mean output of the label and M that of |phi|^2, as in its section
J.1. A margin, phi_y - phi_other, is neither: for two opposite outputs it is twice phi_y.

The outputs are linear in the last layer's weights, whatever comes before them. Where the derivative of the loss along
these weights vanishes, 2 |y|^2 (rho mu - rho^2 M) = lambda |W_L|^2, that is rho = rho_eq with

    rho_eq = mu/(M + lambda |W_L|^2/(2 |y|^2 rho^2)).

This is so at every critical point of a run's loss whose last layer is decayed with it (not apart from it, as AdamW
does). What it is depends on the other layers:

- All held at norm 1 (the memo's Lagrange normalisation, its eq. 1): rho = |W_L|, and this is eq. 11 as printed. Its
  lambda, beside a mean over samples of (1 - rho f)^2, is lambda/(2 |y|^2) of ours.
- Decay in all L layers and no normalisation: at a critical point all have one norm, |W_k|^2 = rho^(2/L), since
  2 |y|^2 (rho mu - rho^2 M) is lambda |W_k|^2 for each. So mu = rho M + lambda/(2 |y|^2) rho^(2/L - 1), which is eq. 11
  for L = 1 alone; for L = 2 it is rho = (mu - lambda/(2 |y|^2))/M, and for L > 2 it has two solutions or none. The
  lambda of eq. 11 is that of the first case times |W_L|^2/rho^2 = rho^(2/L - 2).
- BN after the other layers: their norms do not change the output, and are not at rest under decay. It holds for the
  last layer at what they are. What is measured has BN's running averages: with batches of B their variance is
  B/(B - 1) times that of training, so that even at rest rho is about 1 - 1/(2 B) of rho_eq.
"""

import torch
from torch import Tensor

from ncflow.metrics.head import LinearHead


def output_moments(logits: Tensor, labels: Tensor, signs: bool = False) -> Tensor:
    """Sums over a batch of <y, f> and |f|^2, (..., 2), float64; sums over batches and ranks add up.

    Args:
        logits: Outputs f, (..., B, C).
        labels: (..., B), 0..C-1.
        signs: Whether the targets are 1 and -1 rather than 1 and 0.
    """
    exact = logits.double()
    along = exact.gather(-1, labels[..., None])[..., 0]
    if signs:
        along = 2 * along - exact.sum(-1)
    return torch.stack([along.sum(-1), exact.square().sum((-2, -1))], -1)


def normalized_moments(
    sums: Tensor, count: Tensor, rho: Tensor, num_classes: int, signs: bool = False
) -> tuple[Tensor, Tensor]:
    """The memo's mu and M, of the outputs divided by rho.

    Args:
        sums: Of :func:`output_moments`, added up, (2,).
        count: Samples.
        rho: Product of the norms of all weight matrices.
        num_classes: C.
        signs: Whether the targets are 1 and -1 rather than 1 and 0.
    """
    along, squares = sums / (count * (num_classes if signs else 1))
    return along / rho, squares / rho / rho


def equilibrium_rho(
    mean: Tensor, square: Tensor, rho: Tensor, head: LinearHead, weight_decay: float, signs: bool = False
) -> Tensor:
    """rho_eq, by which rho is divided to give 1 at a critical point; without decay it is rho_0 = mu/M.

    Args:
        mean: mu, of the training split.
        square: M, of the training split.
        rho: Product of the norms of all weight matrices.
        head: The last layer. If it has a bias, the outputs are linear in both together, and |W_L|^2 is that of both.
        weight_decay: lambda >= 0 of the run, a penalty lambda/2 |W_L|^2 beside the mean over samples of the square
            loss.
        signs: Whether the targets are 1 and -1 rather than 1 and 0.
    """
    penalised = head.weight.detach().double().square().sum()  # not its parameters': the weight may be made of others
    if head.bias is not None:
        penalised = penalised + head.bias.detach().double().square().sum()
    share = penalised.to(rho.device) / rho / rho / (2 * (head.out_features if signs else 1))
    return mean / (square + weight_decay * share)
