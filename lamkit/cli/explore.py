"""``lamkit explore``: MD with any model, to find structures that a data set does not hold."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  lamkit explore --model run1 --head mptrj --starts mydata --temperatures 300,900 --out found
  lamkit explore --calculator ase.calculators.emt:EMT --starts POSCAR --steps 2000
  lamkit explore --model run1 --starts POSCAR --set dynamics.ensemble=npt --set 'pressures=[0, [0, 20]]'
  lamkit explore --model run1 --starts POSCAR --set 'temperatures=[300, [300, 1200, 300]]' --set perturb.squeezed=5
  lamkit explore explore.yaml --out found --resume

A list inside a list is a schedule: one trajectory that goes through these values at even pace.

A calculator is MODULE:FUNCTION, called without arguments. The data set is found/data."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import shared_flags

    parser.add_argument("config", nargs="?", help="YAML file (keys: lamkit schema explore)")
    parser.add_argument("--starts", nargs="+", metavar="PATH", help="data sets or structure files")
    parser.add_argument("--model", metavar="CKPT", help="checkpoint or run folder that drives the MD")
    parser.add_argument("--head", metavar="NAME", help="head of the checkpoint")
    parser.add_argument(
        "--calculator", metavar="MODULE:FUNCTION", help="any ASE calculator instead of a model"
    )
    parser.add_argument("--n-starts", type=int, metavar="N", help="structures to start from")
    parser.add_argument("--temperatures", metavar="K,K", help="temperatures with commas between")
    parser.add_argument("--steps", type=int, metavar="N", help="time steps of each trajectory")
    parser.add_argument("--timestep", type=float, metavar="FS", help="time step in fs")
    shared_flags(parser, training=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the verb."""
    from lamkit.cli.stages import numbers, options, run_folder
    from lamkit.stages import explore

    out = run_folder(args, "lamkit-explore")
    given = {
        "starts": args.starts,
        "model": args.model,
        "head": args.head,
        "calculator": args.calculator,
        "n_starts": args.n_starts,
        "temperatures": numbers("--temperatures", args.temperatures),
        "dynamics.steps": args.steps,
        "dynamics.timestep": args.timestep,
    }
    return explore.run(options(explore.Options, args, out, given), out)
