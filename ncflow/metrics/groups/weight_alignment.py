"""Whether the weight matrix that reads a layer's features is aligned with the one that makes them."""

import torch
from torch import Tensor, nn

from ncflow.checks import require
from ncflow.metrics.class_means import Geometry
from ncflow.metrics.groups.group import Group


def matrix_alignment(below: Tensor, above: Tensor) -> Tensor:
    """cos(A, B) = <A, B>/(|A| |B|), in 0..1, of A = V^T V and B = W W^T; NaN where a matrix is 0.

    <V^T V, W W^T> = |V W|^2, and the norms are those of the smaller Gram matrices: nothing is formed that is larger
    than V and W.

    Args:
        below: W, (d, n), which makes the features (d,).
        above: V, (m, d), which reads them.
    """
    W, V = below.double(), above.double()
    W, V = W / torch.linalg.matrix_norm(W), V / torch.linalg.matrix_norm(V)
    return torch.linalg.matrix_norm(V @ W).square() / (_gram_norm(V) * _gram_norm(W))


def _gram_norm(matrix: Tensor) -> Tensor:
    """|A A^T| = |A^T A|."""
    return torch.linalg.matrix_norm(matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix)


def matrices_around(network: nn.Module, name: str) -> tuple[Tensor, Tensor] | None:
    """Weights of the ``nn.Linear`` that makes the features of a layer and of the one that reads them.

    Args:
        network: A chain, as its attribute ``is_chain`` says.
        name: Of the module whose output the features are.

    Returns:
        (d, n) and (m, d); None where the last matrix before, or the first one after, is of another kind or size.
    """
    modules = list(network.modules())
    own = list(network.get_submodule(name).modules())
    end = next(index for index, module in enumerate(modules) if module is own[-1])
    before = [module for module in modules[: end + 1] if _is_matrix(module)][-1:]
    after = [module for module in modules[end + 1 :] if _is_matrix(module)][:1]
    if not before or not after or not isinstance(before[0], nn.Linear) or not isinstance(after[0], nn.Linear):
        return None
    below, above = before[0].weight.detach(), after[0].weight.detach()
    return (below, above) if above.shape[1] == below.shape[0] else None


def _is_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim >= 2


def check_chain(network: nn.Module) -> None:
    """Refuse a network of which it is not known which matrix reads what.

    Raises:
        ArgumentError: If it is no chain.
    """
    rule = (
        "without 'weight_alignment' for a network that is not known to apply its modules one after the other, each once"
        " (one that does says so with an attribute is_chain = True)"
    )
    require(bool(getattr(network, "is_chain", False)), "groups", rule, type(network).__name__)


class WeightAlignment(Group):
    """``weight_alignment`` of each layer, the last one's being of the classifier and the matrix before it.

    cos(W_{l+1}^T W_{l+1}, W_l W_l^T): 1 exactly if the two are proportional, so that the right singular vectors of the
    upper matrix are the left ones of the lower and their singular values are in proportion. They are so at the optimum
    of deep linear networks with weight decay, where NC holds (Dang, Tran, Osher, Tran-The, Ho, Nguyen 2023, "Neural
    collapse in deep linear networks", whose proofs rest on W_{l+1}^T W_{l+1} = lambda_l/lambda_{l+1} W_l W_l^T), and
    under gradient flow from small weights (Arora, Cohen, Hazan 2018; Ji, Telgarsky 2019 for one output). Of Gaussian
    matrices (m, d) and (d, n) it is about sqrt(m n/((m + d)(n + d))), which is no zero.

    The scales of BN between the two are not counted. NaN where a layer is not between two ``nn.Linear``. It needs a
    network that is known to be a chain, and reads no data.
    """

    def measures(self, means: Geometry) -> dict[str, Tensor]:
        """The alignment around this layer."""
        network = self.layer.network
        name = self.layer.name or _before(network, self.layer.classifier)
        found = None if name is None else matrices_around(network, name)
        if found is None:
            return {"weight_alignment": means.centred.new_full((), torch.nan)}
        below, above = (weight.to(means.centred.device) for weight in found)
        return {"weight_alignment": matrix_alignment(below, above)}


def _before(network: nn.Module, classifier: str) -> str | None:
    """Name of the module right before the classifier in the order of ``modules()``."""
    names = [name for name, _ in network.named_modules()]
    before = names[names.index(classifier) - 1]
    return before or None
