"""Small files of the real formats through torchvision's classes and our reader: pixels, choices, refusals."""

import builtins
import gzip
import hashlib
import os
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning import Trainer
from scipy.io import loadmat, savemat

import ncflow.data.base
from ncflow.callbacks import NeuralCollapseCallback
from ncflow.checks import ArgumentError
from ncflow.data import safe_pickle
from ncflow.data.batches import Batches, Split
from ncflow.data.imagenet32 import TRAIN_FILES, ImageNet32
from ncflow.data.torchvision_sets import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST
from ncflow.seeding import epoch_order
from ncflow.training.assembly import prepare
from tests.image_files import (
    expect_sums,
    expect_svhn_sums,
    python2,
    write_cifar,
    write_imagenet32,
    write_mnist,
    write_svhn,
)

KINDS = ("mnist", "fashion_mnist", "svhn", "cifar10", "cifar100", "imagenet32")
CLASSES = {
    "mnist": partial(MNIST, classes=10, mean=0.0, std=1.0),
    "fashion_mnist": partial(FashionMNIST, classes=10, mean=0.286, std=0.353),
    "svhn": partial(SVHN, classes=10, mean=0.5, std=0.5),
    "cifar10": partial(CIFAR10, classes=10, mean=0.5, std=0.5),
    "cifar100": partial(CIFAR100, classes=100, mean=0.5, std=0.5),
    "imagenet32": partial(ImageNet32, num_samples=None),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write the files of a kind; return what makes the data set from its options, and what was written."""

    def write(kind):
        root = tmp_path / "data"
        if kind.startswith("cifar"):
            written = write_cifar(root, monkeypatch, int(kind.removeprefix("cifar")))
        else:
            writers = {
                "mnist": write_mnist,
                "fashion_mnist": partial(write_mnist, name="FashionMNIST"),
                "svhn": partial(write_svhn, monkeypatch=monkeypatch),
                "imagenet32": write_imagenet32,
            }
            written = writers[kind](root)
        return partial(CLASSES[kind], data_dir=str(root)), written

    return write


def ready(data):
    data.setup()
    return data


def whole(loader):
    """All of a loader's batches as one."""
    return Split(*(torch.cat(tensors) for tensors in zip(*loader, strict=True)))


def formula(images, mean, std):
    """Pixels (N, channels, 32, 32) one by one in float64; what is smaller lies in the middle of zeros."""
    edge = (32 - images.shape[-1]) // 2
    padded = np.zeros((*images.shape[:2], 32, 32))
    padded[:, :, edge : 32 - edge, edge : 32 - edge] = images
    return torch.from_numpy((padded / 255 - mean) / std)


def assert_equal(found, expected):
    assert found.dtype == torch.float32
    # A pixel's step is 0.004 at least: 1e-6 tells any two values apart.
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=0)


# --- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.5), (0.1, 0.3)])
def test_measured_batches_are_the_files_in_order_by_the_formula(kind, mean, std, files):
    make, written = files(kind)
    data = ready(make(mean=mean, std=std))
    assert data.train.inputs.dtype == data.test.inputs.dtype == torch.uint8
    assert data.input_shape == (1 if "mnist" in kind else 3, 32, 32)
    for name, loader in data.measure_dataloaders(batch_size=7).items():
        images, labels = written[name]
        found = whole(loader)
        assert found.inputs.shape[1:] == data.input_shape
        assert_equal(found.inputs, formula(images, mean, std))
        assert found.labels.tolist() == labels.tolist()


def test_mnist_is_padded_before_it_is_normalised(files):
    make, written = files("mnist")
    found = whole(ready(make(mean=0.25, std=0.5)).measure_dataloaders()["train"]).inputs
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[2:30, 2:30] = True
    assert (found[..., ~inside] == -0.5).all()
    assert_equal(found[..., 2:30, 2:30], torch.from_numpy((written["train"][0] / 255 - 0.25) / 0.5))


def test_the_digit_0_of_svhn_is_class_0_and_an_unknown_label_is_refused(complaint, files, tmp_path, monkeypatch):
    make, written = files("svhn")
    root = tmp_path / "data"
    assert 10 in loadmat(root / "test_32x32.mat")["y"]
    labels = ready(make(classes=[0, 3])).test.labels
    assert labels.bincount().tolist() == [(written["test"][1] == digit).sum() for digit in (0, 3)]
    content = {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.array([[1], [2], [3], [11]], np.uint8)}
    savemat(root / "test_32x32.mat", content)
    expect_svhn_sums(root, monkeypatch)
    assert "test files of SVHN have labels 0..9" in complaint("svhn")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [4, [7, 2, 5]])
def test_classes_are_chosen_and_renamed_in_both_splits(kind, classes, files):
    make, written = files(kind)
    data = ready(make(classes=classes, mean=0.0, std=1.0))
    wanted = list(range(classes)) if isinstance(classes, int) else classes
    assert data.num_classes == len(wanted)
    for name, loader in data.measure_dataloaders().items():
        images, labels = written[name]
        kept = np.isin(labels, wanted)
        assert 0 < kept.sum() < len(kept)
        assert whole(loader).labels.tolist() == [wanted.index(label) for label in labels[kept]]
        assert_equal(whole(loader).inputs, formula(images[kept], 0.0, 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_training_visits_all_samples_in_the_seeds_order(kind, files):
    make, written = files(kind)
    data = ready(make(seed=5, batch_size=16, mean=0.5, std=0.5))
    images, labels = written["train"]
    order = epoch_order(5, 0, len(labels))
    found = whole(data.train_dataloader())
    assert found.labels.tolist() == labels[order].tolist() != labels.tolist()
    assert_equal(found.inputs, formula(images[order], 0.5, 0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_a_subset_is_drawn_with_the_seed(kind, files):
    make, written = files(kind)
    one, same, other = (ready(make(num_samples=30, seed=seed)).train.inputs for seed in (1, 1, 2))
    assert one.dtype == torch.uint8
    assert len(one) == 30
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    everything = {image.tobytes() for image in ready(make()).train.inputs.numpy()}
    assert {image.tobytes() for image in one.numpy()} <= everything
    with pytest.raises(ArgumentError, match="num_samples must be at most"):
        ready(make(num_samples=len(written["train"][1]) + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_random_labels_touch_the_training_labels_alone(kind, files):
    make, _ = files(kind)
    clean, noisy = ready(make()), ready(make(random_labels=1.0))
    assert torch.equal(clean.train.inputs, noisy.train.inputs)
    assert torch.equal(clean.test.labels, noisy.test.labels)
    assert (clean.train.labels != noisy.train.labels).float().mean() > 0.7


@pytest.mark.parametrize("dump", [python2, *(partial(pickle.dumps, protocol=p) for p in (2, 3, 4, 5))])
def test_imagenet32_reads_every_generation_of_pickles(dump, tmp_path):
    written = write_imagenet32(tmp_path, dump, count=60)
    data = ready(ImageNet32(data_dir=str(tmp_path), num_samples=None, subtract_mean=True, std=0.5))
    for name, loader in data.measure_dataloaders().items():
        images, labels = written[name]
        assert_equal(whole(loader).inputs, torch.from_numpy((images - written["mean"]) / 255 / 0.5))
        assert whole(loader).labels.tolist() == labels.tolist()


def test_our_python2_pickles_are_pickles():
    array = np.arange(6, dtype=">f8").reshape(2, 3)
    found = pickle.loads(python2({"data": array, "labels": [1, 2]}), encoding="latin1")
    assert found["data"].tolist() == array.tolist()
    assert found["labels"] == [1, 2]


# --- where the data lies ----------------------------------------------------------------------------------------


def attached(data, device):
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)), current_epoch=0)
    return data


@pytest.mark.parametrize(("room", "home"), [(True, "meta"), (False, "cpu")])
def test_data_lies_on_the_device_where_it_fits_and_batches_always_do(room, home, files, monkeypatch):
    asked = []
    monkeypatch.setattr(ncflow.data.base, "fits", lambda size, device: asked.append((size, device.type)) or room)
    data = attached(ready(files("cifar10")[0]()), "meta")
    for loader in (data.train_dataloader(), *data.measure_dataloaders().values(), *data.measure_dataloaders().values()):
        for batch in loader:
            assert batch.inputs.device.type == batch.labels.device.type == "meta"
            assert batch.inputs.dtype == torch.float32
    assert data.train.inputs.device.type == data.test.inputs.device.type == home
    assert asked == [(70 * (3072 + 8), "meta")]  # once, for both splits


def test_a_gpu_keeps_half_of_its_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert ncflow.data.base.fits(500, torch.device("cuda"))
    assert not ncflow.data.base.fits(501, torch.device("cuda"))
    assert ncflow.data.base.fits(501, torch.device("cpu"))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_batches_are_the_same_wherever_the_data_lies(device, files, monkeypatch):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    make, _ = files("mnist")
    found = []
    for room in (True, False):
        monkeypatch.setattr(ncflow.data.base, "fits", lambda size, device, room=room: room)
        data = attached(ready(make(batch_size=8)), device)
        found.append([whole(data.train_dataloader()), *map(whole, data.measure_dataloaders(9).values())])
    for here, there in zip(*found, strict=True):
        assert torch.equal(here.inputs, there.inputs)
        assert torch.equal(here.labels, there.labels)


def test_a_run_on_bytes_is_the_run_on_their_numbers(config, files, tmp_path):
    files("mnist")
    weights, rows = [], []
    for decoded in (False, True):
        overrides = (
            f"data.data_dir={tmp_path / 'data'}",
            "data.mean=0.1",
            "data.std=0.3",
            "model.width=8",
            "batch_size=16",
        )
        data, classifier = prepare(config("data=mnist", *overrides))
        if decoded:
            data.train, data.test = (
                part._replace(inputs=data.prepare(part.inputs)) for part in (data.train, data.test)
            )
            data.prepare = lambda inputs: inputs
        measure = NeuralCollapseCallback()
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        trainer = Trainer(accelerator="cpu", max_epochs=2, logger=False, callbacks=[measure], **quiet)
        trainer.fit(classifier, datamodule=data)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in classifier.parameters()]))
        rows.append(measure.rows)
    assert torch.equal(*weights)
    assert str(rows[0]) == str(rows[1])  # NaN included


def test_batches_of_a_bare_split_are_left_as_they_are():
    split = Split(torch.arange(4, dtype=torch.uint8)[:, None], torch.arange(4))
    assert whole(Batches(split, 3)).inputs.dtype == torch.uint8


# --- refusals ---------------------------------------------------------------------------------------------------


@pytest.fixture
def complaint(refusal, tmp_path):
    """Return the one line with which a run on the files in ``tmp_path / "data"`` is refused."""
    folder = f"data.data_dir={tmp_path / 'data'}"
    return lambda kind, *overrides: refusal(f"data={kind}", folder, "model.width=8", *overrides)


FIRST = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "fashion_mnist": "FashionMNIST/raw/train-images-idx3-ubyte",
    "svhn": "train_32x32.mat",
    "cifar10": "cifar-10-batches-py/data_batch_1",
    "cifar100": "cifar-100-python/train",
    "imagenet32": "train_data_batch_1",
}
LAST = {
    "mnist": "MNIST/raw/t10k-labels-idx1-ubyte",
    "fashion_mnist": "FashionMNIST/raw/t10k-labels-idx1-ubyte",
    "svhn": "test_32x32.mat",
    "cifar10": "cifar-10-batches-py/batches.meta",
    "cifar100": "cifar-100-python/meta",
    "imagenet32": "val_data",
}


@pytest.mark.parametrize("kind", KINDS)
def test_missing_files_are_named_with_what_to_do(kind, complaint, files, tmp_path):
    advice = "copy it there" if kind == "imagenet32" else "data.download=true fetches it, or copy it there"
    for file in (FIRST[kind], LAST[kind]):
        if file == LAST[kind]:
            files(kind)
            (tmp_path / "data" / file).unlink()
        expected = f"data.data_dir must be a folder with {file} ({advice}), found '{tmp_path / 'data'}'"
        assert complaint(kind) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", [b"", b"garbage, or a page of a proxy", "half", "all but a byte"])
def test_broken_files_are_named(kind, content, complaint, files, tmp_path):
    files(kind)
    for file in (FIRST[kind], LAST[kind]):
        path = tmp_path / "data" / file
        kept = path.read_bytes()
        cuts = {"half": kept[: len(kept) // 2], "all but a byte": kept[:-1]}
        path.write_bytes(cuts.get(content, content))
        found = complaint(kind)
        assert found.startswith("data.data_dir must be a folder whose ")
        assert file in found
        path.write_bytes(kept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(classes=1), "classes must be between 2 and 10"),
        (dict(classes=[1, 10]), "classes must be at least two different labels in 0..9"),
        (dict(std=0.0), "std must be a finite number above 0, found 0.0"),
        (dict(std=float("nan")), "std must be a finite number above 0"),
        (dict(mean=float("inf")), "mean must be a finite number"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        MNIST(**{"data_dir": "x", "classes": 10, "mean": 0.0, "std": 1.0, **options})


def test_mnist_with_unknown_labels_is_refused(complaint, files, tmp_path):
    files("mnist")
    path = tmp_path / "data" / "MNIST/raw/train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    assert "training files of MNIST have labels 0..9" in complaint("mnist")


GOOD = {"data": np.zeros((3, 3072), np.uint8), "labels": [1, 2, 3], "mean": np.zeros(3072)}
WRONG = {
    "list": ([1, 2], "has no dictionary"),
    "no data": ({"labels": [1, 2, 3]}, "must be a folder whose train_data_batch_1 has 'data'"),
    "no labels": ({"data": GOOD["data"]}, "has 'labels', found ['data']"),
    "flat": ({**GOOD, "data": GOOD["data"][0]}, "has 'data' (N, 3072) in uint8, found '(3072,) in uint8'"),
    "other size": ({**GOOD, "data": GOOD["data"][:, :3071]}, "found '(3, 3071) in uint8'"),
    "floats": ({**GOOD, "data": GOOD["data"].astype(np.float32)}, "found '(3, 3072) in float32'"),
    "other count": ({**GOOD, "labels": [1, 2]}, "has a label for each image, found '3, 2'"),
    "label 0": ({**GOOD, "labels": [0, 1, 2]}, "has 'labels' 1..1000, found '0 .. 2'"),
    "label 1001": ({**GOOD, "labels": [1, 2, 1001]}, "has 'labels' 1..1000, found '1 .. 1001'"),
    "fractions": ({**GOOD, "labels": [1.0, 2.0, 3.0]}, "found 'float64 of shape (3,)'"),
    "text": ({**GOOD, "labels": ["1", "2", "3"]}, "found '<U1 of shape (3,)'"),
    "ragged": ({**GOOD, "labels": [[1], [1, 2], 3]}, "has 'labels' as one array"),
    "empty": ({**GOOD, "data": GOOD["data"][:0], "labels": []}, "has 'labels' 1..1000"),
    "no mean": ({"data": GOOD["data"], "labels": [1, 2, 3]}, "has 'mean', found ['data', 'labels']"),
    "short mean": ({**GOOD, "mean": np.zeros(3)}, "has a finite 'mean' (3072,)"),
    "NaN in mean": ({**GOOD, "mean": np.full(3072, np.nan)}, "has a finite 'mean' (3072,)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_imagenet32_with_wrong_content_is_refused(case, complaint, tmp_path):
    content, message = WRONG[case]
    write_imagenet32(tmp_path / "data", count=20)
    (tmp_path / "data" / TRAIN_FILES[0]).write_bytes(pickle.dumps(content))
    found = complaint("imagenet32", "data.num_samples=20", "data.subtract_mean=true")
    assert found.startswith("data.data_dir must be a folder whose train_data_batch_1 ")
    assert message in found


# --- downloads --------------------------------------------------------------------------------------------------


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder, and its address on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "server"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def publish(root, server, monkeypatch, kind):
    """Put the files of a data set where torchvision then looks for its downloads."""
    folder, address = server
    official = CLASSES[kind].func.official
    if "mnist" in kind:
        unpacked = root / official.__name__ / "raw"
        for name, _ in official.resources:
            (folder / name).write_bytes(gzip.compress((unpacked / name.removesuffix(".gz")).read_bytes()))
        sums = [(name, hashlib.md5((folder / name).read_bytes()).hexdigest()) for name, _ in official.resources]
        monkeypatch.setattr(official, "resources", sums)
        monkeypatch.setattr(official, "mirrors", [address])
    elif kind == "svhn":
        parts = {split: [address + name, name, md5] for split, (_, name, md5) in official.split_list.items()}
        for name in (FIRST[kind], LAST[kind]):
            (folder / name).write_bytes((root / name).read_bytes())
        monkeypatch.setattr(official, "split_list", parts)
    else:
        archive = folder / official.filename
        with tarfile.open(archive, "w:gz") as file:
            file.add(root / official.base_folder, official.base_folder)
        monkeypatch.setattr(official, "url", address + official.filename)
        monkeypatch.setattr(official, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())


@pytest.mark.parametrize("kind", ["mnist", "fashion_mnist", "svhn", "cifar10", "cifar100"])
def test_missing_files_are_downloaded_when_asked_for(kind, files, server, tmp_path, monkeypatch):
    make, _ = files(kind)
    publish(tmp_path / "data", server, monkeypatch, kind)
    before = ready(make()).train
    (tmp_path / "data" / FIRST[kind]).unlink()
    with pytest.raises(ArgumentError, match="data_dir must be a folder with"):
        ready(make())
    assert torch.equal(ready(make(download=True)).train.inputs, before.inputs)
    assert torch.equal(ready(make(data_dir=str(tmp_path / "new"), download=True)).train.inputs, before.inputs)
    (tmp_path / "data" / FIRST[kind]).write_bytes(b"broken")
    if "mnist" in kind:  # torchvision knows no sums of the unpacked files
        with pytest.raises(ArgumentError, match=rf"whose {FIRST[kind]} is whole \(delete it"):
            ready(make(download=True))
    else:
        assert torch.equal(ready(make(download=True)).train.inputs, before.inputs)


@pytest.mark.parametrize("kind", ["mnist", "fashion_mnist", "svhn", "cifar10", "cifar100"])
def test_a_failed_download_is_one_line(kind, complaint, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    official = CLASSES[kind].func.official
    nowhere = "http://127.0.0.1:9/"  # nobody listens there: refused at once
    if kind == "svhn":
        monkeypatch.setattr(official, "split_list", {name: [nowhere, "x", "x"] for name in official.split_list})
    else:
        monkeypatch.setattr(official, *(("mirrors", [nowhere]) if "mnist" in kind else ("url", nowhere)))
    found = complaint(kind, "data.download=true")
    assert found.startswith("data.download of http")
    assert "refused" in found
    assert len(found) < 250


# --- hostile files ----------------------------------------------------------------------------------------------


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def named(module, name, arguments):
    """A pickle that calls what it names, in the opcodes of protocol 4, where a name may have dots."""
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    return b"\x80\x04" + texts + b"\x93(" + arguments + b"tR."


BYTES = pickle.dumps({"data": np.zeros(3, np.uint8)}, protocol=4)
MARK = 'open("pwned", "w")'
HOSTILE = {
    "system": (pickle.dumps(Calls(os.system, "touch pwned")), "posix.system"),
    "eval": (pickle.dumps(Calls(builtins.eval, MARK)), "builtins.eval"),
    "exec in a dictionary": (pickle.dumps({"data": Calls(builtins.exec, MARK), "labels": [1]}), "builtins.exec"),
    "protocol 0": (b"cos\nsystem\n(S'touch pwned'\ntR.", "os.system"),
    "instance": (b"(S'touch pwned'\nios\nsystem\n.", "os.system"),
    "dotted": (named("numpy", "core.multiarray.os.system", b"\x8c\x0btouch pwned"), "core.multiarray.os.system"),
    "dotted known": (named("numpy", "ndarray.__class__", b"\x8c\x01x"), "numpy.ndarray.__class__"),
    "load of numpy": (named("numpy", "load", b"\x8c\x01x"), "numpy.load"),
    "scalar": (named("numpy._core.multiarray", "scalar", b""), "numpy._core.multiarray.scalar"),
    "objects": (pickle.dumps({"data": np.array([Calls(builtins.eval, MARK)], dtype=object)}), "'O8'"),
    "objects, empty": (pickle.dumps({"data": np.zeros(0, dtype=object)}), "'O8'"),
    "records": (pickle.dumps({"data": np.zeros(3, "f4,i4")}), "'V8'"),
    "more numbers than bytes": (BYTES.replace(b"K\x03\x85", b"J\0\0\0\x7f\x85"), "cannot reshape"),
    "huge": (named("_codecs", "encode", b"\x8d" + (2**62).to_bytes(8, "little") + b"x"), ""),
    "array from a number": (
        b"\x80\x02}X\1\0\0\0xcnumpy._core.numeric\n_frombuffer\n"
        b"(\x8a\x06\0\0\0\0\0\x10cnumpy\ndtype\n(X\2\0\0\0u1tRK\1\x85X\1\0\0\0CtRs.",
        "not 'int'",
    ),
    "other encoding": (b"\x80\x02}X\1\0\0\0xc_codecs\nencode\n(X\1\0\0\0xX\5\0\0\0rot13tRs.", "'rot13'"),
    "no arguments": (named("_codecs", "encode", b""), "missing"),
    "persistent": (b"Px\n.", "persistent"),
    "class as it is": (b"\x80\x02}U\x04datacnumpy\nndarray\n)\x81s}b.", ""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_refused_before_they_run(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, reason = HOSTILE[case]
    (tmp_path / "bad").write_bytes(content)
    with (tmp_path / "bad").open("rb") as file, pytest.raises(pickle.UnpicklingError) as error:
        safe_pickle.load(file)
    assert str(error.value).startswith(f"{tmp_path / 'bad'} cannot be read: ")
    assert reason in str(error.value)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("dtype", ["?", "u1", "<i4", ">i4", "<f4", ">f8"])
def test_plain_arrays_are_read_as_pickle_reads_them(dtype, protocol, tmp_path):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    content = {"rows": array, "columns": np.asfortranarray(array), "cut": array[:, ::2], "text": "é", "list": [1, 2.5]}
    (tmp_path / "good").write_bytes(pickle.dumps(content, protocol=protocol))
    with (tmp_path / "good").open("rb") as file:
        found = safe_pickle.load(file)
    for name, expected in content.items():
        assert type(found[name]) is type(expected)
        np.testing.assert_array_equal(found[name], expected)
        assert getattr(found[name], "dtype", None) == getattr(expected, "dtype", None)


def test_hostile_files_would_do_harm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for case in ("system", "eval", "exec in a dictionary", "protocol 0", "instance", "objects"):
        pickle.loads(HOSTILE[case][0])
        (tmp_path / "pwned").unlink()


@pytest.mark.parametrize("case", ["system", "exec in a dictionary", "dotted"])
@pytest.mark.parametrize("kind", ["cifar10", "cifar100", "imagenet32"])
def test_data_sets_refuse_hostile_files_and_name_the_function(kind, case, complaint, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files(kind)
    for file in (FIRST[kind], LAST[kind]):
        path = tmp_path / "data" / file
        kept = path.read_bytes()
        path.write_bytes(HOSTILE[case][0])
        if kind != "imagenet32":
            assert "is whole" in complaint(kind)  # the sum is wrong
            expect_sums(tmp_path / "data", monkeypatch, CLASSES[kind].func.official)
        found = complaint(kind)
        assert file in found
        assert HOSTILE[case][1] in found
        assert not (tmp_path / "pwned").exists()
        path.write_bytes(kept)
        if kind != "imagenet32":
            expect_sums(tmp_path / "data", monkeypatch, CLASSES[kind].func.official)


def test_torchvision_gets_its_own_pickle_back(files):
    from torchvision.datasets import cifar

    make, _ = files("cifar10")
    ready(make())
    assert cifar.pickle is pickle


def shared_content(number):
    """A pickle of that many arrays over one content of 1000 bytes."""
    dtype = b"cnumpy\ndtype\n(X\2\0\0\0u1tR"
    array = b"cnumpy._core.numeric\n_frombuffer\n(h\0" + dtype + b"M\xe8\3\x85X\1\0\0\0CtR"
    entries = b"".join(b"M" + key.to_bytes(2, "little") + array for key in range(number))
    return b"\x80\x03B\xe8\3\0\0" + bytes(1000) + b"q\0}(" + entries + b"u."


def nested(depth, inside):
    """A pickle of a list of a hundred times one list of a hundred times one list ..."""
    lists = inside
    for level in range(1, depth + 1):
        lists += b"q" + bytes([level]) + b"0](" + (b"h" + bytes([level])) * 100 + b"e"
    return b"\x80\x02}X\6\0\0\0labels" + lists + b"s."


BOMBS = {
    "a memo of four billion": b"\x80\x02}r\xf0\xff\xff\xff.",
    "a memo of four billion in digits": b"}p4000000000\n.",
    "arrays over one content": shared_content(3000),
    "lists of one list": nested(5, b"]"),
    "a list in itself": b"\x80\x02}X\6\0\0\0labels]q\1h\1as.",
    "texts of one text": b"\x80\x02X\xff\0\0\0"
    + b"x" * 255
    + b"q\1c_codecs\nencode\nq\2"
    + b"}X\1\0\0\0x]("
    + b"h\2(h\1X\6\0\0\0latin1tR" * 100
    + b"es.",
}


@pytest.mark.parametrize("case", BOMBS)
def test_small_pickles_of_large_contents_are_refused(case, tmp_path):
    (tmp_path / "bomb").write_bytes(BOMBS[case])
    with (tmp_path / "bomb").open("rb") as file, pytest.raises(pickle.UnpicklingError) as error:
        safe_pickle.load(file)
    assert str(error.value).endswith("cannot be read: it asks for more than the file has bytes")


@pytest.mark.parametrize("kind", KINDS)
def test_files_larger_than_the_memory_are_refused_before_they_are_read(kind, complaint, files, tmp_path, monkeypatch):
    files(kind)
    with (tmp_path / "data" / FIRST[kind]).open("r+b") as file:
        file.truncate(2**42)  # takes no place on the disk
    found = complaint(kind)
    assert f"{FIRST[kind]} fits into memory" in found
    assert "it has 4 TiB" in found
