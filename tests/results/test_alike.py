"""The fast reader of many tables takes no text for a number that the strict one refuses."""

import random

import numpy as np

from ncflow.results import COLUMNS
from ncflow.results.alike import plain_header, read_alike
from ncflow.results.fields import read_columns
from ncflow.results.readable import UnreadableError

KNOWN = [
    "True",
    "TRUE",
    "yes",
    "1e",
    "e5",
    "1e+",
    "+-1",
    "--1",
    "1.2.3",
    "0x1F",
    "1_0",
    "1d3",
    "1f",
    "nan",
    "NaN",
    "-nan",
]
KNOWN += [
    "inf",
    "Infinity",
    "1j",
    "None",
    "null",
    "NA",
    "",
    "1L",
    ".",
    "+",
    "-",
    "1.",
    "+.5",
    "00012",
    "1e5.0",
    "5e-400",
]


def test_what_it_reads_the_strict_reader_reads_alike(tmp_path):
    draw = random.Random(0)
    made = ["".join(draw.choices("0123456789eE+-._nainfxdtruLlj", k=draw.randint(1, 6))) for _ in range(400)]
    path, read = tmp_path / "history.csv", 0
    for field in (*KNOWN, *made):
        path.write_bytes(f"epoch,split,layer,loss\n0,train,last,{field}\n".encode())
        content = path.read_bytes()
        fast = read_alike([content], ["epoch"]) if plain_header(content, COLUMNS, COLUMNS[:3]) else None
        if fast is not None:
            read += 1
            try:
                strict = read_columns(path, COLUMNS, COLUMNS[:3], ["epoch"])["loss"]
            except UnreadableError:
                strict = None
            assert strict is not None, field
            assert np.array_equal(fast["loss"], strict, equal_nan=True), field
    assert read > 30
