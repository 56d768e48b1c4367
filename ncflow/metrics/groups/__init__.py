"""Measures beside those that are always made, by the name of their group: one a file, with its source and its cost.

In CPU time, a measurement of the last layer of the default MLP (4 layers of width 300, 8000 samples, 4 classes) takes
with ``probe`` 1.5 times what it takes without, with ``ood`` (2000 samples) or ``few_shot`` 1.2 times, with all groups
1.8 times; the others, and values by class, cost a few percent or less.
"""

from ncflow.metrics.groups.dual_uniformity import DualUniformity
from ncflow.metrics.groups.few_shot import FewShot
from ncflow.metrics.groups.group import Group
from ncflow.metrics.groups.ood import Ood
from ncflow.metrics.groups.probe import Probe
from ncflow.metrics.groups.uniformity import Uniformity
from ncflow.metrics.groups.weight_alignment import WeightAlignment

GROUPS: dict[str, type[Group]] = {
    "uniformity": Uniformity,
    "dual_uniformity": DualUniformity,
    "ood": Ood,
    "few_shot": FewShot,
    "weight_alignment": WeightAlignment,
    "probe": Probe,
}
