"""``ncflow-theory``: the theory's numbers on the command line, without training."""

import argparse
import sys
from collections.abc import Sequence

from ncflow.checks import ArgumentError
from ncflow.theory.layer_peeled import minimum_loss, minimum_regularized_loss, optimal_norm_product


def _optimum(arguments: argparse.Namespace) -> None:
    C = arguments.classes
    print(f"{'classes':>8}{'weight decay':>14}{'alpha beta':>12}{'CE':>12}{'CE + penalty':>14}{'inter limit':>13}")
    for weight_decay in arguments.weight_decay:
        product = optimal_norm_product(C, weight_decay)
        loss, total = minimum_loss(C, 1.0, product), minimum_regularized_loss(C, weight_decay)
        print(f"{C:>8}{weight_decay:>14g}{product:>12.6f}{loss:>12.7f}{total:>14.7f}{-1 / (C - 1):>13.6f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``ncflow-theory``."""
    parser = argparse.ArgumentParser(prog="ncflow-theory", description="Theory of neural collapse, without training.")
    commands = parser.add_subparsers(required=True)
    optimum = commands.add_parser("optimum", help="optimum of the layer-peeled model with weight decay")
    optimum.add_argument("--classes", type=int, required=True, help="number of classes C")
    optimum.add_argument("--weight-decay", type=float, nargs="+", required=True, help="lambda, one or several")
    optimum.set_defaults(command=_optimum)
    parsed = parser.parse_args(arguments)
    try:
        parsed.command(parsed)
    except ArgumentError as error:
        print(f"ncflow-theory: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
