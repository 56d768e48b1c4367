"""Figures and verdicts from tables whose right answer is known."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from ncflow.figures import style
from ncflow.figures.claims import CLAIMS, FAILS, HOLDS, TOO_FEW
from ncflow.figures.cli import main
from ncflow.figures.plots import collapse_against
from ncflow.figures.tables import over_seeds, panel_keys, panels
from ncflow.results import COLUMNS, load_history, load_runs, write_json

DECAYS = (1e-4, 1e-3, 1e-2)


def intra(norm, decay, seed, sign=1):
    """With BN it grows with weight decay (sign 1) or falls (sign -1), without BN it is flat and lower."""
    rise = 0.1 * (math.log10(decay) + 3)
    return (0.8 + sign * rise if norm == "last" else 0.6 + 0.01 * rise) + 0.001 * seed


def sweep(root, sign=1, norms=("last", "none"), decays=DECAYS, gammas=(None,), seeds=2, data=("conic_hull", "digits")):
    """Write runs as ``ncflow`` leaves them, with planted measures."""
    for name, norm, decay, gamma, seed in itertools.product(data, norms, decays, gammas, range(seeds)):
        final = intra(norm, decay, seed, sign) - (0 if gamma is None else 0.2 * sign * gamma)
        identity = f"{name}-{norm}-{decay:g}-{gamma}-{seed}"
        config = {"data.name": name, "model.name": "mlp", "model.norm": norm, "model.gamma": gamma, "model.depth": 4}
        measures = {"intra_min": final, "inter_max": 0.5 - final, "interpolated": 1.0, "classes_present": 4.0}
        values = {"run_id": identity, "seed": seed, "weight_decay": decay, **config}
        folder = root / identity
        folder.mkdir(parents=True)
        write_json(folder / "run.json", values)
        named = {f"train/{key}": value for key, value in measures.items()}
        write_json(folder / "result.json", {**values, "status": "done", "seconds": 1.0, **named})
        epochs = np.arange(0, 51, 5)
        speed = 1 / 20 if norm == "last" else 5
        rows = pd.DataFrame({column: np.nan for column in COLUMNS}, index=range(len(epochs)))
        rows = rows.astype({"split": object, "layer": object}).assign(epoch=epochs, split="train", layer="last")
        path = final * (1 - np.exp(-epochs * speed))
        rows = rows.assign(loss=np.exp(-epochs / 10), intra_min=path, inter_max=0.5 - path, nc3_cosine_min=path)
        rows.assign(classes_present=4.0).to_csv(folder / "history.csv", index=False)
    return load_runs(root), load_history(root)


def answers(runs, history):
    return [claim(runs, history).answer for claim in CLAIMS]


def test_claims_hold_where_they_were_planted(tmp_path):
    assert answers(*sweep(tmp_path)) == [HOLDS, HOLDS, HOLDS, TOO_FEW, TOO_FEW]


def test_claims_fail_where_the_opposite_was_planted(tmp_path):
    runs, history = sweep(tmp_path, sign=-1)
    assert answers(runs, history)[1] == FAILS
    swapped = runs.assign(**{"model.norm": runs["model.norm"].map({"last": "none", "none": "last"})})
    assert answers(swapped, history)[0] == FAILS
    assert answers(swapped, history)[2] == FAILS


@pytest.mark.parametrize("lack", [{"norms": ["last"]}, {"norms": ["none"]}, {"decays": [1e-3]}])
def test_claims_ask_for_the_runs_they_lack(tmp_path, lack):
    assert answers(*sweep(tmp_path, **lack))[:2] == [TOO_FEW, TOO_FEW]


def test_claim_on_gamma(tmp_path):
    gammas = (0.1, 0.3, 1.0)
    assert answers(*sweep(tmp_path / "a", norms=["last"], gammas=gammas, decays=[5e-3]))[3] == HOLDS
    assert answers(*sweep(tmp_path / "b", norms=["last"], gammas=gammas, decays=[5e-3], sign=-1))[3] == FAILS


def test_claim_on_a_thousand_classes(tmp_path):
    runs, history = sweep(tmp_path, norms=["last"], data=["imagenet32"])
    runs["train/classes_present"] = 1000.0
    both = pd.concat(
        [
            runs.assign(**{"model.name": "vgg11", "train/inter_quantile": runs["weight_decay"]}),
            runs.assign(**{"model.name": "resnet18", "train/inter_quantile": -runs["weight_decay"]}),
        ],
        ignore_index=True,
    )
    assert answers(both, history)[4] == HOLDS
    both["train/inter_quantile"] *= -1
    assert answers(both, history)[4] == FAILS


def test_verdicts_carry_their_numbers(tmp_path):
    runs, history = sweep(tmp_path, data=["digits"])
    text = str(CLAIMS[0](runs, history))
    assert "digits: intra 0.900 with BN, 0.611 without" in text or "0.9" in text
    assert "2 seeds" in text


def test_panels_are_what_varies_besides_the_axes(tmp_path):
    runs, _ = sweep(tmp_path)
    assert panel_keys(runs) == ["data.name"]
    assert [values["data.name"] for values, _ in panels(runs)] == ["conic_hull", "digits"]
    one = runs[runs["data.name"] == "digits"]
    assert [values for values, _ in panels(one)] == [{}]
    depth = runs.assign(**{"model.depth": [4, 6] * (len(runs) // 2)})
    assert panel_keys(depth) == ["data.name", "model.depth"]


def test_mean_and_standard_deviation_over_seeds():
    runs = pd.DataFrame({"weight_decay": [1, 1, 2], "train/x": [1.0, 3.0, 5.0]})
    table = over_seeds(runs, "weight_decay", "train/x")
    assert table.to_numpy().tolist() == [[2.0, math.sqrt(2), 2], [5.0, 0.0, 1]]


def test_fig2_draws_the_planted_means_and_the_limit(tmp_path):
    style.use()
    runs, _ = sweep(tmp_path, data=["digits"])
    runs.loc[(runs["model.norm"] == "none") & (runs["weight_decay"] == 1e-2), "train/interpolated"] = 0.0
    figure = collapse_against(runs, "weight_decay")
    (axis,) = figure.axes
    bn = next(line for line in axis.lines if line.get_color() == style.COLOURS["last"] and line.get_linestyle() == "-")
    expected = [np.mean([intra("last", decay, seed) for seed in range(2)]) for decay in DECAYS]
    assert list(bn.get_xdata()) == list(DECAYS)
    assert bn.get_ydata() == pytest.approx(expected)
    levels = {line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":"}
    assert levels == {1, -1 / 3}
    hollow = [line for line in axis.lines if line.get_marker() == "s" and line.get_markerfacecolor() == "white"]
    assert {tuple(line.get_xdata()) for line in hollow} == {(1e-2,)}


def test_command_draws_every_format_and_prints_verdicts(tmp_path, capsys):
    sweep(tmp_path)
    main([str(tmp_path), "--format", "png", "--format", "pdf", "--format", "svg"])
    out = capsys.readouterr().out
    assert "24 runs: 24 done" in out
    assert out.count("HOLDS") == 3
    names = {"fig2", "trajectories_conic_hull", "trajectories_digits"}
    files = {file.name for file in (tmp_path / "figures").iterdir()}
    assert files == {f"{name}.{suffix}" for name in names for suffix in ("png", "pdf", "svg")}
    assert all((tmp_path / "figures" / file).stat().st_size > 5000 for file in files)
    assert (tmp_path / "figures/fig2.png").read_bytes()[:4] == b"\x89PNG"


def test_command_names_runs_that_did_not_finish(tmp_path, capsys):
    sweep(tmp_path / "a")
    (tmp_path / "a" / "broken").mkdir()
    write_json(tmp_path / "a" / "broken" / "run.json", {"run_id": "x", "status": "failed", "error": "boom"})
    main([str(tmp_path), "--figure", "fig2", "--out", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert "25 runs: 24 done, 1 failed" in out
    assert "broken: boom" in out
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["fig2.png"]


def test_command_refuses_in_one_line(tmp_path, capsys):
    for folder, message in ((tmp_path / "none", "no folder"), (tmp_path, "no runs below")):
        with pytest.raises(SystemExit, match="2"):
            main([str(folder)])
        error = capsys.readouterr().err
        assert error.startswith("ncflow-figures: error: FileNotFoundError") or message in error
        assert len(error.splitlines()) == 1


def test_too_few_runs_for_a_figure_is_said(tmp_path, capsys):
    write_json(tmp_path / "run.json", {"run_id": "x", "status": "failed"})
    with pytest.raises(SystemExit, match="1"):
        main([str(tmp_path)])
    assert "no figure" in capsys.readouterr().err
