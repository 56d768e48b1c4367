"""``ncflow-theory``: the theory's numbers and pictures on the command line, without training."""

import argparse
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from ncflow.checks import ArgumentError, require
from ncflow.theory.bounds import bounds_from_norms, bounds_from_weight_decay, proof_kappa
from ncflow.theory.layer_peeled import minimum_loss, minimum_regularized_loss, optimal_norm_product
from ncflow.theory.simplex import inter_limit

if TYPE_CHECKING:
    from ncflow.theory.toy_model.flow import Trajectory

FORMATS = ("png", "pdf", "svg")


def _optimum(arguments: argparse.Namespace) -> None:
    if arguments.shares is not None:
        return _optimum_for_shares(arguments)
    C = arguments.classes
    print(f"{'classes':>8}{'weight decay':>14}{'alpha beta':>12}{'CE':>12}{'CE + penalty':>14}{'inter limit':>13}")
    for weight_decay in arguments.weight_decay:
        product = optimal_norm_product(C, weight_decay)
        loss, total = minimum_loss(C, 1.0, product), minimum_regularized_loss(C, weight_decay)
        print(f"{C:>8}{weight_decay:>14g}{product:>12.6f}{loss:>12.7f}{total:>14.7f}{inter_limit(C):>13.6f}")
    return None


def _optimum_for_shares(arguments: argparse.Namespace) -> None:
    from ncflow.theory.given_shares import FORMS, optimum

    print(f"{'form':>8}{'weight decay':>14}{'alpha beta':>12}{'CE':>12}{'CE + penalty':>14}{'rank':>6}", end="")
    print(f"{'intra':>7}{'inter mean':>12}{'inter max':>12}")
    for weight_decay in arguments.weight_decay:
        for form in FORMS:
            found = optimum(arguments.shares, weight_decay, form)
            print(f"{form:>8}{weight_decay:>14g}{found.norm_product:>12.6f}{found.loss:>12.7f}", end="")
            print(f"{found.regularized_loss:>14.7f}{found.rank:>6}{found.intra:>7.0f}", end="")
            print(f"{found.inter_mean:>12.6f}{found.inter_max:>12.6f}")


def _bound(arguments: argparse.Namespace) -> None:
    C, decay, delta = arguments.classes, arguments.weight_decay, arguments.delta
    if decay is not None:
        product = optimal_norm_product(C, decay)
        kind = f"Theorem 2.2: C = {C}, weight decay {decay:g}"
    else:
        product = arguments.alpha * arguments.beta
        kind = f"Theorem 2.1: C = {C}, alpha = {arguments.alpha:g}, beta = {arguments.beta:g}"
    kappa = arguments.kappa if arguments.kappa is not None else proof_kappa(C, product)
    note = " (the least that the proof needs)" if arguments.kappa is None else ""
    print(f"{kind}, delta = {delta:g}, kappa = {kappa:.6g}{note}")
    print(f"{'gap':>12}{'intra >=':>13}{'NC3 cos >=':>13}{'inter <=':>13}  vacuous")
    for epsilon in arguments.gap:
        if decay is not None:
            found = bounds_from_weight_decay(C, decay, epsilon, delta=delta, kappa=kappa)
        else:
            found = bounds_from_norms(C, arguments.alpha, arguments.beta, epsilon, delta=delta, kappa=kappa)
        empty = [name for name in ("intra", "nc3", "inter") if getattr(found, f"{name}_vacuous")]
        print(
            f"{epsilon:>12g}{found.intra:>13.6g}{found.nc3_cosine:>13.6g}{found.inter:>13.6g}  "
            + ("all" if found.vacuous else ", ".join(empty) or "none")
        )


def _flow(arguments: argparse.Namespace) -> None:
    require(arguments.depth >= 1, "depth", "at least 1", arguments.depth)
    require(0 < arguments.duration < inf, "duration", "greater than 0 and finite", arguments.duration)
    decays = sorted({0.0, arguments.weight_decay})
    paths = {(rho, decay): _path(arguments, rho, decay) for decay in decays for rho in arguments.norm}
    order = f"second-order flow, eta = {arguments.step:g}" if arguments.step else "gradient flow"
    size = f"{arguments.depth} layers, {arguments.samples} samples in {arguments.dim} dimensions"
    print(f"{arguments.kind} {order}: {size}")
    print(
        f"{'rho(0)':>9}{'lambda':>10}{'rho_eq':>11}{'rho(end)':>11}{'min margin':>12}{'mean margin':>13}{'loss':>12}"
        f"{'frequency':>11}"
    )
    for (rho, decay), path in paths.items():
        print(_flow_row(arguments, rho, decay, path))
    if arguments.out is not None:
        _draw(arguments, paths)


def _path(arguments: argparse.Namespace, rho: float, decay: float) -> "Trajectory":
    import numpy as np

    from ncflow.theory.toy_model.flow import gradient_flow
    from ncflow.theory.toy_model.network import random_data, random_network

    widths = [arguments.dim, *[arguments.width] * (arguments.depth - 1)]
    network = random_network(widths, rho, arguments.seed, bend=arguments.bend)
    data = random_data(arguments.samples, arguments.dim, arguments.seed)
    times = np.concatenate([[0], np.geomspace(arguments.duration * 1e-5, arguments.duration, 300)])
    return gradient_flow(network, data, times, weight_decay=decay, kind=arguments.kind, step=arguments.step)


def _flow_row(arguments: argparse.Namespace, rho: float, decay: float, path: "Trajectory") -> str:
    from ncflow.theory.toy_model.norm import equilibrium_rho, equivalent_decay, oscillation

    margins, end = path.margins[-1], float(path.rho[-1])
    normalized = arguments.kind == "normalized"
    same = equivalent_decay(decay, end, arguments.depth) if arguments.kind == "unnormalized" else decay
    # The formula is of rho as a parameter of its own.
    oscillates = normalized and arguments.step > 0
    frequency = f"{oscillation(margins, decay, arguments.step).frequency:.5g}" if oscillates else "-"
    return (
        f"{rho:>9g}{decay:>10g}{equilibrium_rho(margins, same):>11.5g}{end:>11.5g}{margins.min():>12.5g}"
        f"{margins.mean():>13.5g}{path.loss[-1]:>12.4e}{frequency:>11}"
    )


def _draw(arguments: argparse.Namespace, paths: "dict[tuple[float, float], Trajectory]") -> None:
    from ncflow.figures import style
    from ncflow.figures.files import refuse_foreign, render, write_own
    from ncflow.figures.plots.flow import drawings

    style.use()
    files = {
        arguments.out / f"{drawing.name}.{arguments.format}": drawing
        for drawing in drawings(paths, arguments.weight_decay)
    }
    refuse_foreign(files)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for file, drawing in files.items():
        assert not isinstance(drawing.content, bytes)  # no animation among them
        write_own(file, render(drawing.content, arguments.format))
        print(file)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ncflow-theory", description="Theory of neural collapse, without training.")
    commands = parser.add_subparsers(required=True)
    optimum = commands.add_parser(
        "optimum",
        help="optimum of the layer-peeled model with weight decay",
        description="For C equal classes, or for classes with given shares of the samples: with free features, with "
        "class means that sum to 0 under the shares (BN without offset), and with a bias of the classifier.",
    )
    classes = optimum.add_mutually_exclusive_group(required=True)
    classes.add_argument("--classes", type=int, help="number of classes C, of equal size")
    classes.add_argument("--shares", type=float, nargs="+", help="of each class, or numbers in proportion to them")
    optimum.add_argument("--weight-decay", type=float, nargs="+", required=True, help="lambda, one or several")
    optimum.set_defaults(command=_optimum)
    bound = commands.add_parser(
        "bound",
        help="how near to collapse a loss gap forces a model to be",
        description="Theorem 2.2 (gap of the regularised loss) with --weight-decay, 2.1 with --alpha and --beta.",
    )
    bound.add_argument("--classes", type=int, required=True, help="number of classes C")
    bound.add_argument("--gap", type=float, nargs="+", required=True, help="gap to the least loss, one or several")
    bound.add_argument("--weight-decay", type=float, help="lambda")
    bound.add_argument("--alpha", type=float, help="bound of the features' root mean square norm")
    bound.add_argument("--beta", type=float, help="bound of |W|_F/sqrt(C)")
    bound.add_argument("--delta", type=float, default=0.05, help="share of classes that may violate it (default 0.05)")
    bound.add_argument("--kappa", type=float, help="the theorems' constant; by default the least that the proof needs")
    bound.set_defaults(command=_bound)
    _add_flow(commands)
    return parser


def _add_flow(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    flow = commands.add_parser(
        "flow",
        help="gradient flow of the square loss on a small network: norm, margins, landscape",
        description="The toy model of CBMM Memo 117 on random inputs and labels, with and without weight decay.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    flow.add_argument("--norm", type=float, nargs="+", default=[0.1, 5.0, 30.0], help="initial rho, one or several")
    flow.add_argument("--weight-decay", type=float, default=1e-3, help="lambda, beside 0")
    flow.add_argument(
        "--kind",
        choices=("normalized", "unnormalized", "last_free"),
        default="normalized",
        help="of which layers a Lagrange multiplier keeps the norm: of all (rho beside them), none, all but the last",
    )
    flow.add_argument("--step", type=float, default=0.0, help="eta: second-order flow of gradient descent; 0: flow")
    flow.add_argument("--duration", type=float, default=1000.0, help="length in time")
    flow.add_argument("--samples", type=int, default=8, help="N")
    flow.add_argument("--dim", type=int, default=6, help="dimension d of the inputs")
    flow.add_argument("--depth", type=int, default=2, help="layers L")
    flow.add_argument("--width", type=int, default=32, help="units of each hidden layer")
    flow.add_argument("--bend", type=float, default=1e-2, help="width over which the ReLU bends")
    flow.add_argument("--seed", type=int, default=0, help="of data and weights")
    flow.add_argument("--out", type=Path, help="folder for the pictures, if they are wanted")
    flow.add_argument("--format", choices=FORMATS, default="png", help="file format")
    flow.set_defaults(command=_flow)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``ncflow-theory``."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.command is _bound:
        given = [value is not None for value in (parsed.weight_decay, parsed.alpha, parsed.beta)]
        if given not in ([True, False, False], [False, True, True]):
            parser.error("bound must be given --weight-decay, or both --alpha and --beta")
    try:
        parsed.command(parsed)
    except (ArgumentError, OSError, RuntimeError) as error:
        print(f"ncflow-theory: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
