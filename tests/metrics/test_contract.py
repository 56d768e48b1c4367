"""The Metric among others of torchmetrics, and in a Lightning module."""

import copy
import io
import pickle

import lightning as L
import matplotlib
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection, MetricTracker, MinMaxMetric
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from ncflow.checks import ArgumentError
from ncflow.metrics import NeuralCollapse, neural_collapse

N, C, D = 60, 3, 5
Y = torch.arange(N) % C
X = torch.randn(N, D, generator=torch.Generator().manual_seed(2)) + torch.eye(D)[Y] * 2
BATCHES = list(zip(X.split(7), Y.split(7), strict=True))


def head(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(D, C)


def filled(metric, batches=BATCHES):
    for features, labels in batches:
        metric.update(features, labels)
    return metric


def floats(measures):
    return {name: value.item() for name, value in measures.items()}


def whole(classifier=None, X=X, Y=Y, **options):
    given = () if classifier is None else (classifier.weight, classifier.bias)
    return pytest.approx(floats(neural_collapse(X, Y, C, *given, **options)), rel=1e-12, abs=1e-14)


def twice(value, group=None):
    """What a second rank with the same samples would give."""
    return [value, value.clone()]


TWO_RANKS = {"dist_sync_fn": twice, "distributed_available_fn": lambda: True}
DOUBLED = {"X": X.repeat(2, 1), "Y": Y.repeat(2)}


# --- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied",
    [
        lambda metric: metric.clone(),
        copy.deepcopy,
        lambda metric: MetricCollection({"nc": metric}).clone()["nc"],
        lambda metric: MetricTracker(metric, maximize=True)._base_metric.clone(),
        lambda metric: metric["nc1"].clone().metric_a,
    ],
)
def test_a_copy_reads_the_classifier_as_it_is_now(copied):
    classifier = head()
    other = copied(filled(NeuralCollapse(C, D, classifier)))
    nn.init.normal_(classifier.weight)
    assert floats(other.compute()) == whole(classifier)


class Net(nn.Module):
    """A network with its metric, registered first or last."""

    def __init__(self, first):
        super().__init__()
        fc = head()
        if first:
            self.metric = NeuralCollapse(C, D, fc)
        self.fc = fc
        if not first:
            self.metric = NeuralCollapse(C, D, fc)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_the_metric_of_a_copied_network_reads_the_copied_classifier(first, copied):
    net = Net(first)
    filled(net.metric)
    other = copied(net)
    nn.init.normal_(other.fc.weight)
    assert floats(other.metric.compute()) == whole(other.fc)
    assert floats(net.metric.compute()) == whole(net.fc)


# --- synchronisation ------------------------------------------------------------------------------------------------


def test_unsync_without_sync_and_sync_twice_are_refused():
    metric = filled(NeuralCollapse(C, D, **TWO_RANKS))
    with pytest.raises(TorchMetricsUserError, match="already been un-synced"):
        metric.unsync()
    metric.sync(dist_sync_fn=twice)
    with pytest.raises(TorchMetricsUserError, match="already been synced"):
        metric.sync(dist_sync_fn=twice)
    with pytest.raises(TorchMetricsUserError, match="call unsync"):
        metric.update(X, Y)
    with pytest.raises(TorchMetricsUserError, match="call unsync"):
        metric(X, Y)
    metric.unsync()
    assert metric.class_counts().tolist() == [40.0] * 3


@pytest.mark.parametrize("limit", [None, 0])
@pytest.mark.parametrize("restored", [lambda metric: metric, lambda metric: pickle.loads(pickle.dumps(metric))])
def test_states_and_pickles_after_sync_are_of_all_ranks(limit, restored):
    metric = filled(NeuralCollapse(C, D, head(), max_cached_bytes=limit, **TWO_RANKS))
    if metric.second_pass():
        filled(metric)
    metric.sync(dist_sync_fn=twice)
    assert metric.counts.tolist() == [40.0] * 3
    metric.distributed_available_fn = metric.dist_sync_fn = None  # which cannot be pickled
    found = restored(metric)
    assert floats(found.compute()) == whole(head(), **DOUBLED)
    found.unsync()
    found.distributed_available_fn = lambda: False
    assert found.counts.tolist() == [20.0] * 3
    if limit is None:  # else the second pass was around the means of all ranks
        found._computed = None
        assert floats(found.compute()) == whole(head())


def test_compute_is_over_all_ranks_and_moves_no_features():
    sent = []
    metric = filled(
        NeuralCollapse(C, D, head(), **{**TWO_RANKS, "dist_sync_fn": lambda v, group: sent.append(v) or [v, v]})
    )
    assert floats(metric.compute()) == whole(head(), **DOUBLED)
    assert max(value.numel() for value in sent) == C * D
    assert metric.counts.tolist() == [20.0] * 3
    alone = filled(NeuralCollapse(C, D, head(), sync_on_compute=False, **TWO_RANKS))
    assert floats(alone.compute()) == whole(head())


def test_a_state_dict_carries_all_samples():
    metric = filled(NeuralCollapse(C, D, head()))
    metric.persistent(True)
    file = io.BytesIO()
    torch.save(metric.state_dict(), file)
    file.seek(0)
    other = NeuralCollapse(C, D, head())
    other.persistent(True)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert floats(filled(other, BATCHES[:1]).compute()) == floats(filled(metric, BATCHES[:1]).compute())


# --- update and forward ----------------------------------------------------------------------------------------------


class Unread(list):
    """A list that must not be gone through."""

    def __iter__(self):
        raise AssertionError("an update goes through all earlier batches")


def test_an_update_costs_the_same_however_many_came_before():
    metric = filled(NeuralCollapse(C, D), BATCHES[:3])
    metric.features = Unread(metric.features)
    filled(metric, BATCHES[3:])
    metric.features = list.copy(metric.features)
    assert floats(metric.compute()) == whole()


@pytest.mark.parametrize("limit", [None, 200, 0])
@pytest.mark.parametrize("given", [True, False])
def test_forward_gives_the_batch_and_takes_it_in(limit, given):
    classifier = head()
    metric = NeuralCollapse(C, D, classifier, max_cached_bytes=limit)
    passes = 0
    while passes == 0 or metric.second_pass():
        passes += 1
        for features, labels in BATCHES:
            logits = classifier(features) if given else None
            found = metric(features, labels, logits)
            assert floats(found) == whole(classifier, features, labels, logits=logits)
    assert passes == (1 if limit is None else 2)
    logits = torch.cat([classifier(features) for features, _ in BATCHES]) if given else None
    assert floats(metric.compute()) == whole(classifier, logits=logits)


def test_forward_over_ranks_on_each_step():
    metric = NeuralCollapse(C, D, dist_sync_on_step=True, **TWO_RANKS)
    assert floats(metric(X, Y)) == whole(**DOUBLED)
    assert floats(NeuralCollapse(C, D, **TWO_RANKS)(X, Y)) == whole()


@pytest.mark.parametrize(
    "cast",
    [
        lambda module: module.half(),
        lambda module: module.to(torch.bfloat16),
        lambda module: module.float(),
        lambda module: [child.set_dtype(torch.float16) for child in module],
        lambda module: module.type(torch.float16),
    ],
)
def test_sums_stay_in_float64_whatever_the_module_is_cast_to(cast):
    metric = filled(NeuralCollapse(C, D), BATCHES[:4])
    cast(nn.ModuleList([metric]))
    assert metric.sums.dtype == torch.float64
    assert floats(filled(metric, BATCHES[4:]).compute()) == whole()
    metric.reset()
    assert metric.sums.dtype == torch.float64


def test_lists_kept_on_the_cpu_come_back():
    assert floats(filled(NeuralCollapse(C, D, head(), compute_on_cpu=True)).compute()) == whole(head())


# --- collections, measures and wrappers -------------------------------------------------------------------------------


def test_metrics_of_a_collection_read_their_own_classifier_around_their_own_centre():
    one, other = head(1), head(2)
    metrics = MetricCollection(
        {
            "one": NeuralCollapse(C, D, one, max_cached_bytes=0),
            "other": NeuralCollapse(C, D, other, center="none", max_cached_bytes=0),
        }
    )
    for _ in range(2):
        filled(metrics)
        for metric in metrics.values():
            metric.second_pass()
    for name, value in metrics.items():
        expected = whole(one) if name == "one" else whole(other, center="none")
        assert floats(value.compute()) == expected
    metrics.reset()
    filled(metrics)
    assert len(metrics.compute_groups) == 2


def test_a_measure_is_a_metric_of_one_number():
    metric = NeuralCollapse(C, D, head())
    nc1, cdnv = metric["nc1"], metric["cdnv"]
    filled(nc1)
    truth = neural_collapse(X, Y, C)
    assert nc1.compute() == pytest.approx(truth["nc1"].item())
    assert cdnv.compute() == pytest.approx(truth["cdnv"].item())
    assert "nc1" in repr(nc1)
    assert (nc1 + cdnv).compute() == pytest.approx((truth["nc1"] + truth["cdnv"]).item())
    restored = pickle.loads(pickle.dumps(nc1))
    assert restored.compute() == nc1.compute()
    with pytest.raises(ArgumentError, match=r"name must be one of intra_min, .* found 'nc_1'"):
        metric["nc_1"]
    with pytest.raises(ArgumentError, match="found 'nc3_distance'"):
        NeuralCollapse(C, D)["nc3_distance"]


def test_a_batch_counts_once_however_many_measures_are_given_it():
    metric = NeuralCollapse(C, D)
    metrics = MetricCollection({name: metric[name] for name in ("nc1", "intra_min", "cdnv")})
    for features, labels in BATCHES:
        batch = metrics(features, labels)
        assert floats(batch) == {name: floats(neural_collapse(features, labels, C))[name] for name in batch}
        metric.update(features, labels)
    assert metric.class_counts().tolist() == [20.0] * 3
    truth = floats(neural_collapse(X, Y, C))
    assert floats(metrics.compute()) == pytest.approx({name: truth[name] for name in batch}, rel=1e-12)
    metrics.reset()
    filled(metrics)
    filled(metrics)  # the same batches for another time are more samples
    assert metric.class_counts().tolist() == [40.0] * 3


def test_one_batch_given_twice_by_the_same_counts_twice():
    metric = NeuralCollapse(C, D)
    for _ in range(2):
        metric.update(X, Y)
    assert metric.class_counts().tolist() == [40.0] * 3


def test_wrappers_of_a_measure():
    metric = NeuralCollapse(C, D)
    extremes = MinMaxMetric(metric["nc1"])
    extremes.update(X, Y)
    assert extremes.compute()["raw"] == pytest.approx(neural_collapse(X, Y, C)["nc1"].item())
    tracker = MetricTracker(NeuralCollapse(C, D)["intra_min"], maximize=True)
    parts = [(X[:30], Y[:30]), (X[30:], Y[30:])]
    for part in parts:
        tracker.increment()
        tracker.update(*part)
    values = [neural_collapse(*part, C)["intra_min"].item() for part in parts]
    assert tracker.compute_all().tolist() == pytest.approx(values)
    assert tracker.best_metric() == pytest.approx(max(values))


def test_in_a_collection_with_others():
    metrics = MetricCollection({"nc": NeuralCollapse(C, D)}, prefix="val_")
    filled(metrics)
    found = metrics.compute()
    assert found["val_nc1"] == pytest.approx(neural_collapse(X, Y, C)["nc1"].item())


def test_plot():
    matplotlib.use("Agg")
    metric = filled(NeuralCollapse(C, D))
    figure, axes = metric.plot()
    assert "nc1" in str(
        [text.get_text() for text in axes.get_legend().get_texts()] if axes.get_legend() else figure.axes
    )
    figure, axes = metric["nc1"].plot([metric["nc1"].compute()] * 2)
    assert axes is not None


class Logging(L.LightningModule):
    """Logs as Lightning's documentation does."""

    def __init__(self):
        super().__init__()
        self.fc = head()
        self.nc = NeuralCollapse(C, D, self.fc)
        self.nc1, self.nc3 = self.nc["nc1"], self.nc["nc3_cosine_mean"]
        self.both = MetricCollection({"intra_min": self.nc["intra_min"], "inter_max": self.nc["inter_max"]})

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.fc(batch[0]), batch[1])

    def validation_step(self, batch, index):
        x, y = batch
        logits = self.fc(x)
        self.nc1(x, y, logits)
        self.nc3.update(x, y, logits)
        self.both.update(x, y, logits)
        self.log("nc1", self.nc1)
        self.log("nc3", self.nc3, on_epoch=True)
        self.log_dict(self.both)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore")
def test_logged_by_lightning():
    module = Logging()
    loader = DataLoader(TensorDataset(X, Y), 7)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader, loader)
    truth = floats(neural_collapse(X, Y, C, module.fc.weight, module.fc.bias))
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    names = {"nc1": "nc1", "nc3": "nc3_cosine_mean", "intra_min": "intra_min", "inter_max": "inter_max"}
    assert logged == pytest.approx({name: truth[own] for name, own in names.items()}, rel=1e-6)
