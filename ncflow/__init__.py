"""ncflow: experiments on neural collapse, from a config to a figure.

The straight line: ``data -> models -> measuring -> results -> figures``.
Importing this package imports nothing heavy; import the part you need, for example
``from ncflow.metrics import neural_collapse`` or ``from ncflow.callbacks import NeuralCollapseCallback``.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ncflow")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
