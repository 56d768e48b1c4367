import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ncflow.checks import ArgumentError
from ncflow.data import arrays, memory
from ncflow.data.arrays import Arrays
from ncflow.data.batches import Batches, Split, batch_bounds
from ncflow.data.labels import randomize_labels
from ncflow.data.synthetic import ConicHull, SampleIndex, TeacherMLP
from ncflow.data.vision import Digits
from ncflow.models.mlp import MLP


def ready(data):
    data.setup()
    return data


@pytest.mark.parametrize(("classes", "dim"), [(2, 1), (2, 5), (3, 4), (4, 16), (5, 3), (7, 10), (8, 3), (10, 16)])
def test_hyperplane_labels_equal_a_direct_computation(classes, dim):
    data = ready(ConicHull(num_classes=classes, dim=dim, num_samples=400, num_test=100, seed=3))
    normals = data.normals().numpy()
    planes = int(np.ceil(np.log2(classes)))
    assert normals.shape == (planes, dim)
    for split in (data.train, data.test):
        for x, label in zip(split.inputs.numpy(), split.labels.tolist(), strict=True):
            pattern = sum(2**j for j in range(planes) if float(np.float32(normals[j] @ x)) > 0)
            if pattern >= classes:
                pattern -= 2 ** (planes - 1)
            assert label == pattern
    assert data.input_shape == (dim,)
    assert len(data.train.labels) == 400
    assert len(data.test.labels) == 100


def test_merged_classes_stay_convex_cones():
    data = ready(ConicHull(num_classes=5, dim=6, num_samples=3000, num_test=0, seed=0))
    for label in range(5):
        points = data.train.inputs[data.train.labels == label]
        mixed = points[torch.randperm(len(points))] * torch.rand(len(points), 1) + points
        assert (data.label(mixed) == label).all()


def test_balance_and_absent_classes_are_reported(caplog):
    with caplog.at_level("DEBUG"):
        ready(ConicHull(num_classes=4, dim=1, num_samples=50, num_test=0))
    assert "shares of the classes in training" in caplog.text
    assert "no training sample of class" in caplog.text


def test_teacher_labels_equal_a_direct_computation():
    data = ready(TeacherMLP(dim=5, teacher_depth=3, teacher_width=20, num_samples=200, num_test=0, seed=2))
    first, second, last = (weight.numpy() for weight in data.weights())
    for x, label in zip(data.train.inputs.numpy(), data.train.labels.tolist(), strict=True):
        hidden = np.maximum(second @ np.maximum(first @ x, 0), 0)
        assert label == int(np.argmax(last @ hidden))


def test_teacher_with_an_empty_class_is_refused():
    with pytest.raises(ArgumentError, match=r"seed must be .*every class.*samples of each class here.*found 0"):
        ready(TeacherMLP(num_classes=10, dim=2, teacher_width=1, num_samples=50, num_test=0))


@pytest.mark.parametrize(("width", "smallest"), [(200, [538, 609, 1453, 340, 598]), (300, [400, 368, 3, 419, 11])])
def test_the_labeller_of_the_thesis_is_narrower_than_the_model_for_the_sake_of_the_smallest_class(width, smallest):
    """What ``conf/experiment/pan_thesis/fig3_1.yaml`` says of seeds 0..4."""
    recipe = {"teacher_depth": 3, "num_samples": 10_000, "num_test": 0}
    splits = [ready(TeacherMLP(teacher_width=width, seed=seed, **recipe)).train for seed in range(5)]
    found = [int(torch.bincount(split.labels).min()) for split in splits]
    assert found == pytest.approx(smallest, abs=1)  # a tie may fall otherwise on another CPU


def test_teacher_must_be_smaller_than_the_model():
    data = ready(TeacherMLP(num_samples=500, num_test=0))
    data.check_network(MLP((16,), 4, depth=4, width=300))
    with pytest.raises(ArgumentError, match=r"teacher_depth must be less than .* 3, found 3"):
        data.check_network(MLP((16,), 4, depth=3, width=300))
    with pytest.raises(ArgumentError, match="teacher_width must be small enough"):
        data.check_network(MLP((16,), 4, depth=4, width=8))


def test_digits_are_the_bundled_images():
    data = ready(Digits(test_fraction=0.0))
    bundle = load_digits()
    assert torch.equal(data.train.inputs[:, 0], torch.tensor(bundle.images / 16, dtype=torch.float32))
    assert data.train.labels.tolist() == bundle.target.tolist()


def test_digits_subset_size_and_stratified_split():
    data = ready(Digits(classes=[7, 1], size=32, seed=4))
    assert data.input_shape == (1, 32, 32)
    assert data.num_classes == 2
    counts = [torch.bincount(split.labels).tolist() for split in (data.train, data.test)]
    assert [sum(pair) for pair in zip(*counts, strict=True)] == [179, 182]  # sevens, ones
    assert abs(counts[1][0] / sum(counts[1]) - 179 / 361) < 0.01


@pytest.mark.parametrize("classes", [1, 11, [3], [3, 3], [0, 10], [-1, 2]])
def test_classes_that_do_not_exist_are_refused(classes):
    with pytest.raises(ArgumentError, match="classes must be"):
        Digits(classes=classes)


def test_split_and_subset_depend_on_the_seed_alone():
    one, same, other = (ready(Digits(num_samples=500, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one.train.inputs, same.train.inputs)
    assert not torch.equal(one.train.inputs, other.train.inputs)
    assert len(one.train.labels) == 500


def test_too_many_samples_are_refused():
    with pytest.raises(ArgumentError, match=r"num_samples must be at most 1437, .* found 5000"):
        ready(Digits(num_samples=5000))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_random_labels_touch_exactly_their_share_and_are_uniform(share):
    labels = torch.full((20000,), -1)
    corrupted = randomize_labels(labels, share, num_classes=4, seed=7)
    drawn = corrupted[corrupted >= 0]
    assert len(drawn) == round(share * 20000)
    if share > 0:
        assert (torch.bincount(drawn, minlength=4) / len(drawn) - 0.25).abs().max() < 0.02
    assert torch.equal(corrupted, randomize_labels(labels, share, num_classes=4, seed=7))


def test_random_labels_leave_inputs_and_test_split_alone():
    clean, noisy = (ready(ConicHull(num_samples=300, num_test=100, random_labels=share)) for share in (0.0, 0.5))
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    assert torch.equal(clean.test.labels, noisy.test.labels)
    assert 80 < int((clean.train.labels != noisy.train.labels).sum()) < 140  # 150 drawn, a quarter unchanged


@pytest.mark.parametrize(
    ("count", "size", "bounds"),
    [
        (10, 4, [(0, 4), (4, 8), (8, 10)]),
        (9, 4, [(0, 4), (4, 9)]),  # a batch of one, which BN cannot train on, joins its neighbour
        (1, 4, [(0, 1)]),
        (7, None, [(0, 7)]),
        (3, 1, [(0, 1), (1, 3)]),
    ],
)
def test_batches_cover_every_sample_once(count, size, bounds):
    assert batch_bounds(count, size) == bounds
    split = Split(torch.arange(float(count))[:, None], torch.arange(count))
    order = torch.randperm(count)
    batches = list(Batches(split, size, order=lambda: order))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), order)
    assert len(Batches(split, size)) == len(bounds)


def test_measuring_order_is_fixed():
    data = ready(ConicHull(num_samples=50, num_test=20))
    for name, loader in data.measure_dataloaders(7).items():
        assert torch.equal(torch.cat([b.labels for b in loader]), getattr(data, name).labels)


# --- arrays -----------------------------------------------------------------------------------------------------


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_arrays_are_read_as_they_are(tmp_path):
    X = np.random.default_rng(0).integers(0, 255, (40, 3, 2), dtype=np.uint8)
    y = np.arange(40) % 4
    data = ready(Arrays(path=save(tmp_path / "a.npz", X=X, y=y), test_fraction=0.25))
    assert data.num_classes == 4
    assert data.input_shape == (3, 2)
    both = torch.cat([data.train.inputs, data.test.inputs])
    assert sorted(both.flatten(1).tolist()) == sorted(X.reshape(40, -1).astype(float).tolist())
    assert torch.bincount(data.test.labels).tolist() in ([2, 3, 3, 2], [3, 2, 2, 3]) or len(data.test.labels) == 10


def test_arrays_with_their_own_test_split(tmp_path):
    X, y = np.zeros((6, 2)), np.array([0, 1, 2, 0, 1, 2])
    path = save(tmp_path / "a.npz", X=X, y=y, X_test=np.ones((2, 2)), y_test=np.array([0, 3]))
    data = ready(Arrays(path=path))
    assert len(data.train.labels) == 6
    assert data.test.labels.tolist() == [0, 3]
    assert data.num_classes == 4


class Hostile:
    def __reduce__(self):
        return (open, ("pwned", "w"))


BAD = {
    "no y": dict(X=np.zeros((3, 2))),
    "float labels": dict(X=np.zeros((3, 2)), y=np.zeros(3)),
    "short y": dict(X=np.zeros((3, 2)), y=np.zeros(2, int)),
    "flat X": dict(X=np.zeros(3), y=np.array([0, 1, 0])),
    "negative": dict(X=np.zeros((3, 2)), y=np.array([0, -1, 1])),
    "text": dict(X=np.array([["a"], ["b"]]), y=np.array([0, 1])),
    "nan": dict(X=np.array([[np.nan], [0]]), y=np.array([0, 1])),
    "one class": dict(X=np.zeros((4, 2)), y=np.zeros(4, int)),
    "shapes": dict(X=np.zeros((4, 2)), y=np.array([0, 1, 0, 1]), X_test=np.zeros((4, 3)), y_test=np.zeros(4, int)),
    "pickle": dict(X=np.array([Hostile(), Hostile()], dtype=object), y=np.array([0, 1])),
    "empty": dict(X=np.zeros((0, 2)), y=np.zeros(0, int)),
    "single member": dict(X=np.zeros((3, 2)), y=np.array([0, 0, 1])),
}


@pytest.mark.parametrize("case", BAD)
def test_unusable_arrays_are_refused(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "bad.npz", allow_pickle=True, **BAD[case])
    with pytest.raises(ArgumentError, match=r"(path|test_fraction) must be"):
        ready(Arrays(path=str(tmp_path / "bad.npz")))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (dict(X=np.zeros((6, 2)), y=np.arange(6) % 3 + 1), "a file whose labels in y are 0..C-1, found '1..3'"),
        ("a,b\n1,2\n", "an .npz file with X and y, as numpy.savez writes it, not a text file, found '"),
        ("\u00e9" * 600, "an .npz file with X and y, as numpy.savez writes it, not a text file, found '"),
    ],
    ids=["labels from 1", "csv", "utf-8"],
)
def test_what_is_wrong_with_a_file_of_arrays_is_said(content, rule, tmp_path):
    path = tmp_path / "mine.npz"
    path.write_text(content) if isinstance(content, str) else np.savez(path, **content)
    with pytest.raises(ArgumentError) as error:
        ready(Arrays(path=str(path)))
    assert str(error.value).startswith(f"path must be {rule}")


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps(Hostile()), None])
def test_files_that_are_no_archive_are_refused(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.npz"
    if content is None:  # a truncated archive
        buffer = io.BytesIO()
        np.savez(buffer, X=np.zeros((100, 10)), y=np.zeros(100, int))
        content = buffer.getvalue()[:600]
    path.write_bytes(content)
    with pytest.raises(ArgumentError, match=r"path must be .*bad\.npz"):
        ready(Arrays(path=str(path)))
    assert not (tmp_path / "pwned").exists()


def test_a_missing_file_is_refused():
    with pytest.raises(ArgumentError, match=r"path must be an existing .npz file, found '/no/such.npz'"):
        Arrays(path="/no/such.npz")


# --- claims of a file that no memory could hold -----------------------------------------------------------------


def archive(path, X=b"", shape=(300, 4), dtype="<f8", y=None, header=None):
    """An .npz file whose X is a header of any claim and any content."""
    described = header or repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    entry = io.BytesIO()
    np.lib.format.write_array(entry, np.arange(300) % 3 if y is None else y)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("X.npy", b"\x93NUMPY\2\0" + len(described).to_bytes(4, "little") + described + X)
        file.writestr("y.npy", entry.getvalue())
    return str(path)


def refusal_of(path):
    with pytest.raises(ArgumentError) as error:
        ready(Arrays(path=path))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_decompression_bomb_is_refused_by_its_size_before_it_is_read(tmp_path, monkeypatch):
    path = archive(tmp_path / "bomb.npz", bytes(300 * 4000 * 8), shape=(300, 4000))
    assert os.path.getsize(path) < 20_000
    assert ready(Arrays(path=path)).input_shape == (4000,)
    monkeypatch.setattr(arrays, "free_memory", lambda: 18 * 2**20)  # the inputs take 9.2 MiB, and that again in float32
    monkeypatch.setattr(arrays, "read_arrays", lambda *_: pytest.fail("it was read"))
    assert "fits into memory, of which 18 MiB are free (18.3 MiB are needed)" in refusal_of(path)


CLAIMS = {
    "more than it has": (dict(shape=(2**40, 2**10)), "takes 9007199254740992 bytes, and has 9600"),
    "less than it has": (dict(shape=(300, 3)), "takes 7200 bytes, and has 9600"),
    "a header of a gigabyte": (dict(header=b" " * 2**20), "has a header of 1048576 bytes"),
    "objects": (dict(dtype="|O"), "has objects, and to read them would run code"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_headers_that_claim_something_else_than_the_file_has_are_refused(case, tmp_path):
    claim, reason = CLAIMS[case]
    path = archive(tmp_path / "bad.npz", bytes(300 * 4 * 8), **claim)
    found = refusal_of(path)
    assert found.startswith("path must be a readable .npz file of plain arrays (X ")
    assert reason in found


def test_a_label_of_two_million_in_three_hundred_samples_is_refused(tmp_path, refusal):
    labels = np.arange(300) % 3
    labels[7] = 2_000_000
    path = save(tmp_path / "a.npz", X=np.zeros((300, 2)), y=labels)
    message = "path must be a file whose y has labels less than 300, the number of samples in y, found 'label 2000000'"
    assert refusal_of(path) == message
    assert refusal("data=arrays", f"data.path={path}", "model.width=16") == f"data.{message}"


@pytest.mark.parametrize(("name", "label"), [("y", 2**63), ("y_test", 300), ("y_test", 2**64 - 1)])
def test_labels_without_end_are_refused_in_both_splits(name, label, tmp_path):
    both = {"X": np.zeros((300, 2)), "y": np.arange(300, dtype=np.uint64) % 3}
    both |= {"X_test": np.zeros((30, 2)), "y_test": np.arange(30, dtype=np.uint64) % 3}
    both[name][0] = label
    assert f"a file whose {name} has labels less than 300" in refusal_of(save(tmp_path / "a.npz", **both))
    both[name][0] = 299  # allowed: there are as many samples as classes
    assert ready(Arrays(path=save(tmp_path / "a.npz", **both))).num_classes == 300


def test_labels_are_fewer_than_the_training_samples_that_are_left(tmp_path):
    labels = np.repeat(np.arange(0, 8, 2), 2)  # 8 samples, 6 of them for training; the largest label is 6
    path = save(tmp_path / "a.npz", X=np.zeros((8, 2)), y=labels)
    assert ready(Arrays(path=path, test_fraction=0)).num_classes == 7
    with pytest.raises(ArgumentError, match="less than 4, the number of training samples, found 'label 6'"):
        ready(Arrays(path=path, test_fraction=0.5))


def test_synthetic_data_larger_than_the_memory_are_refused():
    for options, argument in [({"num_samples": 10**12}, "num_samples"), ({"dim": 10**12}, "dim")]:
        with pytest.raises(ArgumentError, match=rf"{argument} must be small enough for memory, .* found 1000000000000"):
            ready(ConicHull(**options))
    with pytest.raises(ArgumentError, match="num_classes must be at most num_samples, 8000, found 1000000000"):
        ConicHull(num_classes=10**9)
    with pytest.raises(ArgumentError, match="teacher_width must be small enough for memory"):
        ready(TeacherMLP(teacher_width=10**8))
    with pytest.raises(ArgumentError, match="num_samples must be small enough for memory"):
        ready(SampleIndex(num_samples=4 * 10**12))


def test_free_memory_is_what_the_machine_has_or_the_group_has_left(tmp_path, monkeypatch):
    machine = memory.free_memory()
    assert 2**20 < machine <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    for name, content in [("max", "5000000"), ("current", "4000000"), ("stat", "anon 3\ninactive_file 500000")]:
        (tmp_path / f"memory.{name}").write_text(content)
    assert memory.free_memory() == 1_500_000
    (tmp_path / "memory.max").write_text("max")
    assert memory.free_memory() > 2**20
