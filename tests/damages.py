"""Damage to the folders of runs: what disks, other programs and people do to files, at random but always the same."""

import json
import os
import shutil

FILES = ("result.json", "run.json", "history.csv", "job.json", "progress.json", "margins.csv")
# What may stand in the place of a value of a config.
ODD_VALUES = (
    None,
    True,
    -1,
    0.5,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "$$",
    "$x^",
    "a\nb\x1b[2J",
    "x" * 5000,
    "\ud800",
    "漢字",
    [],
    [1, "a"],
    {},
    {"a": 1},
    [{"a": [1]}],
    "<script>",
)


def truncate(path, rng):
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def empty(path, rng):
    path.write_bytes(b"")


def zero(path, rng):
    path.write_bytes(bytes(path.stat().st_size))


def nul(path, rng):
    _insert(path, b"\0", rng)


def no_utf8(path, rng):
    _insert(path, b"\xff\xfe", rng)


def flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def delete(path, rng):
    path.unlink()


def folder(path, rng):
    path.unlink()
    path.mkdir()


def pipe(path, rng):
    path.unlink()
    os.mkfifo(path)


def long_line(path, rng):
    _insert(path, b"7" * 300_000, rng)


def foreign(path, rng):
    path.write_text(rng.choice(["a,b\n1,2\n", "[1, 2]", "null", '{"score": 1}', '{"status": 3}', "[" * 100_000, "0.5"]))


def swap_types(path, rng):
    """Other types in the place of some values; of a table another word in the place of some fields."""
    if path.suffix == ".json":
        values = json.loads(path.read_text())
        for key in rng.sample(sorted(values), min(len(values), rng.randrange(1, 4))):
            values[key] = rng.choice(ODD_VALUES)
        path.write_text(json.dumps(values))
        return
    lines = path.read_text().splitlines()
    for _ in range(rng.randrange(1, 4)):
        number = rng.randrange(len(lines))
        fields = lines[number].split(",")
        fields[rng.randrange(len(fields))] = rng.choice(
            ["", "x", "1e999", "1.5", "-3", "True", '"', "nan", "inf", "$$"]
        )
        lines[number] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n")


def twice(path, rng):
    """Lines that are there again, or not at all."""
    lines = path.read_text().splitlines(keepends=True)
    number = rng.randrange(len(lines))
    path.write_text("".join([*lines[:number], *lines[number : number + 1] * rng.choice([0, 2]), *lines[number + 1 :]]))


def _insert(path, found, rng):
    content = path.read_bytes()
    place = rng.randrange(len(content) + 1)
    path.write_bytes(content[:place] + found + content[place:])


WAYS = (
    truncate, empty, zero, nul, no_utf8, flip, flip, delete, folder, pipe, long_line, foreign, swap_types, swap_types,
    swap_types, twice,
)  # fmt: skip


def damage(root, rng):
    """Damage a file of one or two runs below a folder; return the damaged runs' folders."""
    runs = sorted(path for path in root.iterdir() if path.is_dir())
    chosen = rng.sample(runs, rng.choice([1, 1, 2]))
    for run in chosen:
        path = rng.choice([run / name for name in FILES if (run / name).is_file()])
        rng.choice(WAYS)(path, rng)
    return chosen


def copy(root, to):
    """A copy of a small sweep to be damaged."""
    shutil.copytree(root, to)
    return to
