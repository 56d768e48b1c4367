"""A stranger's code: models, loaders and transforms that tests name as ``tests.cli.strangers:...``."""

import torch
from lightning import LightningModule
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Net(nn.Module):
    def __init__(self, dim=6, classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(dim, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh())
        self.head = nn.Linear(5, classes)

    def forward(self, inputs):
        return self.head(self.body(inputs))


class Lit(LightningModule):
    """It cannot be built without its hyperparameters, and has weights beside the network's."""

    def __init__(self, dim, classes, rate):
        super().__init__()
        self.save_hyperparameters()
        self.network = Net(dim, classes)
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(classes))

    def forward(self, inputs):
        return self.network(inputs)

    def training_step(self, batch, index):
        return self.criterion(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.rate)


class TwoNets(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = Net(), Net()


class Decoder(nn.Module):
    """A language model as GPT-2 is one, but tiny: causal attention over tokens and places, a head without bias."""

    def __init__(self, tokens=5000, dim=8, length=32):
        super().__init__()
        self.token, self.place = nn.Embedding(tokens, dim), nn.Embedding(length, dim)
        self.block = nn.TransformerEncoderLayer(dim, 2, 4 * dim, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, tokens, bias=False)

    def hidden(self, tokens):
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        both = self.token(tokens) + self.place(torch.arange(length, device=tokens.device))
        return self.norm(self.block(both, src_mask=mask))

    def forward(self, tokens):
        return self.head(self.hidden(tokens))


def seeded():
    torch.manual_seed(0)
    return Net()


def decoder():
    torch.manual_seed(0)
    return Decoder()


def arrays():
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % 3
    return torch.randn(60, 6, generator=random) + labels[:, None], labels


def loaders():
    inputs, labels = arrays()
    parts = {"train": slice(40), "test": slice(40, None)}
    return {
        name: DataLoader(TensorDataset(inputs[part], labels[part]), 16, shuffle=name == "train")
        for name, part in parts.items()
    }


def others():
    inputs, labels = arrays()
    return [(3 * inputs[:20].flip(1), labels[:20])]


class Augmented(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, index):
        inputs, labels = arrays()
        return inputs[index] + 0.1 * torch.randn(6), labels[index]


def augmented():
    return DataLoader(Augmented(), 10)


def tokens():
    """Tokens of which few are frequent, as words are: 24 batches of (4, 32)."""
    random = torch.Generator().manual_seed(2)
    return (5000 * torch.rand(24, 4, 32, generator=random) ** 8).long().unbind(0)


def one_class():
    inputs, labels = arrays()
    return [(inputs, 0 * labels)]


def large_labels():
    inputs, labels = arrays()
    return [(inputs, labels + 7)]


def nothing():
    return []


def broken():
    raise KeyError("no such file on my machine")


def a_number():
    return 3


def to_input(image):
    from torchvision.transforms import functional as F

    return F.normalize(F.to_tensor(image), [0.5] * 3, [0.25] * 3)
