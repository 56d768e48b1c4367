"""Networks and the LightningModule that trains them."""

from ncflow.models.classifier import Classifier
from ncflow.models.convnet import ConvNet
from ncflow.models.mlp import MLP
from ncflow.models.resnet import ResNet
from ncflow.models.vgg import VGG

__all__ = ["MLP", "VGG", "Classifier", "ConvNet", "ResNet"]
