"""``ncflow-theory``: the theory's numbers on the command line, without training."""

import argparse
import sys
from collections.abc import Sequence

from ncflow.checks import ArgumentError
from ncflow.theory.bounds import bounds_from_norms, bounds_from_weight_decay, proof_kappa
from ncflow.theory.layer_peeled import minimum_loss, minimum_regularized_loss, optimal_norm_product
from ncflow.theory.simplex import inter_limit


def _optimum(arguments: argparse.Namespace) -> None:
    C = arguments.classes
    print(f"{'classes':>8}{'weight decay':>14}{'alpha beta':>12}{'CE':>12}{'CE + penalty':>14}{'inter limit':>13}")
    for weight_decay in arguments.weight_decay:
        product = optimal_norm_product(C, weight_decay)
        loss, total = minimum_loss(C, 1.0, product), minimum_regularized_loss(C, weight_decay)
        print(f"{C:>8}{weight_decay:>14g}{product:>12.6f}{loss:>12.7f}{total:>14.7f}{inter_limit(C):>13.6f}")


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ncflow-theory", description="Theory of neural collapse, without training.")
    commands = parser.add_subparsers(required=True)
    optimum = commands.add_parser("optimum", help="optimum of the layer-peeled model with weight decay")
    optimum.add_argument("--classes", type=int, required=True, help="number of classes C")
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
    return parser


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
    except ArgumentError as error:
        print(f"ncflow-theory: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
