"""Measures beside those that are always made, by the name of their group: one a file, with its source and its cost."""

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
