"""Which runs of a sweep can be trained as one: same architecture, shapes and schedule; much else may differ."""

import itertools
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MAY_DIFFER = (
    "seed",
    "weight_decay",
    "weight_decay_scope",
    "weight_decay_coupling",
    "optimizer.lr",
    "optimizer.momentum",
    "model.gamma",
    "model.affine",
    "model.init_norm",
    "model.simplex",
    "data",
)
"""Options, or groups of them, in which the cells of a group can differ. Shapes must agree all the same."""

_OPTIMIZERS = ("torch.optim.Adam", "torch.optim.AdamW", "torch.optim.SGD", "ncflow.models.signum.Signum")
# Options that a stacked run does not offer: what they must be for a run to be stacked.
_NEEDED: dict[str, tuple[Any, ...]] = {
    "model._target_": ("ncflow.models.mlp.MLP", "ncflow.models.MLP"),
    "model.normalization": (None,),
    "optimizer._target_": _OPTIMIZERS,
    "trainer.devices": (1,),
    "trainer.num_nodes": (1,),
    "trainer.precision": ("32-true", "64-true"),
    "trainer.strategy": (None, "auto"),
    # A norm over all cells would mix them; gradients are handed to the optimiser's slices after every minibatch; a NaN
    # of one cell would end all.
    "trainer.gradient_clip_val": (None,),
    "trainer.accumulate_grad_batches": (None, 1),
    "trainer.detect_anomaly": (None, False),
    "trainer.profiler": (None,),
    "measure.margins": (None, False),
    "measure.snapshot_samples": (None,),
    "measure.per_class": (None, False),
    "measure.ood.name": (None,),
    "measure.ood._target_": (None,),
}
_ORDER = (
    "weight_decay_scope",
    "weight_decay_coupling",
    "model.gamma",
    "model.affine",
    "model.simplex",
    "optimizer.lr",
    "weight_decay",
)
_GRADIENTS_AND_MOMENTS = 4  # numbers kept for each parameter: itself, its gradient, two moments
_ACTIVATIONS = 6  # numbers kept for each feature of a minibatch and layer, with BN and the backward pass


@dataclass(frozen=True)
class Group:
    """Runs to be trained as one.

    Attributes:
        cells: Their places in the sweep, sorted by their hyperparameters.
        memory: Estimate of the bytes that they take together on the device.
    """

    cells: tuple[int, ...]
    memory: int


@dataclass(frozen=True)
class Plan:
    """Groups, and the places of the runs that are trained alone, with the reason."""

    groups: list[Group]
    alone: dict[int, str]


def why_alone(flat: Mapping[str, Any]) -> str | None:
    """Why a run cannot be stacked, None if it can.

    Args:
        flat: Its config under dotted names.
    """
    for name, allowed in _NEEDED.items():
        if flat.get(name) not in allowed:
            return f"{name}={flat.get(name)}"
    return None


class Candidate(NamedTuple):
    """What a plan needs to know of a run.

    Attributes:
        size: Of it; of one that cannot be stacked the reason.
        kind: Equal for runs that can be in one group.
        order: What runs are sorted by: the optimiser works on neighbours that agree in these.
        interrupted: What names the interrupted group that has the run, None for none: runs that were stopped together
            go on together.
    """

    size: "Size | str"
    kind: str
    order: tuple[str, ...]
    interrupted: str | None


def candidate(
    flat: Mapping[str, Any], size: "Size | str", interrupted: str | None, may_differ: Sequence[str]
) -> Candidate:
    """What a plan needs to know of a run.

    Args:
        flat: Its config under dotted names.
        size: As :class:`Candidate` has it.
        interrupted: As :class:`Candidate` has it.
        may_differ: Those of :data:`MAY_DIFFER` in which runs of a group may.
    """
    if isinstance(size, str):
        return Candidate(size, "", (), interrupted)
    kept = {
        name: value
        for name, value in flat.items()
        if not any(name == other or name.startswith(f"{other}.") for other in may_differ)
    }
    shape = [size.samples, size.input_shape, size.num_classes]
    kind = json.dumps([kept, shape, interrupted], sort_keys=True, default=str)
    values = [flat.get(name) for name in _ORDER]
    order = tuple(f"{value:.17e}" if isinstance(value, float) else str(value) for value in values)
    return Candidate(size, sys.intern(kind), order, interrupted)


def plan(runs: Sequence[Candidate], max_group: int, memory: int, cache: int | None = None) -> Plan:
    """Group the runs of a sweep.

    Args:
        runs: All of them.
        max_group: Most cells of a group, >= 1.
        memory: Bytes of the device that a group may take.
        cache: Bytes that the parameters of a group may take with gradients and moments; None for no limit.
    """
    alone = {index: run.size for index, run in enumerate(runs) if isinstance(run.size, str)}
    alike: dict[str, list[int]] = defaultdict(list)
    for index, run in enumerate(runs):
        if index not in alone:
            alike[run.kind].append(index)
    groups = []
    for members in alike.values():
        members.sort(key=lambda index: runs[index].order)
        size = runs[members[0]].size
        assert isinstance(size, Size)
        a_run = size.bytes
        at_once = min(max_group, max(1, memory // a_run))
        if cache is not None:
            at_once = min(at_once, max(1, cache // size.state_bytes))
        number = -(-len(members) // at_once)
        # Of nearly one size: a short last group would use the device badly.
        bounds = [len(members) * part // number for part in range(number + 1)]
        for start, stop in itertools.pairwise(bounds):
            part = tuple(members[start:stop])
            groups.append(Group(part, len(part) * a_run))
    # What is left of an interrupted group goes on as it began, even one run.
    for group in [group for group in groups if len(group.cells) == 1 and runs[group.cells[0]].interrupted is None]:
        groups.remove(group)
        alone[group.cells[0]] = "no other run is like it"
    return Plan(groups, alone)


@dataclass(frozen=True)
class Size:
    """What must agree in a group beside the config, and what a run takes.

    Attributes:
        samples: Training samples.
        input_shape: Of one input.
        num_classes: C.
        parameters: Numbers that the network trains.
        features: Features of all of its layers, for one input.
        feature_dim: Of them, those of the last layer.
        batch_size: Samples of the largest minibatch.
        item: Bytes of a number.
    """

    samples: int
    input_shape: tuple[int, ...]
    num_classes: int
    parameters: int
    features: int
    feature_dim: int
    batch_size: int
    item: int

    @property
    def state_bytes(self) -> int:
        """Of the parameters with gradients and moments."""
        return _GRADIENTS_AND_MOMENTS * self.parameters * self.item

    @property
    def bytes(self) -> int:
        """Estimate of the device's memory: parameters with moments, activations of a minibatch, data, kept features."""
        inputs = 1
        for length in self.input_shape:
            inputs *= length
        data = 2 * self.samples * (inputs * 4 + 8)
        activations = _ACTIVATIONS * self.batch_size * self.features + self.samples * self.feature_dim
        return data + self.state_bytes + activations * self.item


def plan_in_words(found: Plan) -> str:
    """The plan in words: groups, cells, estimated memory, and why runs are trained alone."""
    lines = [
        f"stacked: {len(group.cells)} cells as one, about {group.memory / 2**20:.0f} MiB" for group in found.groups
    ]
    reasons = Counter(found.alone.values())
    lines += [f"alone: {number} run{'s' * (number > 1)} ({reason})" for reason, number in reasons.items()]
    return "\n".join(lines)
