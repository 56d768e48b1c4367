"""Modules of others: backbones, heads, adapters, outputs, losses."""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from tests.foreign.case import C, Fit, Module, N, X, Y, case, loader, plain

# --- what forward does -------------------------------------------------------------------------------------------


@case("an attribute `network` that is the backbone alone")
def network_is_the_backbone():
    class Backbone(Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 5))

        def forward(self, x):
            return self.fc(self.body(self.network(x)))

    return Fit(Backbone(), truth=lambda m: plain(m, m.network(X)), callback={"classifier": "fc"})


@case("normalisation in `forward`, before `network`")
def normalisation_before_the_network():
    class Normalising(Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(self.body, self.fc)

        def forward(self, x):
            return self.network((x - 3) / 2)

    return Fit(Normalising(), truth=lambda m: plain(m, (X - 3) / 2))


@case("a head that is registered before the body", "classifier must be named", refused=True)
def head_first():
    return Fit(HeadFirst())


@case("a head that is registered before the body, named")
def head_first_named():
    return Fit(HeadFirst(), truth=plain, callback={"classifier": "fc"})


class HeadFirst(Module):
    def __init__(self):
        super().__init__()
        body = self.body
        del self.body
        self.body = body


@case("no `forward` but the steps alone", "forward", refused=True)
def no_forward():
    class Steps(Module):
        forward = L.LightningModule.forward

        def training_step(self, batch, index):
            return F.cross_entropy(self.fc(self.body(batch[0])), batch[1])

    return Fit(Steps())


@case("a head used as a function of its weight", "classifier must be a layer that forward calls", refused=True)
def functional_head():
    class Functional(Module):
        def forward(self, x):
            return F.linear(self.body(x), self.fc.weight, self.fc.bias)

    return Fit(Functional())


@case("a head called by keyword")
def head_by_keyword():
    class Keyword(Module):
        def forward(self, x):
            return self.fc(input=self.body(x))

    return Fit(Keyword(), truth=plain)


@case("`torch.compile` of the module, with a validation loader")
def compiled():
    module = torch.compile(Module(), backend="eager")
    return Fit(module, truth=plain, fit={"val_dataloaders": loader()}, trainer={"num_sanity_val_steps": 1})


@case("`torch.nn.utils.spectral_norm`, the hook")
def spectral_norm_hook():
    return Fit(Spectral(nn.utils.spectral_norm), truth=plain)


@case("`torch.nn.utils.parametrizations.spectral_norm`")
def spectral_norm_parametrization():
    return Fit(Spectral(nn.utils.parametrizations.spectral_norm), truth=plain)


class Spectral(Module):
    def __init__(self, normalise):
        super().__init__()
        normalise(self.body[0])
        normalise(self.fc)


# --- outputs -----------------------------------------------------------------------------------------------------


class Returning(Module):
    """Returns the logits in some shape."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        h = self.body(x)
        return self.shape(h, self.fc(h))

    def training_step(self, batch, index):
        h = self.body(batch[0])
        return F.cross_entropy(self.fc(h), batch[1])

    def validation_step(self, batch, index):
        pass


@dataclass
class SequenceClassifierOutput:
    """As of Hugging Face's transformers."""

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: Any = None


@case("outputs of Hugging Face, a dataclass with `logits`")
def hugging_face_output():
    return Fit(Returning(lambda h, z: SequenceClassifierOutput(z, hidden_states=(h,))), truth=plain)


@case("a tuple (features, logits)")
def tuple_output():
    return Fit(Returning(lambda h, z: (h, z)), truth=plain)


@case("a dict of outputs")
def dict_output():
    return Fit(Returning(lambda h, z: {"embedding": h, "out": z}), truth=plain)


@case("a named tuple of outputs")
def named_tuple_output():
    Outputs = namedtuple("Outputs", ["features", "scores"])
    return Fit(Returning(lambda h, z: Outputs(h, z)), truth=plain)


@case("a tuple without the logits", "output must be given", refused=True)
def unknown_output():
    return Fit(Returning(lambda h, z: (h, z.softmax(1))))


@case("a tuple without the logits, `output=`")
def adapted_output():
    return Fit(
        Returning(lambda h, z: (h, z.softmax(1))),
        truth=plain,
        callback={"output": lambda out: out[1].log(), "classifier": "fc"},
    )


@case("log-probabilities, the head named")
def log_probabilities():
    return Fit(
        Returning(lambda h, z: z.log_softmax(1)), truth=plain, callback={"classifier": "fc", "loss": nn.NLLLoss()}
    )


# --- heads -------------------------------------------------------------------------------------------------------


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


# --- losses ------------------------------------------------------------------------------------------------------


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


# --- labels ------------------------------------------------------------------------------------------------------


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
