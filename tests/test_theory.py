import math

import pytest
from scipy.optimize import minimize_scalar

from ncflow.theory.cli import main
from ncflow.theory.layer_peeled import minimum_loss, minimum_regularized_loss, optimal_norm_product

CASES = [(2, 1e-3), (4, 5e-3), (10, 5e-4), (100, 1e-4), (1000, 1e-3), (4, 0.2)]


@pytest.mark.parametrize(("classes", "decay"), CASES)
def test_optimum_equals_numerical_minimisation(classes, decay):
    found = minimize_scalar(
        lambda g: minimum_loss(classes, 1.0, g) + math.sqrt(classes) * decay * g,
        bounds=(0, 100),
        method="bounded",
        options={"xatol": 1e-12},
    )
    assert optimal_norm_product(classes, decay) == pytest.approx(found.x, abs=1e-5)
    assert minimum_regularized_loss(classes, decay) == pytest.approx(found.fun, rel=1e-9)


@pytest.mark.parametrize(("classes", "decay"), CASES)
def test_regularized_loss_equals_the_closed_form_with_the_sign_mended(classes, decay):
    C, root = classes, math.sqrt(classes)
    closed = -math.log(1 - (C - 1) * decay / root) + (C - 1) / root * decay * math.log(root / decay - (C - 1))
    assert minimum_regularized_loss(classes, decay) == pytest.approx(closed, rel=1e-12)


def test_published_sign_is_wrong():
    assert minimum_regularized_loss(4, 5e-3) == pytest.approx(0.0524078, abs=1e-7)


def test_strong_decay_leaves_nothing_to_learn():
    assert optimal_norm_product(4, 0.6) == 0
    assert minimum_regularized_loss(4, 0.6) == pytest.approx(math.log(4))


def test_command_prints_the_table(capsys):
    main(["optimum", "--classes", "4", "--weight-decay", "5e-3", "1e-2"])
    out = capsys.readouterr().out
    assert "0.0524078" in out
    assert len(out.splitlines()) == 3


def test_command_refuses_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["optimum", "--classes", "1", "--weight-decay", "5e-3"])
    assert capsys.readouterr().err.strip() == "ncflow-theory: error: num_classes must be at least 2, found 1"
