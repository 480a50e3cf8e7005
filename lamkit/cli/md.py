"""``lamkit md``: molecular dynamics with any checkpoint, head, student or ASE calculator."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  lamkit md                                                  a sample structure with the sample model
  lamkit md POSCAR --model run1 --head mptrj --temperature 600 --steps 20000 --out hot
  lamkit md cells/*.cif --model run1 --head mptrj --ensemble npt --pressure 1 --out squeezed
  lamkit md --out hot --resume --steps 40000                 go on, with more steps
  lamkit md water.xyz --calculator ase.calculators.emt:EMT --ensemble nve

Each structure leaves NAME.extxyz (or .traj), NAME.csv (energies, temperature, pressure, conserved quantity) and
a state to go on from. Exit code 1 if a trajectory had to be stopped. More keys: lamkit schema md, set in a YAML
file (--config) or by --set, for example --set dynamics.friction=0.01."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import shared_flags

    parser.add_argument("structures", nargs="*", metavar="FILE", help="structure files, globs or data sets")
    parser.add_argument("--config", metavar="YAML", help="options in a file")
    parser.add_argument("--model", metavar="CKPT", help="checkpoint or run folder")
    parser.add_argument("--head", metavar="NAME", help="head of the checkpoint")
    parser.add_argument("--calculator", metavar="MODULE:FUNCTION", help="any ASE calculator instead")
    parser.add_argument("--ensemble", choices=["nve", "nvt", "npt"], help="default: nvt")
    parser.add_argument(
        "--thermostat", choices=["langevin", "nose-hoover", "bussi"], help="default: langevin"
    )
    parser.add_argument("--temperature", type=float, metavar="K", help="default: 300")
    parser.add_argument("--pressure", type=float, metavar="GPA", help="of npt; default: 0")
    parser.add_argument("--timestep", type=float, metavar="FS", help="default: 0.5 with hydrogen, else 1")
    parser.add_argument("--steps", type=int, metavar="N", help="default: 1000")
    parser.add_argument("--save-every", type=int, metavar="N", help="steps between frames; default: 10")
    parser.add_argument("--trajectory", choices=["extxyz", "traj"], help="format; default: extxyz")
    shared_flags(parser, training=True)


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Run the verb; exit code 1 where a trajectory was stopped."""
    from lamkit.cli.stages import options, run_folder
    from lamkit.stages import md

    out = run_folder(args, "lamkit-md")
    given = {
        "structures": args.structures or None,
        "model": args.model,
        "head": args.head,
        "calculator": args.calculator,
        "temperature": args.temperature,
        "trajectory": args.trajectory,
        "dynamics.ensemble": args.ensemble,
        "dynamics.thermostat": args.thermostat,
        "dynamics.pressure": args.pressure,
        "dynamics.timestep": args.timestep,
        "dynamics.steps": args.steps,
        "dynamics.save_every": args.save_every,
    }
    result = md.run(options(md.Options, args, out, given), out)
    return result, int(result["n_stopped"] > 0)
