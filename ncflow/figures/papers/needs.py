"""Which runs each figure needs, in words: for ``--help``, and for whoever asked for one that the runs do not allow."""

from collections.abc import Iterable

_DECAYS = "finished runs at two weight decays or more whose gamma is trained"
_GAMMAS = "finished runs at two fixed gammas or more: model.gamma=0.5,1,2"
_HISTORY = "finished runs with a history (not logger=none) whose gamma is trained"
_OVER_EPOCHS = "finished runs with a history"

NEEDS = {
    "fig1": "a run of three classes with snapshots: measure.snapshot_samples=30 data.num_classes=3",
    "fig2": _DECAYS,
    "fig3": _HISTORY,
    "fig4": _GAMMAS,
    "fig5": _DECAYS,
    "fig6": _DECAYS,
    "fig7": _HISTORY,
    "fig8": _HISTORY,
    "fig9": _GAMMAS,
    "trajectories": _HISTORY,
    "gap": "three finished runs or more whose gap is known: cross-entropy, and BN without offset or none",
    "fig3_1": "finished runs at two weight decays or more with training accuracy 1",
    "fig3_2": "a run on data in the plane with snapshots: data.dim=2 measure.snapshot_samples=1000",
    "fig3_3": "finished runs with a history of three layers or more: measure.layers=all",
    "cbmm_fig2": f"{_OVER_EPOCHS} and model.init_norm set",
    "cbmm_fig3": "finished runs with measure.margins=true and model.init_norm set",
    "cbmm_fig4": "a finished run with measure.margins=true and three measurements or more",
    "cbmm_fig5": "a finished run with measure.margins=true and measure.first_steps set",
    "cbmm_fig6": _OVER_EPOCHS,
    "cbmm_fig11": "finished runs at two shares of random labels or more: data.random_labels=0,0.5",
    "cbmm_fig12": "finished runs at two initial norms or more: model.init_norm=0.5,1",
    "cbmm_fig13": f"{_OVER_EPOCHS} and data.random_labels",
    "cbmm_fig14": f"{_OVER_EPOCHS}, model.init_norm set and weight decay",
    "cbmm_fig15": f"{_OVER_EPOCHS}, model.init_norm set and no weight decay",
    "cbmm_fig16": f"{_OVER_EPOCHS}, model.init_norm set and weight decay",
    "cbmm_fig17": f"{_OVER_EPOCHS}, model.init_norm set and no weight decay",
    "cbmm_exponential_batch_size": _OVER_EPOCHS,
    "coupling": "finished runs at two coupled shares of weight decay or more: weight_decay_coupling=0,1",
    "optimizers": "finished runs of two optimizers or coupled shares or more: optimizer=sgd,adam",
    "nc0": f"{_OVER_EPOCHS} and nc0",
    "equal_loss": f"{_OVER_EPOCHS} of two momenta or more: optimizer=sgd optimizer.momentum=0,0.9",
    "measured": "models that ncflow-measure measured",
}


def in_lines(names: Iterable[str]) -> list[str]:
    """A line for what these figures need; those that need the same share one."""
    by_need: dict[str, list[str]] = {}
    for name in names:
        if name in NEEDS:
            by_need.setdefault(NEEDS[name], []).append(name)
    return [f"{', '.join(same)}: {need}" for need, same in by_need.items()]
