"""Every option composes, builds and runs; every bad one is refused in one line before training."""

import itertools
import os
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field

from ncflow.config import identity
from ncflow.config.build import build
from ncflow.config.explain import explain
from ncflow.config.identity import describe, flat_config, folder_name, run_id, slug
from ncflow.config.schema import CONF_DIR, ConfigError, epochs_of
from ncflow.data.batches import batch_bounds
from ncflow.data.synthetic import SampleIndex, TeacherMLP
from ncflow.data.vision import Digits
from ncflow.training.assembly import prepare
from tests.conftest import TINY
from tests.image_files import write_cifar, write_imagenet32, write_mnist, write_svhn

GROUPS = ["data", "model", "loss", "optimizer", "scheduler", "trainer", "logger"]
OPTIONS = [
    (group, file.stem) for group in GROUPS for file in sorted((CONF_DIR / group).glob("*.yaml")) if file.stem != "gpu"
]
EXPERIMENTS = [
    str(f.relative_to(CONF_DIR / "experiment").with_suffix("")) for f in CONF_DIR.rglob("experiment/**/*.yaml")
]
NEEDS = {
    ("data", "arrays"): ["data.path={files}/mine.npz"],
    ("data", "mnist"): ["data.data_dir={files}"],
    ("data", "fashion_mnist"): ["data.data_dir={files}"],
    ("data", "svhn"): ["data.data_dir={files}"],
    ("data", "cifar10"): ["data.data_dir={files}"],
    ("data", "cifar100"): ["data.data_dir={files}"],
    ("data", "imagenet32"): ["data.data_dir={files}", "data.num_samples=100"],
    ("data", "teacher_mlp"): ["data.teacher_width=16", "model.width=64", "model.depth=4"],
    ("data", "teacher_mlp_small"): ["model.width=64", "model.depth=4"],
    ("data", "sample_index"): ["model=unconstrained"],
    ("model", "unconstrained"): ["data=sample_index"],
    ("model", "convnet"): ["data=digits"],
    ("model", "vit"): ["data=digits32"],
    ("trainer", "ddp"): ["model.norm=none"],
}
IMAGES = ["data=digits", "data.size=32", "model.width=0.0625"]
# Sizes at which the experiments' grids are built here; the sizes themselves are built above.
SMALLER = {f"pan_cao/{name}": ["data.num_samples=50", "model.width=0.125"] for name in ("fig5", "fig6", "fig8")}
SMALLER |= {
    name: ["data.num_samples=10", "model.width=0.1"]
    for name in EXPERIMENTS
    if re.match(r"cbmm_117/\w+(?<!_small)$", name)
}
SMALLER |= {f"optimizers/vgg11_{data}": ["model.width=0.125"] for data in ("mnist", "fashion_mnist")}
SMALLER |= {"recipe/pan_cao_fig3=cifar10": ["data.num_samples=50", "model.width=0.125"]}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with a small copy of every data set that is read from files."""
    import numpy as np

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", X=rng.normal(size=(400, 6)), y=np.arange(400) % 3)
    write_mnist(tmp_path)
    write_mnist(tmp_path, "FashionMNIST")
    write_svhn(tmp_path, monkeypatch)
    write_cifar(tmp_path, monkeypatch, classes=10)
    write_cifar(tmp_path, monkeypatch, classes=100)
    write_imagenet32(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_builds(group, option, config, files):
    image_model = group == "model" and option.startswith(("vgg", "resnet"))
    needs = IMAGES if image_model else NEEDS.get((group, option), [])
    more = [text.format(files=files) for text in needs]
    narrow = [] if image_model or "unconstrained" in f"{option}{needs}" else ["model.width=16"]
    data, classifier = prepare(config(f"{group}={option}", *narrow, *more))
    assert classifier(data.prepare(data.train.inputs[:3])).shape == (3, data.num_classes)


@pytest.mark.parametrize(
    "option", ["arrays", "digits", "digits32", "mnist", "svhn", "cifar10", "cifar100", "imagenet32"]
)
def test_every_data_set_with_given_inputs_scales_them(option, config, files):
    needs = [text.format(files=files) for text in NEEDS.get(("data", option), [])]
    data, _ = prepare(config(f"data={option}", *needs, "data.max_norm=1", "model.width=16"))
    norms = [batch.inputs.flatten(1).norm(dim=1).max().item() for batch in data.train_dataloader()]
    assert max(norms) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_builds_each_of_its_cells(name, config, files, monkeypatch):
    """The ends of every swept option with those of every other; seeds and weight decays build alike."""
    monkeypatch.setenv("NCFLOW_DATA_DIR", str(files))
    params = config(f"experiment={name}", return_hydra_config=True).hydra.sweeper.params or {}
    grid = {key: str(value).split(",") for key, value in params.items() if key not in ("seed", "weight_decay")}
    ends = [dict.fromkeys((values[0], values[-1])) for values in grid.values()]
    for values in itertools.product(*ends):
        cell = [f"{key}={value}" for key, value in zip(grid, values, strict=True)]
        smaller = [option for part in (name, *cell) for option in SMALLER.get(part, [])]
        prepare(config(f"experiment={name}", *cell, *smaller))


def test_figure_3_is_of_synthetic_and_of_real_data_with_the_bn_of_each_model(config):
    """Runs of other figures, so that they are trained once; those of synthetic data are as they were published."""
    own = ["experiment=pan_cao/fig3", "bn=own"]
    real = config(*own, "recipe/pan_cao_fig3=cifar10")
    assert (real.model.norm, real.weight_decay) == ("torchvision", 5e-4)
    of_figure_8 = ["data=cifar10", "model=vgg11", "model.norm=torchvision", "weight_decay=5e-4", "seed=0"]
    assert run_id(real) == run_id(config("experiment=pan_cao/fig8", *of_figure_8))
    small = config("experiment=pan_cao/fig3_small", "recipe/pan_cao_fig3=digits", "bn=none")
    of_figure_8 = ["data=digits32", "model=vgg11", "model.norm=none", "weight_decay=5e-4", "seed=0"]
    assert run_id(small) == run_id(config("experiment=pan_cao/fig8_small", *of_figure_8))
    synthetic = config(*own, "recipe/pan_cao_fig3=teacher_mlp")
    assert (synthetic.model.norm, synthetic.weight_decay) == ("last", 5e-3)
    assert run_id(synthetic) == "26939559"


def test_figures_of_the_thesis_are_of_both_kinds_of_data_and_name_its_decays(config):
    for name in ("fig3_1", "fig3_3", "fig3_1_small", "fig3_3_small"):
        grid = config(f"experiment=pan_thesis/{name}", return_hydra_config=True).hydra.sweeper.params
        assert grid.data == ("teacher_mlp_small,conic_hull" if "small" in name else "teacher_mlp,conic_hull")
        assert {"3e-3", *(["5e-3"] if "fig3_3" in name else [])} <= {*grid.weight_decay.split(",")}


def test_every_figure_has_a_recipe_and_a_small_sibling_with_the_same_options(config):
    figures = {f"pan_cao/fig{number}" for number in range(1, 10)}
    figures |= {f"pan_thesis/fig3_{number}" for number in (1, 2, 3)}
    figures |= {f"cbmm_117/fig{number}" for number in (*range(2, 7), *range(11, 18))}
    figures |= {"cbmm_117/exponential_batch_size"}
    figures |= {
        f"optimizers/{name}" for name in ("resnet9_cifar10", "vgg11_mnist", "vgg11_fashion_mnist", "vit_cifar10")
    }
    assert figures | {f"{name}_small" for name in figures} <= set(EXPERIMENTS)
    for name in figures:
        small = OmegaConf.load(CONF_DIR / "experiment" / f"{name}_small.yaml")
        assert str(small.get("figures")) in ("None", str(config(f"experiment={name}").figures)), (
            "drawn as the figure is"
        )
        parents = [entry for entry in small.defaults if str(entry).startswith("/experiment/")]
        assert len(parents) == 1, "a sibling states only its difference"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_says_which_figures_are_drawn_of_it(name, config):
    from ncflow.figures.papers.figures import FIGURES

    assert config(f"experiment={name}").figures
    assert set(config(f"experiment={name}").figures) <= set(FIGURES)


BAD = [
    (["model.depth=1"], "model.depth must be at least 2 (one hidden layer and the classifier), found 1"),
    (["model.depth=abc"], "model.depth must be a whole number, found 'abc'"),
    (["model.width=3.5"], "model.width must be a whole number, found 3.5"),
    (["model.bias=1"], "model.bias must be true or false, found 1"),
    (["model.norm=lst"], "model.norm must be one of 'none', 'last', 'all', found 'lst'"),
    (
        ["model.norm=none", "model.gamma=0.5"],
        "model.gamma must be null where norm is 'none': there is no BN, found 0.5",
    ),
    (["model.affine=false"], "model.gamma must be a number where affine is false"),
    (["measure.layers=foo"], "measure.layers must be 'last', 'all' or names of layers (layers.0, layers.1, layers.2)"),
    (["data=digits", "data.classes=12"], "data.classes must be between 2 and 10, what the data has, found 12"),
    (["data=digits", "data.classes=[3,3]"], "data.classes must be at least two different labels in 0..9"),
    (["data=digits", "data.num_samples=5000"], "data.num_samples must be at most 1437"),
    (["data.random_labels=2"], "data.random_labels must be in 0..1, found 2"),
    (["data=digits", "data.random_labels=some"], "data.random_labels must be a number, found 'some'"),
    (
        ["data=digits", "+data.tst_fraction=0.1"],
        "data.tst_fraction must be one of the options of Digits: "
        "classes, size, test_fraction, num_samples, random_labels, max_norm",
    ),
    (
        ["data=teacher_mlp", "+data.max_norm=1"],
        "data.max_norm must be one of the options of TeacherMLP: "
        "teacher_depth, teacher_width, num_classes, dim, num_samples, num_test, random_labels",
    ),
    (["data=teacher_mlp", "data.num_samples=null"], "data.num_samples must be a whole number, found None"),
    (["data=arrays"], "data.path must be given"),
    (["data=arrays", "data.path=/no.npz"], "data.path must be an existing .npz file, found '/no.npz'"),
    (["data=teacher_mlp", "model.depth=3"], "data.teacher_depth must be less than the number of weight matrices"),
    (["optimizer.lr=abc"], "optimizer.lr must be a number"),
    (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
    (["scheduler.fractions=[2]"], "scheduler.fractions must be numbers in (0, 1], found [2]"),
    (["trainer.threads=0"], "trainer.threads must be a whole number of at least 1, found 0"),
    (["trainer.devices=auto"], "trainer.devices must be a whole number of at least 1, found 'auto'"),
    (["trainer=ddp"], "trainer.sync_batchnorm must be true for BN where 2 devices share a run"),
    (["trainer=ddp", "trainer.sync_batchnorm=true", "trainer.accelerator=cpu"], "trainer.accelerator must be gpu"),
    (["trainer=ddp", "model.norm=none", "batch_size=1"], "batch_size must be at least 2"),
    (["trainer=ddp", "model.norm=none", "measure.margins=true"], "measure.margins must be null"),
    (["+trainer.foo=2"], "trainer.foo must be an argument of lightning.Trainer"),
    (["+model.foo=2"], "model.foo must be one of the options of MLP"),
    (["+foo=2"], "foo is not an option of this config, found 2"),
    (["+lr=2"], "lr is not an option of this config, found 2; did you mean optimizer.lr?"),
    (["+early_stopping=true"], "early_stopping must be left out: runs are compared at equal epochs"),
    (["+trainer.fast_dev_run=true"], "trainer.fast_dev_run must be left out: runs are compared at equal epochs"),
    (["trainer.profiler=all"], "trainer.profiler must be one of 'simple', 'advanced' or null, found 'all'"),
    (["optimizer.betas=[a]"], "optimizer.betas must be a list of 2: a number, a number, found ['a']"),
    (["model._target_=nowhere.Net"], "model._target_ must be an importable object, found 'nowhere.Net'"),
    (["seed=-1"], "seed must be at least 0, found -1"),
    (["epochs=0"], "epochs must be at least 1, found 0"),
    (["batch_size=0"], "batch_size must be null or at least 1, found 0"),
    (["weight_decay=-1"], "weight_decay must be a number of at least 0, found -1.0"),
    (["weight_decay=nan"], "weight_decay must be a number of at least 0, found nan"),
    (["weight_decay_scope=first"], "weight_decay_scope must be one of 'all', 'last_layer', found 'first'"),
    (["measure.every_n_epochs=0"], "measure.every_n_epochs must be at least 1, found 0"),
    (["measure.delta=1"], "measure.delta must be between 0 and 1, both excluded, found 1.0"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD, ids=lambda value: value[-1] if isinstance(value, list) else "")
def test_bad_options_are_refused_in_one_line(overrides, message, refusal):
    assert refusal(*overrides).startswith(message)


class Parent:
    def __init__(self, *, size: int | None = None, kind: Literal["a", "b"] = "a", given: int = 0, untyped: int = 0):
        self.found = {"size": size, "kind": kind, "given": given, "untyped": untyped}


class Child(Parent):
    def __init__(self, *, own: int = 1, size: int = 2, untyped=3, **common):
        super().__init__(size=size, untyped=untyped, **common)


class Grandchild(Child):
    pass


class Open:
    def __init__(self, own: int = 1, **anything):
        self.found = {"own": own, **anything}


class OpenModule(torch.nn.Module):
    def __init__(self, own: int = 1, **anything):
        super().__init__()
        self.found = {"own": own, **anything}


class Bounded:
    def __init__(
        self,
        *,
        even: Annotated[int, Field(ge=2, le=8, multiple_of=2)] = 2,
        share: Annotated[float, Field(lt=1)] | None = None,
    ):
        self.found = {"even": even, "share": share}


def built(target, **options):
    node = {"_target_": f"{__name__}.{target.__name__}", **options}
    return build(OmegaConf.create({"data": node}), "data", given=5).found


@pytest.mark.parametrize("target", [Child, Grandchild])
def test_options_that_a_class_passes_on_are_its_own(target):
    assert built(target, kind="b") == {"size": 2, "kind": "b", "given": 5, "untyped": 3}
    for options, message in [
        ({"sze": 1}, f"sze must be one of the options of {target.__name__}: own, size, untyped, kind"),
        ({"common": 1}, f"common must be one of the options of {target.__name__}: own, size, untyped, kind"),
        ({"kind": "c"}, "kind must be one of 'a', 'b', found 'c'"),
        ({"size": None}, "size must be a whole number, found None"),
    ]:
        with pytest.raises(ConfigError) as error:
            built(target, **options)
        assert str(error.value) == f"data.{message}"
    assert built(target, untyped="text")["untyped"] == "text"


@pytest.mark.parametrize("target", [Open, OpenModule])
def test_a_class_that_keeps_what_it_takes_is_open_ended(target):
    assert built(target, other="x") == {"own": 1, "other": "x", "given": 5}
    with pytest.raises(ConfigError, match="own must be a whole number"):
        built(target, own="x")


@pytest.mark.parametrize("kind", [Digits, TeacherMLP, SampleIndex])
def test_a_misspelt_option_is_no_argument_of_a_data_set(kind):
    with pytest.raises(TypeError, match="num_sample"):
        kind(num_sample=40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"even": 0}, "even must be at least 2, found 0"),
        ({"even": 10}, "even must be at most 8, found 10"),
        ({"even": 3}, "even must be a multiple of 2, found 3"),
        ({"even": "2"}, "even must be a whole number, found '2'"),
        ({"share": 1}, "share must be less than 1, found 1"),
        ({"share": []}, "share must be a number or null, found []"),
    ],
)
def test_bounds_in_the_hints_of_a_class_are_rules_of_its_options(options, message):
    assert built(Bounded, even=4, share=0.5) == {"even": 4, "share": 0.5}
    with pytest.raises(ConfigError) as error:
        built(Bounded, **options)
    assert str(error.value) == f"data.{message}"


MISSPELT = [
    ("modle.depth=3", "modle.depth is not an option of this config; did you mean model.depth?"),
    ("model.dept=3", "model.dept is not an option of this config; did you mean model.depth?"),
    ("weight_decy=0", "weight_decy is not an option of this config; did you mean weight_decay?"),
    ("loss.targets=signs", "loss.targets is an option of loss=square, loss=square_signs, which this config does not"),
    ("model=nope", "model must be one of convnet, mlp, resnet, resnet18,"),
    ("data=cifar", "found 'cifar'; did you mean cifar10?"),
    ("experiment=fig2", "lists, found 'fig2'; did you mean cbmm_117/fig2 or pan_cao/fig2?"),
    ("experiment=pan_cao/fig22", "found 'pan_cao/fig22'; did you mean pan_cao/fig2?"),
    ("hydra/launcher=locl", "hydra/launcher must be one of basic, "),
    ("hydra/launcher=locl", ", found 'locl'; did you mean local?"),
    ("hydra/sweeper=optun", "found 'optun'; did you mean optuna?"),
    ("launcher=local", "launcher is not an option of this config; did you mean hydra/launcher?"),
    ("optimiser=sgd", "optimiser is not an option of this config; did you mean optimizer?"),
    ("lr=0.1", "lr is not an option of this config; did you mean optimizer.lr?"),
    ("hydra.launcher.foo=3", "hydra.launcher.foo is not an option of this config"),
    ("hydra.launcher.pack=3", "hydra.launcher.pack is an option of hydra/launcher=local, hydra/launcher=slurm, which"),
    ("callbacks=early_stopping", "callbacks must be left out: runs are compared at equal epochs, and are not stopped"),
    ("callbacks.early_stopping.patience=3", "must be left out: runs are compared at equal epochs"),
    (
        "trainer.fast_dev_run=true",
        "trainer.fast_dev_run must be left out: runs are compared at equal epochs; experiment=d",
    ),
    ("figures=3", "figures must be a list, found 3"),
    ("data=null", "the option of a group must be a name, found null"),
    ("seed=abc", "Value 'abc' of type 'str' could not be converted to Integer"),
]


@pytest.mark.parametrize(("override", "message"), MISSPELT)
def test_misspelt_keys_are_explained_in_one_line(override, message, config):
    with pytest.raises(Exception) as error:  # noqa: PT011 - whatever Hydra raises
        config(override)
    assert message in explain(error.value)
    assert "\n" not in explain(error.value)


def test_identity_is_what_changes_the_numbers(config, tmp_path):
    base = run_id(config())
    for same in (
        "runs_dir=/x",
        "logger=none",
        "trainer.profiler=simple",
        "trainer.threads=2",
        "trainer=cpu",
        "measure.batch_size=7",
    ):
        assert run_id(config(same)) == base, same
    changes = ["seed=1", "epochs=301", "weight_decay=1e-3", "weight_decay_scope=last_layer", "batch_size=64"]
    changes += ["model.norm=none", "model.gamma=0.5", "model.gamma=1", "data=teacher_mlp", "data.random_labels=0.1"]
    changes += ["weight_decay_coupling=0", "weight_decay_coupling=0.5"]
    changes += ["optimizer.lr=2e-3", "scheduler=constant", "trainer.precision=64-true", "measure.every_n_epochs=1"]
    assert len({run_id(config(change)) for change in changes} | {base}) == len(changes) + 1


def test_identity_does_not_depend_on_how_a_number_is_written(config):
    assert run_id(config("weight_decay=5e-3", "model.gamma=1")) == run_id(
        config("weight_decay=0.005", "model.gamma=1.0")
    )


def test_identity_knows_a_file_by_its_content(config, tmp_path):
    one, copy, other = (tmp_path / name for name in ("a.npz", "b.npz", "c.npz"))
    one.write_bytes(b"1")
    copy.write_bytes(b"1")
    other.write_bytes(b"2")
    first, second, third = (run_id(config("data=arrays", f"data.path={path}")) for path in (one, copy, other))
    assert first == second != third
    before, changed = describe(config("data=arrays", f"data.path={one}"), "single"), (b"more", b"less")
    for content in changed:  # at one path, of one size
        one.write_bytes(content)
        os.utime(one, ns=(1, 1 + changed.index(content)))
        after = describe(config("data=arrays", f"data.path={one}"), "single")
        assert len(after["data.digest"]) == 12
        assert (after["data.digest"], after["run_id"]) != (before["data.digest"], before["run_id"])
        before = after
    assert "data.digest" not in describe(config("data=digits"), "single")


def test_identity_knows_a_folder_by_the_names_and_sizes_of_its_files(config, tmp_path):
    def of(folder):
        return run_id(config("data=arrays", f"data.path={folder}"))

    for name, size in (("a", 1), ("copy", 1), ("b", 2)):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "in/x").write_bytes(b"." * size)
    assert of(tmp_path / "a") == of(tmp_path / "copy")
    assert len({of(tmp_path / name) for name in ("a", "b", "none")}) == 3


def test_slug_tells_runs_apart(config):
    cfg = config("weight_decay=5e-3", "seed=3", "model.gamma=0.5")
    assert slug(cfg) == "conic_hull-mlp4-last-gamma0.5-wd0.005-seed3"
    assert folder_name(cfg) == f"{slug(cfg)}-{run_id(cfg)}"


@pytest.mark.parametrize(
    ("varied", "overrides", "shown"),
    [
        (["optimizer.lr"], ["optimizer.lr=0.1"], "lr0.1"),
        (["batch_size", "data.noise"], ["batch_size=16", "+data.noise=0.5"], "batch_size16-noise0.5"),
        (["data.path"], ["data=arrays", "data.path=in/mine.npz"], "mine"),
        (["loss", "optimizer"], ["loss=square", "optimizer=sgd"], "square-sgd"),
        (["model.width", "data.width"], ["model.width=8", "+data.width=9"], "model.width8-data.width9"),
        (["seed", "data", "trainer.accelerator", "batch_size"], ["batch_size=null"], ""),
    ],
)
def test_slug_shows_what_a_sweep_varies(varied, overrides, shown, config, monkeypatch):
    monkeypatch.setattr(identity, "_varied", ())
    cfg = config(*overrides)
    alone = slug(cfg)
    identity.name_by(varied)
    assert slug(cfg) == alone.replace("-wd", f"-{shown}-wd" if shown else "-wd")


def test_flat_config_is_resolved(config):
    flat = flat_config(config(*TINY))
    assert flat["model.width"] == 16
    assert flat["runs_dir"] == "runs"
    assert not any(key.startswith("hydra") for key in flat)


def test_configs_name_their_option():
    for group in GROUPS:
        for file in (CONF_DIR / group).glob("*.yaml"):
            if group != "trainer":
                assert OmegaConf.load(file).name == file.stem, file
    assert Path(CONF_DIR / "train.yaml").exists()


@pytest.mark.parametrize("small", ["", "_small"])
def test_batch_sizes_of_j2_take_equal_steps(config, small):
    for size, loss in itertools.product(("16", "64", "null"), ("exponential", "square_signs")):
        cfg = config(f"experiment=cbmm_117/exponential_batch_size{small}", f"batch_size={size}", f"loss={loss}")
        steps = cfg.epochs * len(batch_bounds(cfg.data.num_samples, cfg.batch_size))
        assert steps == pytest.approx(3000 if small else 40_000, rel=0.005)
        assert 9 < cfg.epochs / cfg.measure.every_n_epochs < 25


def test_epochs_of_steps_are_those_of_the_batches_that_are_cut():
    for samples, size in itertools.product((2, 3, 7, 280, 281, 10_000), (1, 2, 3, 16, 128, None)):
        batches = len(batch_bounds(samples, size))
        assert epochs_of(4000, samples, size) == max(1, round(4000 / batches))


def test_epochs_of_steps_need_a_number_of_samples(config):
    cfg = config("experiment=cbmm_117/exponential_batch_size", "data.num_samples=null")
    with pytest.raises(OmegaConfBaseException) as error:
        flat_config(cfg)
    assert explain(error.value) == ("data.num_samples must be a number where epochs are counted in steps, found None")
