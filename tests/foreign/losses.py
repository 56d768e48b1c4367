"""Losses and labels of others."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from tests.foreign.case import C, Fit, Module, N, X, Y, case, loader, plain

# --- losses ----------------------------------------------------------------------------------------------------------


class Losing(Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def training_step(self, batch, index):
        return F.cross_entropy(self(batch[0]), batch[1])


def mean_loss(module):
    return {"loss": F.cross_entropy(module(X).double(), Y).item()}


@case('`self.loss` with `reduction="sum"`: the mean is given')
def summed_loss():
    return Fit(Losing(nn.CrossEntropyLoss(reduction="sum")), truth=plain, measures=mean_loss)


@case('`self.loss` with `reduction="none"`: the mean is given')
def unreduced_loss():
    return Fit(Losing(nn.CrossEntropyLoss(reduction="none")), truth=plain, measures=mean_loss)


@case("a loss function of one's own that sums")
def own_summed_loss():
    return Fit(Losing(lambda z, y: F.cross_entropy(z, y, reduction="sum")), truth=plain, measures=mean_loss)


@case("`CrossEntropyLoss(weight=...)`: the weighted mean over the split")
def weighted_loss():
    weight = torch.tensor([1.0, 3.0, 0.2])
    return Fit(
        Losing(nn.CrossEntropyLoss(weight=weight)),
        truth=plain,
        measures=lambda m: {"loss": F.cross_entropy(m(X).double(), Y, weight.double()).item()},
    )


@case("a loss of other arguments: NaN", "loss is NaN, as the module's own is not known")
def loss_of_other_arguments():
    return Fit(
        Losing(lambda outputs, batch, step: outputs.sum()), truth=plain, measures=lambda m: {"loss": float("nan")}
    )


@case("a loss that depends on the batches: NaN", "it is no mean over the samples, nor their sum")
def contrastive_loss():
    return Fit(
        Losing(lambda z, y: (z @ z.T).logsumexp(1).mean()), truth=plain, measures=lambda m: {"loss": float("nan")}
    )


@case("a NaN row of W: what reads it is NaN")
def nan_row():
    class Stuck(Module):
        def __init__(self):
            super().__init__()
            self.fc.weight.data[1] = float("nan")

        def training_step(self, batch, index):
            return None

    nan = float("nan")
    names = ("nc4_agreement", "nc3_distance", "nc2_equinorm_weights", "weight_norm", "loss", "margin_mean")
    return Fit(Stuck(), measures=lambda m: dict.fromkeys(names, nan))


# --- labels ----------------------------------------------------------------------------------------------------------


@case("soft labels", "soft or one-hot labels", refused=True)
def soft_labels():
    return Fit(Module(), loader(TensorDataset(X, torch.rand(N, C).softmax(1))))


@case("soft labels, `batch=` takes the largest")
def hardened_labels():
    soft = F.one_hot(Y, C) * 0.9 + 0.1 / C
    return Fit(Module(), loader(TensorDataset(X, soft)), plain, callback={"batch": lambda b: (b[0], b[1].argmax(1))})


@case("floating labels", "labels must be integers", refused=True)
def floating_labels():
    class Rounding(Module):
        def training_step(self, batch, index):
            return F.cross_entropy(self(batch[0]), batch[1].long())

    return Fit(Rounding(), loader(TensorDataset(X, Y.double())))


@case("`ignore_index=`")
def ignored():
    holes = torch.where(torch.arange(N) % 4 == 0, 255, Y)

    class Ignoring(Module):
        def training_step(self, batch, index):
            return F.cross_entropy(self(batch[0]), batch[1], ignore_index=255)

    return Fit(
        Ignoring(),
        loader(TensorDataset(X, holes)),
        lambda m: plain(m, X[holes != 255], Y[holes != 255]),
        callback={"ignore_index": 255},
    )


TOKENS = torch.randn(12, 5, 5)
TAGS = torch.where(torch.arange(60).view(12, 5) % 7 == 0, -100, torch.arange(60).view(12, 5) % C)


@case("a label for each token, -100 left out")
def tokens():
    class Tagging(Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(5, 6), nn.ReLU())

        def training_step(self, batch, index):
            return F.cross_entropy(self(batch[0]).flatten(0, 1), batch[1].flatten())

    kept = TAGS.flatten() != -100
    return Fit(
        Tagging(),
        loader(TensorDataset(TOKENS, TAGS), 4),
        lambda m: (m.body(TOKENS).flatten(0, 1)[kept], TAGS.flatten()[kept], m.fc.weight, m.fc.bias),
    )


PIXELS = torch.randn(6, 5, 4, 2)
CLASSES = torch.randint(C, (6, 4, 2))


@case("a label for each pixel, a 1x1 convolution as head")
def pixels():
    class Segmenting(Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(5, 6, 1), nn.ReLU())
            self.fc = nn.Conv2d(6, C, 1)

    def truth(m):
        H = m.body(PIXELS).permute(0, 2, 3, 1).reshape(-1, 6)
        return H, CLASSES.flatten(), m.fc.weight.flatten(1), m.fc.bias

    return Fit(Segmenting(), loader(TensorDataset(PIXELS, CLASSES), 3), truth, callback={"classifier": "fc"})
