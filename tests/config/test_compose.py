"""Cells composed from what they share are those that Hydra composes one by one."""

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf, open_dict, read_write

from ncflow.config.compose import Cells, Composer, folder_of
from ncflow.config.identity import describe, experiment_name, flat_config, resolved_once
from ncflow.config.schema import CONF_DIR, register

EXPERIMENTS = sorted(
    str(file.relative_to(CONF_DIR / "experiment").with_suffix("")) for file in (CONF_DIR / "experiment").rglob("*.yaml")
)


@pytest.fixture
def sweep():
    """Composer, Hydra's own loader and the cells of a sweep, from the arguments of the command."""

    def make(*arguments):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("train", overrides=list(arguments), run_mode=RunMode.MULTIRUN)
        context = HydraContext(config_loader=loader, callbacks=Callbacks())
        grid = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        parsed = OverridesParser.create(config_loader=loader).parse_overrides([*grid, *arguments])
        (cells,) = BasicSweeper.split_arguments(parsed, None)

        def by_hydra(overrides, number):
            cfg = loader.load_sweep_config(config, list(overrides))
            with read_write(cfg.hydra), open_dict(cfg.hydra):
                cfg.hydra.job.id = cfg.hydra.job.num = number
            HydraConfig.instance().set_config(cfg)
            with read_write(cfg.hydra):
                cfg.hydra.runtime.output_dir = str(folder_of(cfg).absolute())
            HydraConfig.instance().set_config(cfg)
            return cfg

        return Composer(context, config), by_hydra, cells

    GlobalHydra.instance().clear()
    register()
    JobRuntime.instance().set("name", "ncflow")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield make
    GlobalHydra.instance().clear()


def known_by(cfg):
    return folder_of(cfg), describe(cfg, experiment_name(cfg)), cfg.hydra.runtime.output_dir


def assert_same(composer, by_hydra, overrides, number):
    theirs = by_hydra(overrides, number)
    with read_write(theirs.hydra):  # what no other process could find out
        theirs.hydra.sweep.subdir = theirs.hydra.sweep.subdir
    expected = OmegaConf.to_container(theirs), known_by(theirs)
    mine = composer.cell(overrides, number)
    assert (OmegaConf.to_container(mine), known_by(mine)) == expected
    assert HydraConfig.get().overrides.task == mine.hydra.overrides.task
    shared = composer.shared(overrides)
    with resolved_once(shared):
        assert known_by(shared) == expected[1]
    assert list(shared.hydra.overrides.task) == list(theirs.hydra.overrides.task)
    assert shared.hydra.job.override_dirname == theirs.hydra.job.override_dirname


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_shipped_experiment(experiment, sweep):
    composer, by_hydra, cells = sweep(f"experiment={experiment}", "trainer=cpu")
    assert_same(composer, by_hydra, cells[-1], len(cells) - 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["seed=0,1", "bn=affine,none"],
        ["+model.alpha=1,2", "weight_decay=1e-3,1e-2"],
        ["~trainer.channels_last", "seed=0,1"],
        ["++model.width=16,32"],
        ["hydra.sweep.subdir=cell${seed}", "seed=3,4"],
        ["hydra.sweep.subdir=${hydra:job.override_dirname}", "seed=3,4"],
        ["hydra.sweep.subdir=${hydra:job.override_dirname}", "optimizer.lr=${weight_decay}", "weight_decay=1e-3,1e-2"],
        ["data.name='${hydra:runtime.cwd}'", "seed=0,1"],
        ["epochs='${ncflow.epochs_of:3000,${data.num_samples},${batch_size}}'", "batch_size=16,null"],
        ["optimizer.lr=${weight_decay}", "weight_decay=1e-3,1e-2"],
        ["measure.layers=[fc1],[fc1,fc2],all"],
        ["measure={delta:0.1},{self_pairs:true}", "seed=0,1"],
        ["measure.groups=[uniformity],null"],
        ["experiment=pan_cao/fig2", "data=conic_hull", "model.norm=last,none"],
        ["data@measure.ood=mnist,digits", "seed=0,1"],
    ],
    ids=str,
)
def test_overrides_of_every_kind(arguments, sweep):
    composer, by_hydra, cells = sweep(*arguments)
    some = cells[:: 1 + len(cells) // 8]
    for number, overrides in enumerate([*some, cells[0]]):  # also after others
        assert_same(composer, by_hydra, overrides, number)


def test_a_value_that_does_not_fit_is_refused_as_by_hydra(sweep):
    composer, by_hydra, _ = sweep("seed=0,1")
    for overrides in (["no.such=1"], ["weight_decays=1"], ["seed=abc"]):
        for compose in (composer.cell, composer.shared):
            with pytest.raises(ConfigCompositionException) as mine:
                compose(overrides)
            with pytest.raises(ConfigCompositionException) as its:
                by_hydra(overrides, 0)
            assert str(mine.value) == str(its.value)
    assert composer.shared(["seed=3"]).seed == 3


def test_a_cell_is_its_own_and_what_is_shared_is_not(sweep):
    composer, _, cells = sweep("seed=0,1")
    one, other = composer.cell(cells[0]), composer.cell(cells[1])
    assert (one.seed, other.seed) == (0, 1)
    shared = composer.shared(cells[0])
    assert composer.shared(cells[1]) is shared
    assert shared.seed == 1
    some = Cells(composer, cells, 5)
    assert [cfg.seed for cfg in some] == [0, 1]
    assert [cfg.hydra.job.num for cfg in some[:]] == [5, 6]


def test_what_is_resolved_once_is_of_one_config_alone(sweep):
    composer, _, cells = sweep("seed=0,1")
    one, other = composer.cell(cells[0]), composer.cell(cells[1])
    with resolved_once(one):
        assert flat_config(other)["seed"] == 1
        flat = flat_config(one)
        flat["seed"] = 7  # the caller's own
        assert flat_config(one)["seed"] == 0
    one.seed = 5
    assert flat_config(one)["seed"] == 5
