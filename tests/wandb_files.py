"""Read back the file that W&B keeps of a run, which `wandb sync` sends. W&B itself has no reader of it in Python."""

import json
import struct
import time
from dataclasses import dataclass, field
from typing import Any

_BLOCK = 32768


@dataclass
class SavedRun:
    """What the file says: W&B's record of the run, its config, rows, summary, and its exit code once it has ended."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def records(path):
    """W&B's records: LevelDB's log framing around protobuf. A file that is still being written ends before its end."""
    from wandb.proto import wandb_internal_pb2

    content = path.read_bytes()
    assert struct.unpack("<4sH", content[:6]) == (b":W&B", 0xBEE1)
    position, part = 7, b""
    while position + 7 <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", content[position : position + 7])
        data = content[position + 7 : position + 7 + size]
        if (kind == 0 and size == 0) or len(data) < size:
            break
        position += 7 + size
        part = data if kind in (1, 2) else part + data
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            yield record


def _values(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def read(path):
    """The run in one file; keys of what is nested are joined by dots."""
    saved = SavedRun()
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            saved.run = record.run
            saved.config |= _values(record.run.config.update)
        elif kind == "config":
            saved.config |= _values(record.config.update)
        elif kind == "history":
            saved.rows.append(_values(record.history.item))
        elif kind == "summary":
            saved.summary |= _values(record.summary.update)
        elif kind == "exit":
            saved.exit_code = record.exit.exit_code
    return saved


def files(folder, kind="offline-run"):
    """Files of W&B in a run's folder, oldest first."""
    return sorted(folder.glob(f"wandb/{kind}-*/*.wandb"), key=lambda path: path.parent.name)


def read_all(folder, kind="offline-run"):
    """The runs in a folder's files, oldest first; W&B's own process may write the end of the last a moment later."""
    end = time.monotonic() + (20 if kind == "offline-run" else 0)
    while True:
        found = [read(path) for path in files(folder, kind)]
        if time.monotonic() > end or (found and found[-1].exit_code is not None):
            return found
        time.sleep(0.1)
