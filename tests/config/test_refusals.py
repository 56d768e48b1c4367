"""Silly values: whatever an option is given, a run builds or is refused in one line before anything starts."""

import time
from pathlib import Path

import pytest
import torch
from hydra.errors import HydraException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightning import Trainer
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ncflow.config.explain import explain
from ncflow.config.identity import flat_config, run_id
from ncflow.config.schema import CONF_DIR, ConfigError
from ncflow.config.validate import claim_folder
from ncflow.models.mlp import MLP
from ncflow.runtime import processes
from ncflow.training import assembly, trainer
from ncflow.training.assembly import prepare
from ncflow.training.stacked.plan import _NEEDED, why_alone
from ncflow.training.trainer import TrainerOptions, trainer_options
from tests.conftest import TINY

ALONE = ["~optimizer.betas", "~optimizer.eps", "~optimizer.fused"]
CLIP = "+trainer.gradient_clip_val=1"

REFUSED = [
    # what does nothing but change the identity
    (
        ["+optimizer.weight_decay=0.1"],
        "optimizer.weight_decay must be left out: the run's own weight_decay is what sets",
    ),
    (["+optimizer.params=[]"], "optimizer.params must be left out"),
    (["+optimizer.capturable=true"], "optimizer.capturable must be left out"),
    (["+optimizer.differentiable=true"], "optimizer.differentiable must be left out"),
    (
        ["optimizer._target_=torch.optim.Rprop", *ALONE],
        "weight_decay must be 0 with Rprop, which has none, found 0.0005",
    ),
    (["+loss.ignore_index=-1"], "loss.ignore_index must be left out: it is the mean over a minibatch"),
    (["+loss.reduction=sum"], "loss.reduction must be left out"),
    (["+logger.project=mine"], "logger.project must be one of the options of logger=csv: name"),
    (["logger=wandb", "logger.project=null"], "logger.project must be text, found None"),
    (["logger=wandb", "logger.alerts=often"], "logger.alerts must be true or false, found 'often'"),
    (["+logger.alerts=true"], "logger.alerts must be one of the options of logger=csv: name"),
    (["logger=wandb", "logger.entity=' '"], "logger.entity must be text, found ' '"),
    (
        ["scheduler.fractions=[]"],
        "scheduler.fractions must be at least one number (scheduler=constant has none), found",
    ),
    (["+trainer.max_epochs=5"], "trainer.max_epochs must be left out: epochs is what sets how long a run is"),
    (["+trainer.logger=true"], "trainer.logger must be left out: logger=csv, none, wandb, tensorboard or mlflow is"),
    (["+trainer.gradient_clip_val=0"], "trainer.gradient_clip_val must be null or greater than 0, found 0"),
    (
        ["+trainer.gradient_clip_algorithm=value"],
        "trainer.gradient_clip_algorithm must be null without gradient_clip_val",
    ),
    # what fails in training alone, or does something else there than it says
    (["batch_size=1"], "batch_size must be at least 2 where the model has BN, found 1"),
    (["batch_size=1", "model.norm=all"], "batch_size must be at least 2 where the model has BN, found 1"),
    (["loss.label_smoothing=2"], "loss.label_smoothing must be null or in [0, 1), found 2"),
    (["loss.label_smoothing=-0.1"], "loss.label_smoothing must be null or in [0, 1), found -0.1"),
    (["loss.label_smoothing=some"], "loss.label_smoothing must be a number, found 'some'"),
    (["loss=square", "+loss.label_smoothing=0.1"], "loss.label_smoothing must be one of the options of SquareLoss"),
    (
        ["trainer.precision=16-mixed"],
        "trainer.precision must be one that a CPU has, such as 'bf16-mixed', found '16-mixed'",
    ),
    (
        ["trainer.precision=16-mixed", "trainer.accelerator=gpu", CLIP],
        "optimizer.fused must be false where trainer.gradient_clip_val is set and trainer.precision is '16-mixed'",
    ),
    (
        ["trainer.precision=32"],
        "trainer.precision must be one of '32-true', '64-true', 'bf16-mixed', '16-mixed', found 32",
    ),
    (["+trainer.strategy=fsdp"], "trainer.strategy must be one of 'auto', 'ddp', "),
    (["trainer.accelerator=tpu"], "trainer.accelerator must be one of 'auto', 'cpu', "),
    (["+trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches must be in 1..2147483647, found 0"),
    (["+trainer.accumulate_grad_batches=2147483648"], "trainer.accumulate_grad_batches must be in 1..2147483647, f"),
    (["+trainer.detect_anomaly=1"], "trainer.detect_anomaly must be true or false or null, found 1"),
    (["~trainer.threads"], "trainer.threads must be a whole number of at least 1, found None"),
    (["~trainer.devices"], "trainer.devices must be a whole number of at least 1, found None"),
    (["~trainer.channels_last"], "trainer.channels_last must be true or false, found None"),
    (
        ["+trainer.gradient_clip_algorithm=all"],
        "trainer.gradient_clip_algorithm must be one of 'norm', 'value' or null",
    ),
    (["~trainer.precision"], "trainer.precision must be given"),
    (["measure.layers=null"], "measure.layers must be a name or a list of names, found None"),
    (["measure.layers=3"], "measure.layers must be a name or a list of names, found 3"),
    (["measure.layers={last:1}"], "measure.layers must be a name or a list of names, found {'last': 1}"),
    (["measure.layers=[last,[last]]"], "measure.layers must be a name or a list of names, found ['last', ['last']]"),
    # no numbers, and too large ones
    (["optimizer.lr=inf"], "optimizer.lr must be a finite number, found inf"),
    (["optimizer.betas=[0.9,nan]"], "optimizer.betas must be a finite number, found nan"),
    (["model.gamma=-inf"], "model.gamma must be a finite number, found -inf"),
    (["model.gamma=1e300"], "model: value cannot be converted to type float without overflow"),
    (["model.init_norm=1e300"], "model must start from finite weights, found NaN or infinity in MLP"),
    (["seed=9007199254740993"], "seed must be in -2**53..2**53, found 9007199254740993"),
    (["seed=1" + "0" * 400], "seed must be in -2**53..2**53, found one of 1329 bits"),
    (["model.width=1" + "0" * 30], "model.width must be in -2**53..2**53, found 1" + "0" * 30),
    (["epochs=2147483648"], "epochs must be at most 2147483647, found 2147483648"),
    (["batch_size=1" + "0" * 30], "batch_size must be at most 2147483647, found 1" + "0" * 30),
    (["measure.batch_size=2147483648"], "measure.batch_size must be at most 2147483647, found 2147483648"),
    (["trainer.devices=2147483648"], "trainer.devices must be at most 1024, found 2147483648"),
    (["trainer.num_nodes=65537"], "trainer.num_nodes must be at most 65536, found 65537"),
    (["trainer.threads=2147483648"], "trainer.threads must be at most 1024, found 2147483648"),
    (["model.depth=2147483647"], "model.depth must be at most 10000, found 2147483647"),
    (["model.width=100000000"], "model must fit into memory, of which "),
    (["model.width=4000000000000"], "model: Storage size calculation overflowed"),
    (["data.num_samples=1000000000000"], "data.num_samples must be small enough for memory, "),
    # no text
    (["runs_dir=''"], "runs_dir must be the name of a folder, found ''"),
    (["runs_dir=' '"], "runs_dir must be the name of a folder, found ' '"),
    (["model.name=null"], "model.name must be text, found None"),
    (["data.name=[]"], "data.name must be text, found []"),
    (["optimizer._target_=torch.optim"], "optimizer._target_ must be a class or a function, found 'torch.optim'"),
    (["trainer._target_=3"], "trainer._target_ must be an importable object, found 3"),
]


@pytest.mark.parametrize(
    ("overrides", "message"), REFUSED, ids=lambda value: value[0] if isinstance(value, list) else ""
)
def test_what_no_run_can_have_is_refused_in_one_line(overrides, message, refusal):
    assert refusal(*TINY, *overrides).startswith(message)


@pytest.mark.parametrize("text", ["a\0b", "a\nb"])
def test_text_of_two_lines_or_with_a_nul_is_refused(text, config):
    cfg = config(*TINY)
    cfg.runs_dir = text
    with pytest.raises(ConfigError, match="runs_dir must be") as error:
        prepare(cfg)
    assert "\n" not in str(error.value)


NOT_OURS = sorted(set(Trainer.__init__.__wrapped__.__kwdefaults__) - set(TrainerOptions.__init__.__kwdefaults__))


def test_trainer_options_that_do_nothing_here_are_refused_with_what_does_it(config):
    assert len(NOT_OURS) > 20
    options = OmegaConf.to_container(config(*TINY).trainer)
    for name in NOT_OURS:
        cfg = OmegaConf.create({"trainer": {**options, name: None}})
        with pytest.raises(ConfigError, match=f"^trainer.{name} must be left out: "):
            trainer_options(cfg)


@pytest.mark.parametrize(
    "option",
    [
        CLIP,
        "+trainer.accumulate_grad_batches=2",
        "+trainer.detect_anomaly=true",
        "+trainer.strategy=ddp",
        "trainer.precision=bf16-mixed",
        "trainer.devices=2",
        "trainer.num_nodes=2",
    ],
)
def test_trainer_options_that_would_mix_stacked_cells_are_trained_alone(option, config):
    name = option.lstrip("+").split("=")[0]
    assert why_alone(flat_config(config(*TINY))) is None
    assert why_alone(flat_config(config(*TINY, option))).startswith(f"{name}=")
    if "devices" not in name and "nodes" not in name:
        prepare(config(*TINY, option))


def test_a_list_of_trainer_options_is_sorted_into_what_can_be_stacked_and_what_cannot():
    """A new one has to be thought through: does a stacked run do with it what a run alone does?"""
    alike = {"accelerator", "deterministic", "benchmark", "sync_batchnorm"}
    alike |= {"gradient_clip_algorithm"}  # nothing without gradient_clip_val
    alike |= {"threads", "channels_last"}  # ours, of all of a sweep
    alone = {name for name in TrainerOptions.__init__.__kwdefaults__ if name not in alike}
    assert alone == {name.removeprefix("trainer.") for name in _NEEDED if name.startswith("trainer.")}


def test_devices_that_this_machine_would_start_itself_are_at_most_its_cores(config, refusal, monkeypatch):
    many = ["trainer.devices=64", "model.norm=none"]
    monkeypatch.setattr(processes, "most_devices", lambda: 8)
    assert refusal(*TINY, *many) == "trainer.devices must be at most 8, the cores of this machine, found 64"
    monkeypatch.setattr(trainer, "is_submitted", lambda: True)  # the nodes have others
    prepare(config(*TINY, *many))
    monkeypatch.setattr(trainer, "is_submitted", lambda: False)
    monkeypatch.setattr(processes, "launched", lambda: 64)
    prepare(config(*TINY, *many))


def test_convolutions_with_bn_take_one_sample_where_it_has_several_positions(config, refusal):
    images = ["data=digits", "model=convnet", "model.width=0.1", "batch_size=1"]
    assert refusal(*images) == "batch_size must be at least 2 where the model has BN, found 1"
    data, classifier = prepare(config(*images, "data.size=32"))
    classifier.train()(data.train.inputs[:1])
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        prepare(config(*images, "batch_size=2"))[1].train()(
            prepare(config(*images, "batch_size=2"))[0].train.inputs[:1]
        )


def test_checks_of_the_smallest_batch_leave_the_model_as_it_was(config):
    _, classifier = prepare(config("data=digits32", "model=convnet", "model.width=0.1", "batch_size=1"))
    assert all(float(buffer.sum()) == 0 for name, buffer in classifier.named_buffers() if name.endswith("running_mean"))
    assert classifier.network.classifier.weight.device.type == "cpu"


def sum_of_cubes(reduction="sum"):
    return lambda logits, labels: logits.pow(3).sum()


def test_a_loss_that_is_no_mean_is_refused(refusal):
    target = [f"loss._target_={__name__}.sum_of_cubes"]
    assert refusal(*TINY, *target).startswith("loss must be the mean over the samples of a minibatch, found ")


class ComputesWithItsWeights(MLP):
    """A model that cannot be built without numbers."""

    def __init__(self, input_shape, num_classes, *, width: int = 16):
        super().__init__(input_shape, num_classes, width=width)
        self.scale = float(self.classifier.weight.norm())


def test_a_model_that_needs_numbers_to_be_built_is_built(config):
    cfg = config("data.num_samples=300")
    cfg.model = OmegaConf.create({"_target_": f"{__name__}.ComputesWithItsWeights", "width": 16})
    assert prepare(cfg)[1].network.scale > 0


def test_the_check_of_the_size_changes_no_weights(config):
    cfg = config(*TINY)
    data, classifier = prepare(cfg)
    torch.manual_seed(assembly.derive_seed(cfg.seed, "init"))
    options = {name: value for name, value in cfg.model.items() if name not in ("name", "_target_")}
    alone = MLP(data.input_shape, data.num_classes, **options)
    assert all(map(torch.equal, alone.parameters(), classifier.network.parameters()))


def test_too_wide_a_model_is_refused_at_once(refusal):
    start = time.monotonic()
    refusal(*TINY, "model.width=100000000")
    assert time.monotonic() - start < 10


def test_a_model_needs_memory_for_gradients_and_moments(config, refusal, monkeypatch):
    network = prepare(config(*TINY))[1].network
    weights = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    monkeypatch.setattr(assembly, "free_memory", lambda: 4 * weights)
    prepare(config(*TINY))
    monkeypatch.setattr(assembly, "free_memory", lambda: 4 * weights - 1)
    drawn = lambda tensor, **_: tensor.device.type == "meta" or pytest.fail("it was built")  # noqa: E731
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", drawn)
    assert refusal(*TINY).startswith("model must fit into memory, of which ")


def test_identities_of_numbers_beyond_float64_are_theirs(config):
    assert len({run_id(config(f"seed={seed}")) for seed in (2**53, 2**53 + 1, 10**400)}) == 3


def test_two_runs_do_not_share_a_folder(tmp_path):
    claimed = {}
    claim_folder(claimed, tmp_path / "a", "1")
    claim_folder(claimed, tmp_path / "a", "1")
    claim_folder(claimed, tmp_path / "b", "2")
    with pytest.raises(ConfigError, match=r"hydra.sweep.subdir must tell the runs of a sweep apart, found 'a' for two"):
        claim_folder(claimed, tmp_path / "b" / ".." / "a", "2")


def test_a_sweep_into_one_folder_is_refused_before_it_starts(ncflow, tmp_path):
    done = ncflow("-m", *TINY, "hydra.sweep.subdir=x", "seed=0,1,2")
    assert done.returncode == 2
    line = "ncflow: error: hydra.sweep.subdir must tell the runs of a sweep apart, found 'x' for two\n"
    assert done.stderr == line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_an_empty_folder_of_runs_is_refused_before_one_is_made(mode, ncflow, tmp_path):
    root = [path.stat().st_mtime_ns for path in Path("/").glob("single")]  # of somebody else's, if it is there
    done = ncflow(*mode, *TINY, "runs_dir=''")
    assert done.returncode == 2
    assert done.stderr == "ncflow: error: runs_dir must be the name of a folder, found ''\n"
    assert not list(tmp_path.iterdir())
    assert root == [path.stat().st_mtime_ns for path in Path("/").glob("single")]


def test_an_empty_variable_of_the_shell_means_the_default_folder(ncflow, tmp_path):
    assert ncflow(*TINY, env={"NCFLOW_RUNS_DIR": ""}).returncode == 0
    assert (tmp_path / "runs/single").is_dir()


def test_two_billion_devices_are_refused_before_a_process_starts(ncflow, tmp_path):
    start = time.monotonic()
    done = ncflow(*TINY, "trainer.devices=2147483648", "model.norm=none")
    assert time.monotonic() - start < 300
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("ncflow: error: trainer.devices must be at most ")
    assert not list(tmp_path.rglob("*.log"))


# --- the hunt ---------------------------------------------------------------------------------------------------

SILLY = ["null", "''", "[]", "{}", "true", "1e30", "-1", "0", "abc", "nan", "[null]", "1" + "0" * 30, "0.5"]
GROUPS = {
    "data": ["conic_hull", "teacher_mlp_small", "digits", "sample_index", "arrays"],
    "model": ["mlp", "convnet", "resnet18", "vgg11", "unconstrained"],
    "loss": ["cross_entropy", "square", "exponential"],
    "optimizer": ["adam", "adamw", "sgd"],
    "scheduler": ["milestones", "constant"],
    "trainer": ["cpu", "ddp"],
    "logger": ["csv", "none", "wandb"],
}
SMALL = {
    "convnet": ["data=digits", "model.width=0.1"],
    "resnet18": ["data=digits32", "data.num_samples=20", "model.width=0.1"],
    "vgg11": ["data=digits32", "data.num_samples=20", "model.width=0.02"],
    "unconstrained": ["data=sample_index"],
    "sample_index": ["model=unconstrained"],
    "teacher_mlp_small": ["model.width=64", "data.num_samples=300"],
    "conic_hull": ["data.num_samples=300"],
    "ddp": ["model.norm=none"],
}
RUN = ["seed", "epochs", "batch_size", "weight_decay", "weight_decay_scope", "weight_decay_coupling", "runs_dir"]
RUN += [f"measure.{name}" for name in ("every_n_epochs", "layers", "delta", "self_pairs", "batch_size")]
RUN += [f"measure.{name}" for name in ("snapshot_samples", "margins", "first_steps", "first_epochs")]
RUN += [f"measure.{name}" for name in ("groups", "ood", "per_class")]
OPTIONS = [("model", "mlp", name) for name in RUN]
for group, options in GROUPS.items():
    for option in options:
        file = OmegaConf.load(CONF_DIR / group / f"{option}.yaml")
        while "defaults" in file and "_target_" not in file:
            file = OmegaConf.merge(OmegaConf.load(CONF_DIR / group / f"{file.pop('defaults')[0]}.yaml"), file)
        OPTIONS += [(group, option, f"{group}.{name}") for name in file if name != "defaults"]


def builds_or_is_refused(config, overrides):
    """Return the line of the refusal, None where the run builds; anything else is an error."""
    try:
        prepare(config(*overrides))
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        line = explain(error)
        assert line.strip()
        assert "\n" not in line
        return line
    return None


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choice=st.sampled_from(OPTIONS), value=st.sampled_from(SILLY))
def test_any_option_with_a_silly_value_builds_or_is_refused_in_one_line(choice, value, config):
    group, option, name = choice
    builds_or_is_refused(config, [f"{group}={option}", *SMALL.get(option, []), f"{name}={value}"])
