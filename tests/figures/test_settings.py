"""What differs between the runs of a figure, other than their seed, is seen in it, or the figure is refused."""

import numpy as np
import pandas as pd
import pytest

from ncflow.checks import ArgumentError
from ncflow.figures.papers.drawing import MOST_PANELS, heading
from ncflow.figures.papers.figures import drawings
from ncflow.figures.varied import bn_series, panel_keys, panels, trained_once
from tests.figures.planted import history_of, runs_of
from tests.figures.test_cbmm_117 import sweep


def flat(norm, decay):
    return {"intra_min": 0.9, "inter_max": -0.1}


@pytest.mark.parametrize("name", ["cbmm_fig2", "cbmm_fig13", "cbmm_fig16"])
def test_two_losses_are_two_figures_and_never_their_mean(name, tmp_path):
    """Batch sizes, too: of each of the four there is a figure, whose heading says which."""
    runs, history = sweep(tmp_path, (1.0,), (0.01,), losses=("exponential", "square_signs"), sizes=(16, None))
    found = list(drawings(runs, history, [name]))
    assert len(found) == 4
    heads = [drawing.content.get_suptitle() for drawing in found]
    assert len(set(heads)) == 4
    assert sum("exponential" in head for head in heads) == 2
    assert all("2 seeds" in head for head in heads)


def test_batch_sizes_are_in_the_order_of_their_numbers_and_the_whole_split_is_last(tmp_path):
    runs, history = sweep(tmp_path, (1.0,), losses=("square",), sizes=(None, 128, 16))
    (drawing,) = drawings(runs, history, ["cbmm_fig6"])
    titles = [axis.get_title() for axis in drawing.content.axes[:3]]
    assert titles == ["batch size = 16", "batch size = 128", "full batches"]
    (drawing,) = drawings(runs[runs["weight_decay"] > 0], history, ["cbmm_exponential_batch_size"])
    labels = [text.get_text() for text in drawing.content.legends[0].get_texts()]
    assert labels == titles


def test_other_data_at_the_same_path_are_other_panels_and_a_moved_file_is_none():
    runs = runs_of(flat, seeds=2, **{"data.name": "arrays", "data.path": "mine.npz"})
    digests = np.where(runs["seed"] == 0, "aaaaaaaaaaaa", "bbbbbbbbbbbb")
    titles = [next(iter(values.values())) for values, _ in panels(runs.assign(**{"data.digest": digests}))]
    assert titles == ["mine.npz (aaaaaa)", "mine.npz (bbbbbb)"]
    moved = runs.assign(**{"data.digest": "aaaaaaaaaaaa", "data.path": [f"{seed}.npz" for seed in runs["seed"]]})
    assert panel_keys(moved) == []
    assert panel_keys(moved.drop(columns="data.digest")) == ["data.path"]  # older runs do not say


def test_what_changes_numbers_is_a_panel_and_what_does_not_is_none():
    runs = runs_of(flat, seeds=2)
    for column in ("trainer.precision", "measure.delta", "optimizer.lr", "data.seed"):
        assert panel_keys(runs.assign(**{column: runs["seed"]})) == [column]
    for column in ("trainer.devices", "data.data_dir", "logger.name", "measure.every_n_epochs", "source/own"):
        assert panel_keys(runs.assign(**{column: runs["seed"]})) == []


def test_bn_that_is_placed_alike_is_told_apart_by_what_it_trains():
    runs = runs_of(flat, seeds=2, **{"model.affine": True})
    assert set(bn_series(runs)) == {"last", "none"}
    both = runs.assign(**{"model.affine": runs["seed"] == 0})
    assert set(bn_series(both)) == {"last, affine True", "last, affine False", "none"}
    (drawing,) = drawings(both, history_of(both, lambda norm, t: {"intra_min": t, "inter_max": -t}), ["fig2"])
    labels = [text.get_text() for text in drawing.content.legends[0].get_texts()]
    assert labels[:3] == ["BN before the classifier, affine False", "BN before the classifier, affine True", "no BN"]


def test_runs_that_were_only_measured_differently_are_one():
    runs = runs_of(flat, seeds=2, **{"measure.margins": None, "figures": None})
    runs["figures"] = [["fig2"]] * len(runs)
    again = runs.assign(folder=runs["folder"] + "again", figures=[["fig7"]] * len(runs), **{"measure.margins": True})
    both = pd.concat([again, runs], ignore_index=True)
    history = history_of(both, lambda norm, t: {"intra_min": t})
    assert sorted(trained_once(both, history, "fig2")["folder"]) == sorted(runs["folder"])
    assert sorted(trained_once(both, history, "fig7")["folder"]) == sorted(again["folder"])
    oftener = pd.concat([history, history[history["folder"].isin(runs["folder"])]])
    assert sorted(trained_once(both, oftener, "gap")["folder"]) == sorted(runs["folder"])
    assert len(trained_once(both.assign(epochs=range(len(both))), history, "fig2")) == len(both)


def test_more_settings_than_anybody_looks_at_are_refused_by_their_options():
    runs = runs_of(flat, seeds=MOST_PANELS + 1)
    history = history_of(runs, lambda norm, t: {"intra_min": t})
    with pytest.raises(ArgumentError) as error:
        list(drawings(runs.assign(**{"optimizer.lr": runs["seed"] / 10}), history, ["fig2"]))
    assert str(error.value) == (
        "the runs must be of at most 24 settings, found 25, which differ in optimizer.lr (0, 0.1, 0.2 and 22 more): "
        "name folders with fewer"
    )


def test_a_heading_says_data_and_seeds_and_that_they_differ():
    runs = runs_of(flat, seeds=3)
    assert heading(runs) == "digits; 3 seeds"
    assert heading(runs[runs["seed"] == 2]) == "digits; seed 2"
    assert heading(runs.iloc[1:], "depth 4", "and more") == "depth 4\ndigits; 2 to 3 seeds; and more"
    assert heading(runs, "digits, depth 4") == "digits, depth 4\n3 seeds"


def test_the_gap_says_what_it_leaves_out(caplog):
    runs = runs_of(flat, seeds=2, **{"model.name": "mine"})
    history = history_of(runs, lambda norm, t: {"intra_min": t})
    assert list(drawings(runs, history, ["gap"])) == []
    assert caplog.messages == ["gap: 20 of 20 runs (mine) are left out: no optimum of them is known"]
