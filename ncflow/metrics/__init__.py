"""Measures of neural collapse: a pure function, and a torchmetrics Metric with the same answer."""

from ncflow.metrics.neural_collapse import NeuralCollapse, neural_collapse

__all__ = ["NeuralCollapse", "neural_collapse"]
