"""Networks and the LightningModule that trains them."""

from ncflow.models.classifier import Classifier
from ncflow.models.convnet import ConvNet
from ncflow.models.mlp import MLP
from ncflow.models.resnet import ResNet
from ncflow.models.resnet9 import ResNet9
from ncflow.models.vgg import VGG
from ncflow.models.vit import ViT

__all__ = ["MLP", "VGG", "Classifier", "ConvNet", "ResNet", "ResNet9", "ViT"]
