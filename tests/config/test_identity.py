"""Run ids are for ever: by them, a run in somebody's folder is known to be finished."""

import pytest
from omegaconf import OmegaConf

from ncflow.config import identity
from ncflow.config.build import locate
from ncflow.config.identity import run_id
from ncflow.config.schema import CONF_DIR

# As first computed. A new option gets a line; a line that is there stays.
PUBLISHED = {
    "bn=affine": "c6161436",
    "bn=non_affine": "0a5565b3",
    "bn=none": "1af0d9e5",
    "bn=own": "eb4148ed",
    "+budget=convnet_small": "ec0bd3bd",
    "+budget=mlp_small": "919f2e28",
    "+budget=mlp_small_sgd": "556c95e9",
    "+budget=optimizers_small": "c8847d6d",
    "+budget=vgg_small": "d2ed7aaf",
    "data=arrays": "b904e872",
    "data=cifar10": "985b49d6",
    "data=cifar100": "688aa029",
    "data=conic_hull": "eb4148ed",
    "data=digits": "633cbb05",
    "data=digits32": "1056ae16",
    "data=fashion_mnist": "e5bb34e0",
    "data=imagenet32": "a139211d",
    "data=mnist": "8c3864ef",
    "data=sample_index": "a4299387",
    "data=svhn": "821397ee",
    "data=teacher_mlp": "f63bf081",
    "data=teacher_mlp_small": "8857c125",
    "experiment=cbmm_117/fig2": "f321dab1",
    "experiment=cbmm_117/fig6_small": "f6ab3736",
    "experiment=optimizers/coupling": "eb4148ed",
    "experiment=optimizers/momentum_small": "e6d507a8",
    "experiment=optimizers/resnet9_cifar10": "cfef9c9d",
    "experiment=optimizers/vgg11_mnist": "c2bc057c",
    "experiment=optimizers/vit_cifar10_small": "19db607b",
    "experiment=pan_cao/fig1": "23eff157",
    "experiment=pan_cao/fig3": "3c9d2b31",
    "experiment=pan_cao/fig8_small": "34ae7f82",
    "experiment=pan_cao/layer_peeled": "43c9b280",
    "experiment=pan_thesis/fig3_1_small": "e47dca91",
    "experiment=quickstart": "e08a7f7f",
    "loss=cross_entropy": "eb4148ed",
    "loss=exponential": "59f81e58",
    "loss=square": "1f5301b7",
    "loss=square_signs": "3629b9c2",
    "model=convnet": "fffb87b5",
    "model=mlp": "eb4148ed",
    "model=resnet": "96fbbb9b",
    "model=resnet18": "fe4568f2",
    "model=resnet34": "6f56b227",
    "model=resnet9": "82629ef5",
    "model=unconstrained": "93dec396",
    "model=vgg": "4d80fdbe",
    "model=vgg11": "4ea7d015",
    "model=vgg13": "e5ea1a8e",
    "model=vgg16": "f295fa4b",
    "model=vgg19": "87012257",
    "model=vit": "61cdcc43",
    "optimizer=adam": "eb4148ed",
    "optimizer=adamw": "6dc8cb87",
    "optimizer=sgd": "07c76d9b",
    "optimizer=signum": "b3dc6879",
    "+recipe=optimizers": "eb4148ed",
    "+recipe=optimizers_vision": "6a451b72",
    "+recipe=pan_cao": "eb4148ed",
    "+recipe=pan_cao_mlp": "eb4148ed",
    "+recipe=pan_cao_vgg": "9bea152b",
    "scheduler=constant": "7e5c1957",
    "scheduler=cosine": "5e665476",
    "scheduler=milestones": "eb4148ed",
    "trainer=auto": "eb4148ed",
    "trainer=cpu": "eb4148ed",
    "trainer=ddp": "eb4148ed",
    "trainer=gpu": "eb4148ed",
}


@pytest.mark.parametrize(("option", "published"), PUBLISHED.items())
def test_the_id_of_a_published_run_stays(option, published, config):
    assert run_id(config(option)) == published


def test_every_option_that_can_change_an_id_has_its_own_written_down():
    groups = {option.lstrip("+").split("=")[0] for option in PUBLISHED} - {"experiment"}
    assert groups == {folder.name for folder in CONF_DIR.iterdir() if folder.is_dir()} - {
        "experiment",
        "hydra",
        "logger",
    }
    shipped = {f"{group}={file.stem}" for group in groups for file in (CONF_DIR / group).glob("*.yaml")}
    assert shipped == {option.lstrip("+") for option in PUBLISHED if not option.startswith("experiment")}


@pytest.mark.parametrize("option", ["data=conic_hull", "model=convnet", "loss=square", "scheduler=milestones"])
def test_the_id_of_a_run_does_not_know_where_a_class_of_ours_lies(option, config, monkeypatch):
    cfg = config(option)
    group = option.split("=")[0]
    first = cfg[group]._target_
    cfg[group]._target_ = "ncflow.elsewhere.Moved"
    assert run_id(cfg) != PUBLISHED[option]
    monkeypatch.setitem(identity.MOVED, "ncflow.elsewhere.Moved", first)
    assert run_id(cfg) == PUBLISHED[option]


def test_a_class_of_somebody_else_counts_by_its_path(config):
    ids = {
        run_id(config(f"model._target_={path}")) for path in ("mine.Net", "mine.models.Net", "ncflow.models.mlp.MLP")
    }
    assert len(ids) == 3


def test_an_id_is_made_of_any_target():
    """It is refused later, in a line."""
    assert len(run_id(OmegaConf.create({"model": {"_target_": ["a", "b"]}}))) == 8


def test_a_class_that_moved_is_where_it_is_said_to_be():
    for path, first in identity.MOVED.items():
        assert callable(locate("group", path))
        assert path.startswith("ncflow.")
        assert first.startswith("ncflow.")
        assert first not in identity.MOVED, f"{path} counts by the first path of all"
