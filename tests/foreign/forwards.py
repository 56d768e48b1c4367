"""What others' `forward` does, and what it returns."""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.foreign.case import Fit, Module, X, case, loader, plain

# --- what forward does -----------------------------------------------------------------------------------------------


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


# --- outputs ---------------------------------------------------------------------------------------------------------


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
