"""Where the groups of a sweep keep their checkpoints, and which runs are in them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ncflow.results import CHECKPOINT, RunFolder, read_json, write_atomically

FOLDER = ".stacked"
_MEMBERS = "members.json"


@dataclass(frozen=True, eq=False)
class SavedGroup:
    """Where a group keeps its checkpoint, and who was in it.

    Attributes:
        path: The folder.
        members: Of each cell, in their order, the ``run_id``, the name of its ``folder`` and its ``config``.
        going: Ids of those that were not at their end when the group began.
    """

    path: Path
    members: tuple[dict[str, Any], ...]
    going: tuple[str, ...]

    def write(self) -> None:
        """Say who is in the group."""
        content = {"members": self.members, "going": self.going}
        write_atomically(self.path / _MEMBERS, json.dumps(content, indent=1) + "\n")

    def unfinished(self) -> set[str]:
        """Ids of those that were going and have no result yet."""
        sweep = self.path.parents[1]
        waiting = [m for m in self.members if m["run_id"] in self.going]
        return {m["run_id"] for m in waiting if RunFolder(sweep / m["folder"], m).finished() is None}


def interrupted_groups(sweep: Path) -> dict[str, SavedGroup]:
    """The interrupted group of a run, by run id; of several the one saved last, or else the one begun last."""
    found: dict[str, SavedGroup] = {}
    for path in sorted((file.parent for file in sweep.glob(f"{FOLDER}/*/{_MEMBERS}")), key=_latest):
        group = _read(path)
        if group is not None:
            found |= dict.fromkeys(group.going, group)
    return found


def _latest(group: Path) -> tuple[bool, float]:
    saved = group / CHECKPOINT
    return saved.exists(), (saved if saved.exists() else group / _MEMBERS).stat().st_mtime


def place_for(
    sweep: Path, members: Sequence[dict[str, Any]], going: Sequence[str], stopped: SavedGroup | None
) -> SavedGroup:
    """Where to keep a group: where it was, unless that is still needed for runs that are not asked for now.

    Args:
        sweep: Folder of the sweep.
        members: As :class:`SavedGroup` has them.
        going: Ids of the runs that are to be trained.
        stopped: The interrupted group that it goes on from, None for none.
    """
    if stopped is not None and stopped.unfinished() <= set(going):
        return SavedGroup(stopped.path, tuple(members), tuple(going))
    name = hashlib.sha256("".join(sorted(going)).encode()).hexdigest()[:8]
    return SavedGroup(sweep / FOLDER / name, tuple(members), tuple(going))


def _read(path: Path) -> SavedGroup | None:
    """The group of a folder, None where its file is not whole."""
    content = read_json(path / _MEMBERS) or {}
    members, going = content.get("members"), content.get("going")
    if not isinstance(members, list) or not isinstance(going, list):
        return None
    kinds = {"run_id": str, "folder": str, "config": dict}
    whole = all(isinstance(m, dict) and all(isinstance(m.get(k), kind) for k, kind in kinds.items()) for m in members)
    if not whole or not {*going} <= {member["run_id"] for member in members}:
        return None
    return SavedGroup(path, tuple(members), tuple(going))
