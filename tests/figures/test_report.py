"""The HTML page, read back from its own markup and from the data that are embedded in it."""

import base64
import gzip
import hashlib
import html
import itertools
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ncflow.cli.figures import main
from ncflow.figures.papers.verdict import Effect, Quantifier, Setting, Verdict
from ncflow.figures.report import histories, vega
from ncflow.figures.report.page import page_of
from ncflow.figures.report.pictures import Picture, dimming
from ncflow.figures.told import differences
from ncflow.results import load_history, load_runs, write_json

VERSIONS = {"version/torch": "2.6.0", "version/ncflow": "0.1.0"}
CONFIG = {
    "epochs": 500,
    "data.name": "digits",
    "optimizer.betas": [0.9, 0.999],
    "model.gamma": None,
    "trainer.gpu": False,
}


def verdict(claim, *blocks):
    settings = (Setting("digits", (Effect("intra & inter", 0.02, dict(enumerate(blocks))),), 9),) if blocks else ()
    return Verdict("p/1", claim, "Paper A, section 1", Quantifier.ALL, settings, "seed=0,1", "it is ours & not theirs")


VERDICTS = [
    verdict("1. First", 0.9, 0.91),
    verdict("2. Second", -0.9, -0.91),
    verdict("3. Third"),
    verdict("4. Fourth", 0.0, 0.0),
    verdict("5. Fifth", 0.9, -0.9),
]
PICTURES = [
    Picture("fig2", "Two cosines.", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg", "two curves"),
    Picture("fig4", "Another.", b"\x89PNG", "png", "points"),
    Picture("movie", "It moves.", b"GIF89a", "gif", "a simplex"),
]
ATTACK = """"'><script>alert(1)</script>&amp;"""


class Page(HTMLParser):
    """The tags of a page, the text of its elements, its embedded data and its pairs of name and value."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.open, self.texts, self.pairs = [], [], {}, {}
        self.feed(content)
        assert self.open == []
        (packed,) = re.findall('id="data">(.*?)<', content)
        self.data = json.loads(gzip.decompress(base64.b64decode(packed)))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("meta", "img", "input", "option"):
            return
        self.open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.texts[tag][-1] = " ".join(self.texts[tag][-1].split())
        if tag == "dd":
            self.pairs[self.texts["dt"][-1]] = self.texts["dd"][-1]

    @property
    def header(self):
        return self.data["short"]

    def column(self, name):
        """The value of each run."""
        (found,) = (column for column in self.data["columns"] if column["name"] == name)
        return found["values"] if "values" in found else [found["value"]] * len(self.data["commands"])


def add_run(root, name, status="done", **values):
    """A run's folder as ``ncflow`` leaves it."""
    described = {"run_id": name, "name": name, "runs_dir": str(root), **CONFIG, **values, "status": status}
    write_json(root / name / "run.json", described)
    if status in ("done", "diverged"):
        write_json(root / name / "result.json", {**VERSIONS, **described})


@pytest.fixture
def runs(tmp_path):
    """Six finished runs: three weight decays, two seeds, of which one has no loss."""
    for decay, seed in itertools.product((1e-2, 1e-4, 1e-3), (0, 1)):
        measures = {"train/intra_min": 0.12345678 + decay, "train/loss": None if seed else 2e-7, "train/rho": 1.0}
        add_run(tmp_path / "runs", f"wd{decay:g}-seed{seed}", seed=seed, weight_decay=decay, **measures)
    return tmp_path / "runs"


def written(root, verdicts=VERDICTS, figures=PICTURES, title="A sweep"):
    return page_of(load_runs(root), load_history(root), verdicts, figures, title, "2020-01-01")


def report(*args, **kwargs):
    return Page(written(*args, **kwargs).decode())


def test_page_needs_nothing_from_outside(runs):
    page = report(runs)
    assert not {"link", "iframe", "object", "embed", "base", "svg"} & {tag for tag, _ in page.tags}
    addresses = [attributes[name] for _, attributes in page.tags for name in ("src", "href") if name in attributes]
    kinds = [address.split(",")[0] for address in addresses]
    assert kinds == ["data:image/svg+xml;base64", "data:image/png;base64", "data:image/gif;base64"]
    assert not [word for word in ("url(", "@import") if word in page.texts["style"][0]]


def test_only_the_scripts_of_the_page_run_and_they_may_not_connect(runs):
    content = written(runs).decode()
    (policy,) = re.findall('Content-Security-Policy" content="(.*?)"', content)
    scripts = re.findall("<script>(.*?)</script>", content, re.DOTALL)
    allowed = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    digests = [f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts]
    assert allowed["script-src"].split() == digests
    assert allowed["default-src"] == "'none'"
    assert "connect-src" not in allowed
    shown = page_of(load_runs(runs), load_history(runs), [], [], "", "", live="7").decode()
    assert "connect-src 'self';" in html.unescape(shown)
    assert '<html lang="en" data-live="7">' in shown


def test_figures_have_captions_and_words_for_who_does_not_see_them(runs):
    page = report(runs)
    assert page.texts["figcaption"] == ["fig2 Two cosines.", "fig4 Another.", "movie It moves."]
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == ["two curves", "points", "a simplex"]


def test_verdicts_are_words_with_their_numbers(runs):
    page = report(runs)
    words = ["✓ supported", "✗ contradicted", "… not enough runs", "= no effect", "? undecided"]
    assert page.texts["strong"][:5] == words
    assert page.texts["div"][2:4] == ["1. First (in all settings)", "2. Second (in all settings)"]
    first = page.texts["details"][0]
    assert page.texts["cite"] == ["Paper A, section 1"] * 5
    assert page.texts["h3"][0] == "p"
    of_a_paper = report(runs, [replace(VERDICTS[0], id="pan_cao/1")])
    assert of_a_paper.texts["h3"][0].startswith("Pan and Cao, Towards Understanding Neural Collapse")
    assert "the test departs from the text: it is ours & not theirs" in first
    assert "supported: digits: intra & inter +0.905" in first
    assert "needs seed=0,1" in page.texts["details"][2]


def test_every_run_is_a_row_with_what_tells_it_apart(runs):
    add_run(runs, "broken", "failed", seed=3, weight_decay=1e-2, error="boom")
    page = report(runs)
    assert page.texts["p"][0] == "7 runs: 6 done, 1 failed"
    assert page.header == ["run", "status", "seed", "weight_decay", "train/loss", "train/intra_min", "error"]
    assert page.column("run") == sorted(folder.name for folder in runs.iterdir())
    assert page.column("error") == ["boom", *[None] * 6]


def test_numbers_have_all_their_digits_and_missing_ones_are_none(runs):
    page = report(runs)
    assert page.column("train/loss") == [2e-07, None] * 3
    assert page.column("train/intra_min")[0] == 0.12355678
    assert page.column("weight_decay")[::2] == [0.0001, 0.001, 0.01]
    assert page.column("status") == ["done"] * 6


def test_integers_stay_integers_where_a_run_lacks_them(runs):
    add_run(runs, "odd", "failed", epochs=None)
    page = report(runs)
    assert page.column("seed")[:2] == [None, 0]
    assert page.pairs["epochs"] == "500 (6), not set (1)"


def test_a_column_with_words_sorts_as_words(runs):
    add_run(runs, "often", **{"measure.every_n_epochs": 5})
    add_run(runs, "seldom", **{"measure.every_n_epochs": "auto"})
    assert report(runs).column("measure.every_n_epochs")[:3] == [5, "auto", None]


def test_configuration_is_split_into_common_and_varying(runs):
    pairs = report(runs).pairs
    assert pairs["weight_decay"] == "0.0001 (2), 0.001 (2), 0.01 (2)"
    expected = {"epochs": "500", "data.name": "digits", "optimizer.betas": "[0.9, 0.999]", "trainer.gpu": "false"}
    assert {name: pairs[name] for name in expected} == expected
    assert pairs["model.gamma"] == "not set"
    assert not {"seed", "status", "run_id", "runs_dir", "train/rho", "version/torch"} & set(pairs)


def test_an_option_that_only_one_data_set_has_is_no_column_of_the_table(runs):
    add_run(runs, "hull", seed=0, weight_decay=1e-2, **{"data.name": "conic_hull", "data.dim": 16})
    page = report(runs)
    assert page.pairs["data.dim"] == "16 (1), not set (6)"
    assert "data.name" in page.header
    assert "data.dim" not in page.header


def test_a_fixed_gamma_is_told_from_a_trained_one(runs):
    add_run(runs, "fixed", seed=0, weight_decay=1e-2, **{"model.gamma": 0.5})
    assert report(runs).column("model.gamma")[:2] == [0.5, None]


def test_seeds_and_versions(runs):
    page = report(runs)
    assert "0 (3), 1 (3)" in page.texts["p"]
    assert {name: page.pairs[name] for name in ("torch", "ncflow")} == {"torch": "2.6.0", "ncflow": "0.1.0"}
    assert "These differ" not in page.texts["body"][0]


def test_different_versions_are_noted(runs):
    add_run(runs, "new", **{"version/torch": "2.7.0", "code/ncflow": "0a1b", "code/mine": "2c"})
    page = report(runs)
    assert page.pairs["torch"] == "2.6.0 (6), 2.7.0 (1)"
    assert page.pairs["mine (code)"] == "2c"
    note = "These differ between the runs, here with the number of runs: torch. The table has them by run."
    assert page.texts["p"][-1] == note
    assert sorted(report(runs).column("version/torch")) == ["2.6.0"] * 6 + ["2.7.0"]


def test_the_command_names_runs_of_other_code_and_machines(runs, capsys):
    same = {"version/trained_with": "alone", "code/ncflow": "0a1b", "version/cpu": "A"}
    for name in ("a", "b", "c", "d"):
        add_run(runs, name, **same)
    assert differences(load_runs(runs)) == []
    add_run(runs, "e", **{**same, "code/ncflow": "0a1b, changed 2c", "version/trained_with": "8 cells as one"})
    add_run(runs, "f", **{**same, "version/cpu": "B"})
    assert differences(load_runs(runs)) == [
        "these runs differ in code/ncflow: 0a1b (5 runs); 0a1b, changed 2c (1 run: e)",
        "these runs differ in version/cpu: A (5 runs); B (1 run: f)",
    ]
    for number in range(9):
        add_run(runs, f"g{number}", **{**same, "version/cpu": f"C{number}"})
    assert differences(load_runs(runs))[1].endswith("; and 6 more")
    main([str(runs), "--html"])
    assert "these runs differ in code/ncflow: 0a1b (14 runs); 0a1b, changed 2c (1 run: e)" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["name", "option", "value", "status", "error", "version", "seed", "title", "figure"])
def test_whatever_is_in_a_folder_is_text(runs, place):
    hostile = {"option": {ATTACK: 1}, "value": {"data.name": ATTACK}, "version": {f"version/{ATTACK}": ATTACK}}
    plain = {"error": {"status": "failed", "error": ATTACK}, "status": {"status": ATTACK}, "seed": {"seed": ATTACK}}
    name = ATTACK.replace("/", "") if place == "name" else "hostile"
    add_run(runs, name, **{**hostile, **plain}.get(place, {}))
    if place == "status":
        write_json(runs / name / "result.json", {"status": ATTACK})
    figures = [Picture(ATTACK, ATTACK, b"", "png", ATTACK)] if place == "figure" else []
    page = report(runs, [verdict(ATTACK, 0.5, 0.5)], figures, ATTACK if place == "title" else "")
    shown = name if place == "name" else ATTACK
    assert shown in page.texts["body"][0] or json.dumps(shown) in json.dumps(page.data)
    assert len(page.texts["script"]) == 2 + vega.is_installed()


def test_half_a_surrogate_pair_and_a_long_error_do_no_harm(runs):
    folder = runs / "odd"
    folder.mkdir()
    (folder / "run.json").write_text('{"status": "failed", "error": "\\ud800 ' + "x" * 10_000 + '"}')
    text = report(runs).column("error")[0]
    assert text.startswith("\ud800 xxx")
    assert len(text) < 600


def test_same_runs_give_the_same_bytes_wherever_they_lie(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "elsewhere" / "copy")
    assert written(tmp_path / "elsewhere" / "copy") == written(runs)
    assert str(tmp_path).encode() not in written(runs)


def test_runs_of_several_sweeps_keep_the_folders_that_tell_them_apart(runs, tmp_path):
    for sweep in ("a", "b"):
        shutil.copytree(runs / "wd0.01-seed0", tmp_path / "both" / sweep / "0")
    assert report(tmp_path / "both").column("run") == ["a/0", "b/0"]
    assert report(tmp_path / "both" / "a").column("run") == ["0"]


def test_failed_runs_alone_make_a_page(tmp_path):
    for name in ("a", "b"):
        write_json(tmp_path / "runs" / name / "run.json", {"status": "failed", "error": f"boom {name}"})
    page = report(tmp_path / "runs", [], [])
    assert page.header == ["run", "status", "seed", "error"]
    assert page.column("error") == ["boom a", "boom b"]
    for said in ("no claim was tested", "no figure", "none recorded", "nothing"):
        assert said in page.texts["body"][0]


def test_a_broken_run_without_config_makes_nothing_vary(runs):
    write_json(runs / "broken" / "run.json", {"status": "failed"})
    assert report(runs).header == ["run", "status", "seed", "weight_decay", "train/loss", "train/intra_min"]


def test_a_large_sweep_stays_a_small_page(runs):
    for index in range(280):
        measures = dict.fromkeys(("train/intra_min", "train/inter_max", "train/nc1", "test/accuracy"), index / 7)
        config = {f"option{number}": index + number / 3 for number in range(10)}
        add_run(runs, f"conic_hull-mlp6-last-wd0.01-seed{index}", seed=index, weight_decay=1e-2, **config, **measures)
    assert len(written(runs)) < 1_000_000  # of which 900,000 are the library of charts


def test_without_the_extra_the_page_says_what_is_missing_and_has_all_else(runs, monkeypatch, capsys):
    whole = report(runs)
    monkeypatch.setattr(vega, "is_installed", lambda: False)
    vega.bundle.cache_clear()
    try:
        page = report(runs)
        main([str(runs), "--html"])
    finally:
        vega.bundle.cache_clear()
    assert len(page.texts["script"]) == 2
    assert page.data == whole.data
    assert "pip install 'ncflow[report]'" in page.texts["code"]
    assert "\nncflow-figures: the report has no charts to explore: pip install" in capsys.readouterr().err


def test_a_run_has_its_command_and_the_end_of_its_log_without_places(runs):
    folder = runs / "wd0.01-seed0"
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text("- seed=0\n- 'data.path=a b; rm -rf /'\n")
    (folder / "ncflow.log").write_text("line\n" * 30 + f"saved in {folder}/x and {Path.home()}/y\n")
    data = report(runs).data
    place = report(runs).column("run").index("wd0.01-seed0")
    assert data["commands"][place] == "ncflow seed=0 'data.path=a b; rm -rf /'"
    assert data["logs"][place] == "line\n" * 19 + "saved in wd0.01-seed0/x and ~/y"
    assert data["commands"][0] is None
    assert data["logs"][0] == ""


def history_of(runs=3, epochs=101, measures=("loss", "intra_min", "cdnv")):
    rows = [(f"r{run}", epoch, split) for run in range(runs) for epoch in range(epochs) for split in ("train", "test")]
    table = pd.DataFrame(rows, columns=["folder", "epoch", "split"]).assign(layer="last")
    return table.assign(**{name: np.linspace(0, 1, len(rows)) / 3 for name in measures})


def test_histories_are_whole_where_there_is_room():
    history = history_of()
    history.loc[[0, 1], "loss"] = np.inf, np.nan
    inner = history.assign(layer="layers.0")
    found = histories.thinned(pd.concat([history, inner]), {"r2": 0, "r0": 1, "r1": 2})
    assert found.note.startswith("Histories here are of the classifier's input, with 6 digits;")
    assert found.epoch == [epoch for _ in range(3) for epoch in range(101) for _ in range(2)]
    assert found.split == ["train", "test"] * 303
    assert found.run == [run for run in range(3) for _ in range(202)]
    assert found.values["loss"][202:204] == ["Infinity", None]
    expected = history[history["folder"] == "r1"]["cdnv"]
    np.testing.assert_allclose(found.values["cdnv"][404:], expected, rtol=1e-5)


def test_many_histories_keep_the_first_and_last_of_their_epochs_and_say_so():
    found = histories.thinned(history_of(), {f"r{run}": run for run in range(3)}, most=3 * 2 * 2 * 11)
    assert found.note.startswith(
        "Histories here are of the classifier's input, with 6 digits, 2 of 3 measures, at most 11 epochs a run;"
    )
    assert found.measures == ["loss", "intra_min"]
    assert found.epoch[::2] == [*range(0, 101, 10)] * 3
    assert {len(values) for values in found.values.values()} == {66}
    some = history_of().drop(columns="cdnv")
    numbers, most = {f"r{run}": run for run in range(3)}, 3 * 2 * 2 * 11
    assert histories.thinned(some, numbers, ["loss", "intra_min", "cdnv"], most) == found


def test_a_picture_turns_dark_by_its_greys_alone():
    svg = b'<svg><title>#ffffff</title><defs></defs><path style="fill: #ffffff; stroke: #0072b2"/><text>a</text></svg>'
    style = dimming(svg).split(b"<style>")[1].split(b"</style>")[0].decode()
    assert style.startswith("@media screen and (prefers-color-scheme: dark){text{fill:#e4e4e4}")
    assert '[style*="fill: #ffffff"]{fill:#16181b!important}' in style
    assert "0072b2" not in style
    assert dimming(svg).replace(f"<style>{style}</style>".encode(), b"") == svg
