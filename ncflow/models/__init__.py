"""Networks and the LightningModule that trains them."""

from ncflow.models.classifier import Classifier
from ncflow.models.mlp import MLP

__all__ = ["MLP", "Classifier"]
