"""Lightning callbacks: measure collapse, keep margins and snapshots, save for resuming, stop, show progress."""

from ncflow.callbacks.collapse import NeuralCollapseCallback

__all__ = ["NeuralCollapseCallback"]
