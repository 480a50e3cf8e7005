"""``lamkit relax``: relax positions and cells with any checkpoint, head, student or ASE calculator."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  lamkit relax                                               a sample structure with the sample model
  lamkit relax POSCAR --model run1 --head mptrj --cell full --fmax 0.005
  lamkit relax cifs/*.cif --model run1 --head mptrj --cell full --pressure 10 --symmetry --out squeezed
  lamkit relax --out squeezed --resume --max-steps 2000      go on with what did not converge

relaxed.extxyz and relaxed.csv hold every structure, trajectories/ how each got there. Exit code 1 if any did
not converge. More keys: lamkit schema relax, set in a YAML file (--config) or by --set."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import shared_flags

    parser.add_argument("structures", nargs="*", metavar="FILE", help="structure files, globs or data sets")
    parser.add_argument("--config", metavar="YAML", help="options in a file")
    parser.add_argument("--model", metavar="CKPT", help="checkpoint or run folder")
    parser.add_argument("--head", metavar="NAME", help="head of the checkpoint")
    parser.add_argument("--calculator", metavar="MODULE:FUNCTION", help="any ASE calculator instead")
    parser.add_argument(
        "--cell", choices=["fixed", "full", "volume"], help="what of the cell moves; default: fixed"
    )
    parser.add_argument("--pressure", type=float, metavar="GPA", help="default: 0")
    parser.add_argument("--symmetry", action="store_true", default=None, help="keep the space group")
    parser.add_argument("--optimizer", choices=["FIRE", "BFGS", "LBFGS"], help="default: FIRE")
    parser.add_argument("--fmax", type=float, metavar="EV_A", help="largest force in eV/Å; default: 0.02")
    parser.add_argument("--smax", type=float, metavar="GPA", help="largest stress in GPa; default: 0.1")
    parser.add_argument("--max-steps", type=int, metavar="N", help="of each structure; default: 500")
    parser.add_argument("--trajectory", choices=["extxyz", "traj", "none"], help="format; default: extxyz")
    shared_flags(parser, training=True)


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Run the verb; exit code 1 where a structure did not converge."""
    from lamkit.cli.stages import options, run_folder
    from lamkit.stages import relax

    out = run_folder(args, "lamkit-relax")
    shared = ("model", "head", "calculator", "trajectory")
    minimizer = ("cell", "pressure", "symmetry", "optimizer", "fmax", "smax", "max_steps")
    given = {
        "structures": args.structures or None,
        **{name: getattr(args, name) for name in shared},
        **{f"minimizer.{name}": getattr(args, name) for name in minimizer},
    }
    result = relax.run(options(relax.Options, args, out, given), out)
    return result, int(result["n_converged"] < result["n_structures"])
