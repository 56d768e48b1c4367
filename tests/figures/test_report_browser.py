"""The page as a reader uses it: in a headless Chromium, with nothing but what the page brings."""

import csv
import io
import itertools
import re
import shutil
from threading import Thread

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ncflow.figures import style
from ncflow.figures.files import render
from ncflow.figures.report import vega
from ncflow.figures.report.page import page_of
from ncflow.figures.report.pictures import Picture
from ncflow.figures.report.serve import PageServer
from ncflow.results import load_history, load_runs
from tests.figures.test_report import VERDICTS, add_run

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"),
    pytest.mark.skipif(not vega.is_installed(), reason=f"needs the charts of the report ({vega.HOW_TO_GET_IT})"),
]
NORMS, DECAYS, SEEDS = ("last", "none"), (1e-4, 1e-3), (0, 1, 2)
HOSTILE = "<script>window.hacked = 1<script>"
READY = "html[data-ready]"
POINTS = "#chart .mark-symbol.layer_2_marks path, #chart .mark-symbol.child_layer_2_marks path"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """12 finished runs of 2 norms, 2 weight decays and 3 seeds, one of a hostile name, and one that failed."""
    root = tmp_path_factory.mktemp("runs")
    draws = np.random.default_rng(0)
    for norm, decay, seed in itertools.product(NORMS, DECAYS, SEEDS):
        name = HOSTILE if (norm, decay, seed) == ("none", 1e-3, 2) else f"{norm}-{decay:g}-{seed}"
        values = {f"train/{measure}": draws.random() for measure in ("intra_min", "inter_max", "loss")}
        add_run(
            root,
            name,
            seed=seed,
            weight_decay=decay,
            seconds=60.0,
            **{"model.norm": norm, "code/ncflow": "0a1b", **values},
        )
        rows = [
            f"{epoch},{split},last,{draws.random()!r},{draws.random()!r}"
            for epoch in (0, 5, 10)
            for split in ("train", "test")
        ]
        (root / name / "history.csv").write_text("\n".join(["epoch,split,layer,loss,intra_min", *rows]) + "\n")
        (root / name / ".hydra").mkdir()
        (root / name / ".hydra" / "overrides.yaml").write_text(f"- seed={seed}\n- 'experiment=a b'\n")
        (root / name / "ncflow.log").write_text(f"the log of {name}\n")
    add_run(root, "broken", "failed", seed=3, weight_decay=1e-3, error=f"boom {HOSTILE}", **{"model.norm": "none"})
    return root


@pytest.fixture(scope="module")
def content(runs):
    """The page's bytes, or those of a live one that bears a version."""
    style.use()
    figure, axes = plt.subplots()
    axes.plot([0, 1], color="#0072B2")
    pictures = [Picture("fig", "A line.", render(figure, "svg"), "svg", "a line")]

    def content(live=None):
        return page_of(load_runs(runs), load_history(runs), VERDICTS, pictures, "A sweep", "2020-01-01", live)

    return content


@pytest.fixture(scope="module")
def address(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(content())
    return path.as_uri()


@pytest.fixture
def visit(browser):
    """Open a page; at the end nothing may have gone wrong in it, and nothing been asked of another place."""
    contexts, wrong, asked = [], [], []

    def visit(address, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector(READY, state="attached")
        return page

    visit.asked = asked
    yield visit
    hacked = [page.evaluate("window.hacked") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert wrong == []
    assert not any(hacked)


def rows(page):
    return page.locator("#table tbody th").all_inner_texts()


def shows(page, selector, count):
    """Wait until the page has so many of something; its policy lets no other kind of waiting run in it."""
    sync_api.expect(page.locator(selector)).to_have_count(count)


def labels_of(page, selector):
    """What marks say of themselves."""
    return [mark.get_attribute("aria-label") or "" for mark in page.locator(selector).all()]


def downloaded(page, name):
    with page.expect_download() as found:
        page.click(f"#downloads button[name={name}]")
    return found.value.path().read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_asks_for_nothing_by_day_and_in_the_dark(visit, address, width, scheme):
    page = visit(f"{address}#run=last-0.0001-0", width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#chart svg").bounding_box()["width"] <= width
    assert page.locator("#trajectories svg").bounding_box()["width"] <= width
    assert {request for request in visit.asked if not request.startswith("data:")} == {address}
    picture = Image.open(io.BytesIO(page.locator("figure img").screenshot())).convert("L")
    corner, darkest, lightest = picture.getpixel((3, 3)), *picture.getextrema()
    assert (corner > 250, corner < 40) == (scheme == "light", scheme == "dark")
    assert darkest < 60 < 200 < lightest
    body = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert body == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 27)")


def test_the_head_says_when_on_what_and_how_long(visit, address):
    page = visit(address)
    facts = page.locator(".facts").inner_text()
    for said in ("2020-01-01", "0a1b", "0.2 hours of training, of the 12 runs that recorded it"):
        assert said in facts
    assert page.locator("cite").first.inner_text() == "Paper A, section 1"


def test_filters_filter_the_chart_the_table_and_a_link_to_the_page(visit, address):
    page = visit(address)
    assert page.locator(POINTS).count() == 12
    assert page.locator("#drawn").inner_text() == "12 of 13 runs are drawn; 1 did not finish."
    page.click("#filter summary:has-text('model.norm')")
    page.check("#filter label:has-text('last') input")
    assert page.locator("#filter output").inner_text() == "6 of 13 runs"
    assert sorted(rows(page)) == sorted(f"last-{decay:g}-{seed}" for decay in DECAYS for seed in SEEDS)
    shows(page, POINTS, 6)
    page.fill("#filter input[type=search]", "last-0.001")
    shows(page, "#table tbody tr", 3)
    again = visit(page.url)
    assert rows(again) == rows(page)
    assert again.locator("#filter input[type=search]").input_value() == "last-0.001"
    again.click("button[name=reset]")
    assert len(rows(again)) == 13


def test_a_point_names_its_run_and_leads_to_all_that_is_known_of_it(visit, address, runs):
    page = visit(address)
    labels = labels_of(page, POINTS)
    place = next(place for place, label in enumerate(labels) if HOSTILE in label)
    page.locator(POINTS).nth(place).hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert HOSTILE in page.locator("#vg-tooltip-element").inner_text()
    page.locator(POINTS).nth(place).click(force=True)
    fold = page.locator("details.run")
    fold.wait_for()
    told = fold.inner_text()
    assert fold.locator("summary").first.inner_text() == HOSTILE
    assert fold.locator(".command").inner_text() == "ncflow seed=2 'experiment=a b'"
    assert f"the log of {HOSTILE}" in told
    options = [
        line.split("\t") for line in told.splitlines() if line.startswith(("seed\t", "weight_decay\t", "model.norm\t"))
    ]
    assert [(name, mine) for name, mine, _ in options] == [
        ("seed", "2"),
        ("weight_decay", "0.001"),
        ("model.norm", "none"),
    ]
    shows(page, "#trajectories .mark-line path", 2)
    labels = labels_of(page, "#trajectories .mark-symbol path")
    history = load_history(runs / HOSTILE)
    assert len([label for label in labels if "split: test" in label]) == len(history) / 2
    assert page.locator("#chosen .said").inner_text() == "Training is solid, test dashed."
    page.click("details.run button:has-text('choose all its seeds')")
    assert page.locator("details.run").count() == 4  # one of them failed
    shows(page, "#trajectories .mark-line path", 6)
    page.locator("details.run").last.locator("td button", has_text="last").click()
    assert re.fullmatch(r"last-0\.001-\d", page.locator("details.run summary").first.inner_text())


def test_downloads_have_the_right_numbers(visit, address, runs):
    page, table = visit(address), load_runs(runs)
    name = table["folder"].map(lambda folder: folder.rpartition("/")[2])
    got = pd.read_csv(io.StringIO(downloaded(page, "runs"))).set_index("run")
    assert set(got.index) == set(name)
    for column in ("train/intra_min", "weight_decay", "seed", "epochs", "status", "error"):
        expected = table.set_index(name)[column].reindex(got.index)
        assert got[column].fillna("none").tolist() == expected.fillna("none").tolist()

    history = load_history(runs)
    got = pd.read_csv(io.StringIO(downloaded(page, "history")))
    assert len(got) == len(history)
    key = ["run_id", "epoch", "split"]
    pd.testing.assert_frame_equal(
        got.set_index(key)[["loss", "intra_min"]].sort_index(),
        history.set_index(key)[["loss", "intra_min"]].sort_index(),
        rtol=1e-5,
    )

    done = table[table["status"] == "done"].groupby(["weight_decay", "model.norm"])["train/intra_min"]
    got = pd.read_csv(io.StringIO(downloaded(page, "table"))).set_index(["weight_decay", "model.norm"]).sort_index()
    np.testing.assert_allclose(got["train/intra_min"], done.mean(), rtol=1e-12)
    np.testing.assert_allclose(got["train/intra_min sd"], done.std(), rtol=1e-12)
    assert got["runs"].tolist() == got["train/intra_min n"].tolist() == [3] * 4

    latex = downloaded(page, "latex")
    mean, sd = done.mean()[1e-4, "last"], done.std()[1e-4, "last"]
    digits = 1 - int(np.floor(np.log10(sd)))
    assert f"${mean:.{digits}f} \\pm {sd:.{digits}f}$" in latex
    assert "weight\\_decay" in latex
    page.fill("#filter input[type=search]", "last-0.001")
    shows(page, "#table tbody tr", 3)
    assert len(list(csv.reader(io.StringIO(downloaded(page, "runs"))))) == 4


def test_axes_are_of_any_column_and_bands_are_mean_and_deviation_over_seeds(visit, address, runs):
    page = visit(address)
    shows(page, "#chart .mark-area path", 2)
    labels = labels_of(page, "#chart .mark-symbol path")
    means = load_runs(runs).groupby(["weight_decay", "model.norm"])["train/intra_min"]
    for mean, sd in zip(means.mean(), means.std(), strict=True):
        (label,) = (one for one in labels if f"train/intra_min: {mean:.12g};" in one)
        assert f"mean of runs: 3; standard deviation: {sd:.5g};" in label
    page.select_option("[name=x]", "train/loss")
    shows(page, "#chart .mark-area path", 0)
    page.select_option("[name=panel]", "weight_decay")
    shows(page, "#chart .role-scope.cell > g", 2)
    page.select_option("[name=x]", "weight_decay")
    page.select_option("[name=colour]", "")
    page.locator(
        "#drawn:has-text('Lines of one colour differ in model.norm: nothing but seeds is averaged.')"
    ).wait_for()


def test_over_epochs_a_line_is_the_mean_of_seeds_with_its_deviation_or_a_run(visit, address, runs):
    page = visit(f"{address}#x=epoch")
    shows(page, "#chart .mark-line path", 4)
    shows(page, "#chart .mark-area path", 4)
    config = load_runs(runs)[["folder", "model.norm", "weight_decay"]]
    history = load_history(runs).merge(config, on="folder")
    train = history[history["split"] == "train"].groupby(["model.norm", "weight_decay", "epoch"])["intra_min"]
    labels = [one for one in labels_of(page, "#chart .mark-symbol path") if "mean of runs: 3" in one]
    assert len(labels) == train.ngroups == 12
    for (norm, _, epoch), mean in train.mean().items():
        (label,) = (one for one in labels if f"train/intra_min: {mean:.5g}"[:22] in one)
        assert label.startswith(f"epoch: {epoch};")
        assert f"model.norm {norm}" in label
        sd = train.std()[train.mean() == mean].item()
        assert float(re.search("standard deviation: ([^;]+);", label)[1]) == pytest.approx(sd, rel=1e-4)
    differ = "lines of one colour differ in weight_decay, as nothing but seeds is averaged"
    drawn = f"The histories of 12 of 13 runs are drawn; 1 did not finish; {differ}."
    assert page.locator("#drawn").inner_text() == drawn
    page.uncheck("[name=bands]")
    shows(page, "#chart .mark-line path", 12)
    shows(page, "#chart .mark-area path", 0)
    page.locator("#chart .mark-symbol path").first.click(force=True)
    page.locator("details.run").wait_for()
    page.click("#filter summary:has-text('model.norm')")
    page.check("#filter label:has-text('last') input")
    shows(page, "#chart .mark-line path", 6)
    page.select_option("[name=panel]", "weight_decay")
    shows(page, "#chart .role-scope.cell > g", 2)
    page.select_option("[name=y]", "seconds")
    page.locator("#drawn:has-text('The histories in this page do not have seconds.')").wait_for()
    shows(page, "#chart svg", 0)


def test_the_table_sorts_missing_last_and_shows_its_first_rows(visit, tmp_path):
    count = 300
    table = pd.DataFrame(
        {
            "folder": [f"/nowhere/r{number}" for number in range(count)],
            "status": "done",
            "seed": range(count),
            "weight_decay": [[1e-3, 1e-4][number % 2] for number in range(count)],
            "train/loss": [None if number == 7 else (number * 7919) % 1000 for number in range(count)],
        }
    )
    path = tmp_path / "report.html"
    empty = pd.DataFrame(columns=["epoch", "split", "layer", "folder"])
    path.write_bytes(page_of(table, empty, [], [], "many", "2020-01-01"))
    page = visit(path.as_uri())
    assert len(rows(page)) == 200
    assert page.locator("#part").inner_text() == "the first 200 of 300 are shown"
    page.click("button[name=more]")
    assert len(rows(page)) == count
    order = table.dropna().sort_values("train/loss", kind="stable")["folder"].str.rpartition("/")[2].tolist()
    page.click("#table th button:has-text('loss')")
    assert rows(page) == [*order, "r7"]
    page.click("#table th button:has-text('loss')")
    assert rows(page)[0] == order[-1]
    assert rows(page)[-1] == "r7"
    assert page.locator("#table th[aria-sort=descending]").inner_text().startswith("train/")


def test_a_live_page_loads_new_results_and_keeps_what_the_reader_chose(visit, content):
    with PageServer(0) as server:
        server.show("1", content("1"))
        Thread(target=server.serve_forever, daemon=True).start()
        page = visit(f"{server.address}#is:model.norm=last&y=train/loss")
        page.clock.install()
        page.reload()
        page.wait_for_selector(READY, state="attached")
        page.locator("#table tbody th button").first.click()
        server.show("2", content("2"))
        with page.expect_navigation():
            page.clock.fast_forward(6000)
        page.wait_for_selector("html[data-live='2'][data-ready]", state="attached")
        assert len(rows(page)) == 6
        assert page.locator("[name=y]").input_value() == "train/loss"
        assert page.locator("details.run").count() == 1
        page.uncheck("[name=follow]")
        server.show("3", content("3"))
        page.clock.fast_forward(6000)
        page.locator("#live output:has-text('there are newer results')").wait_for()
        assert {request.split("#")[0] for request in visit.asked if not request.startswith("data:")} == {
            server.address,
            f"{server.address}version",
        }
        server.shutdown()
