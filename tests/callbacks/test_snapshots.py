"""Kept features, and the picture of figure 1 that is made of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ncflow.callbacks.snapshots import SnapshotFeatures, _rank_in_class
from ncflow.cli.figures import main
from ncflow.figures.plots.geometry import _spread, collapse_in_space, views
from ncflow.results import Snapshot, load_snapshots
from ncflow.theory.simplex import simplex_etf
from tests.conftest import TINY, run_folder

SNAP = [*TINY, "data.num_classes=3", "measure.every_n_epochs=2", "measure.snapshot_samples=5"]


def test_snapshots_are_the_features_of_the_first_samples_and_the_means_of_all(ncflow, tmp_path, config):
    from ncflow.training.assembly import prepare

    done = ncflow(*SNAP)
    assert done.returncode == 0, done.stderr
    folder = run_folder(tmp_path)
    snapshots = load_snapshots(folder)
    assert [snapshot.epoch for snapshot in snapshots] == [0, 2, 4, 6]
    data, classifier = prepare(config(*SNAP))
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    for snapshot, weights in ((snapshots[0], None), (snapshots[-1], state)):
        if weights is not None:
            classifier.load_state_dict(weights)
        network = classifier.network.eval()
        with torch.no_grad():
            H = network.layers(network.flatten(data.train.inputs)).double()
        assert torch.bincount(torch.from_numpy(snapshot.labels)).tolist() == [5, 5, 5]
        means = torch.stack([H[data.train.labels == c].mean(0) for c in range(3)])
        np.testing.assert_allclose(snapshot.means, means, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(snapshot.center, H.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(snapshot.weight, network.classifier.weight.detach())
        for c in range(3):
            first = H[data.train.labels == c][:5]
            np.testing.assert_allclose(snapshot.features[snapshot.labels == c], first, rtol=1e-5, atol=1e-5)


def test_no_file_is_removed_and_what_lies_beyond_the_history_is_not_read(ncflow, tmp_path):
    assert ncflow(*SNAP).returncode == 0
    (folder,) = (file.parent for file in tmp_path.rglob("result.json"))
    epochs = [snapshot.epoch for snapshot in load_snapshots(folder)]
    assert len(epochs) > 2
    last = max((folder / "snapshots").glob("*.npz"))
    later = last.with_name("epoch_99999.npz")
    later.write_bytes(last.read_bytes())
    (last.with_name("mine.npz")).write_bytes(b"a user's own")
    assert [snapshot.epoch for snapshot in load_snapshots(folder)] == epochs
    keep = SnapshotFeatures(folder, 2, 5)
    keep.measure = lambda *_: None
    before = sorted((folder / "snapshots").iterdir())
    for step in (0, 9):
        trainer = SimpleNamespace(global_step=step, current_epoch=1, world_size=1, state=SimpleNamespace(stage=None))
        keep.on_train_start(trainer, None)
    assert sorted((folder / "snapshots").iterdir()) == before
    (folder / "history.csv").unlink()
    assert [snapshot.epoch for snapshot in load_snapshots(folder)] == [*epochs, 99999]


def test_ranks_within_classes():
    labels = torch.tensor([2, 0, 2, 2, 0, 1])
    assert _rank_in_class(labels).tolist() == [0, 0, 1, 2, 1, 0]


def collapsed(spread, seed=0, dim=8):
    """A snapshot of features with a given spread around a randomly turned simplex."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(dim, dim)))[0]
    corners = simplex_etf(3, dim) @ turn
    labels = np.arange(60) % 3
    features = (corners[labels] + spread * rng.normal(size=(60, dim)) + 5).astype(np.float32)
    means = np.stack([features[labels == c].mean(0) for c in range(3)])
    weight = (3 * corners).astype(np.float32)
    return Snapshot(int(1000 * (1 - spread)), features, labels, means, features.mean(0), weight, np.zeros((60, 0)))


def test_projection_keeps_the_geometry_of_collapsed_features():
    *_, last = views([collapsed(0.5), collapsed(1e-6)])
    np.testing.assert_allclose(last.means @ last.means.T, simplex_etf(3) @ simplex_etf(3).T, atol=1e-4)
    np.testing.assert_allclose(last.weights, last.means, atol=1e-4)
    np.testing.assert_allclose(last.simplex, last.means, atol=1e-4)
    np.testing.assert_allclose(last.features, last.means[last.labels], atol=1e-3)


def test_panels_show_the_first_the_last_and_the_way_between():
    assert _spread([1.0, 0.5, 0.1, 0.05, 0.01], 3) == [0, 2, 4]
    assert _spread([1.0, 0.9], 4) == [0, 1]
    figure = collapse_in_space([collapsed(s) for s in (0.3, 0.1, 0.03, 0.01)])
    assert len(figure.axes) == 4


def test_figure_1_and_its_animation_are_drawn_from_a_run(ncflow, tmp_path, capsys):
    assert ncflow(*SNAP, "experiment=pan_cao/fig1_small", "data=conic_hull", "~data.classes").returncode == 0
    main([str(tmp_path / "runs")])
    figures = tmp_path / "runs" / "figures"
    assert {"fig1.png", "fig1_animation.gif"} <= {file.name for file in figures.iterdir()}
    from PIL import Image

    with Image.open(figures / "fig1_animation.gif") as movie:
        assert movie.n_frames >= 3


@pytest.mark.parametrize("value", ["0", "-1"])
def test_bad_numbers_of_samples_are_refused(ncflow, value):
    done = ncflow(*TINY, f"measure.snapshot_samples={value}")
    assert done.returncode == 2
    assert done.stderr.strip() == f"ncflow: error: measure.snapshot_samples must be null or at least 1, found {value}"
