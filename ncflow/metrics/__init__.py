"""Measures of neural collapse: a pure function, and a torchmetrics Metric with the same answer."""

from ncflow.metrics.functional import neural_collapse
from ncflow.metrics.metric import NeuralCollapse

__all__ = ["NeuralCollapse", "neural_collapse"]
