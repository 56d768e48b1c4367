"""Classifiers of others."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from tests.foreign.case import C, Fit, Module, X, Y, case, loader


class Lora(nn.Module):
    """As of PEFT: a layer and what is added to it."""

    def __init__(self, layer, rank=2):
        super().__init__()
        self.base_layer = layer
        self.lora_A = nn.ModuleDict({"default": nn.Linear(layer.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, layer.out_features, bias=False)})
        nn.init.normal_(self.lora_B["default"].weight)
        self.dropout = nn.Dropout(0.5)

    def forward(self, h):
        return self.base_layer(h) + 4 * self.lora_B["default"](self.lora_A["default"](self.dropout(h)))

    @property
    def merged(self):
        return self.base_layer.weight + 4 * self.lora_B["default"].weight @ self.lora_A["default"].weight


class WithHead(Module):
    def __init__(self, head):
        super().__init__()
        self.fc = head


@case("LoRA on the head")
def lora_head():
    return Fit(WithHead(Lora(nn.Linear(6, C))), truth=lambda m: (m.body(X), Y, m.fc.merged, m.fc.base_layer.bias))


@case("LoRA on the head, the layer without the adapter named", "classifier must be 'fc', whose weights", refused=True)
def lora_base_layer():
    return Fit(WithHead(Lora(nn.Linear(6, C))), callback={"classifier": "fc.base_layer"})


class Beside(nn.Module):
    """An adapter of nobody's library."""

    def __init__(self):
        super().__init__()
        self.linear, self.up = nn.Linear(6, C), nn.Parameter(torch.randn(C, 6))

    def forward(self, h):
        return self.linear(h) + h @ self.up.T


@case("an adapter of one's own, the layer inside named", "classifier must be what makes the logits", refused=True)
def own_adapter_inside():
    return Fit(WithHead(Beside()), callback={"classifier": "fc.linear"})


@case("an adapter of one's own, the module with both named")
def own_adapter():
    return Fit(
        WithHead(Beside()),
        truth=lambda m: (m.body(X), Y, m.fc.linear.weight + m.fc.up, m.fc.linear.bias),
        callback={"classifier": "fc"},
    )


class Cosine(nn.Module):
    """A cosine classifier."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C, 6))

    def forward(self, h):
        return 8 * F.normalize(h, dim=1) @ F.normalize(self.weight, dim=1).T


@case("a cosine classifier: its feature is h/|h|")
def cosine_head():
    module = WithHead(Cosine())
    module.body = nn.Sequential(nn.Linear(5, 6), nn.Tanh())
    return Fit(
        module,
        truth=lambda m: (F.normalize(m.body(X), dim=1), Y, 8 * F.normalize(m.fc.weight, dim=1), None),
        callback={"classifier": "fc"},
    )


@case("a 1x1 convolution as head")
def convolution_head():
    class Pooled(Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Conv2d(6, C, 1)

        def forward(self, x):
            return self.fc(self.body(x)[:, :, None, None]).flatten(1)

    return Fit(
        Pooled(),
        truth=lambda m: (m.body(X), Y, m.fc.weight.flatten(1), m.fc.bias),
        callback={"classifier": "fc"},
    )


@case("a 1x1 convolution without its name", "classifier must be named", refused=True)
def convolution_unnamed():
    class Bare(Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Identity(), nn.Conv2d(5, C, 1)

        def forward(self, x):
            return self.fc(x[:, :, None, None]).flatten(1)

    return Fit(Bare())


@case("pooling after a 1x1 convolution", "pool before the 1x1 convolution", refused=True)
def pooling_after():
    class Late(Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Conv2d(6, C, 1)

        def forward(self, x):
            h = self.body(x)
            return self.fc(torch.stack([h, 2 * h], 2)[..., None]).mean((2, 3))

    return Fit(Late(), callback={"classifier": "fc"})


@case("a head of several layers, named as a whole", "classifier must be linear in its input", refused=True)
def deep_head():
    head = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, C))
    return Fit(WithHead(head), callback={"classifier": "fc"})


class Binary(Module):
    """One output, whose sign decides."""

    def __init__(self, squeezed):
        super().__init__()
        self.fc, self.squeezed, self.loss = nn.Linear(6, 1), squeezed, nn.BCEWithLogitsLoss()

    def forward(self, x):
        z = self.fc(self.body(x))
        return z[:, 0] if self.squeezed else z

    def training_step(self, batch, index):
        z = self(batch[0])
        return self.loss(z.flatten(), batch[1].flatten().float())


def binary_truth(module):
    W, b = module.fc.weight, module.fc.bias
    return module.body(X), Y % 2, torch.cat([-W, W]) / 2, torch.cat([-b, b]) / 2


def binary_measures(module):
    z = module(X).flatten().double()
    return {"loss": nn.BCEWithLogitsLoss()(z, Y % 2.0).item(), "accuracy": ((z > 0) == Y % 2).double().mean().item()}


@case("one output and `BCEWithLogitsLoss`: read as the two classes of (-w/2, w/2)")
def one_output():
    data = TensorDataset(X, (Y % 2).float()[:, None])
    return Fit(Binary(False), loader(data), binary_truth, measures=binary_measures)


@case("one output without its dimension, integer labels")
def one_squeezed_output():
    return Fit(Binary(True), loader(TensorDataset(X, Y % 2)), binary_truth, measures=binary_measures)
