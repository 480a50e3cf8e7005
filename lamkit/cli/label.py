"""``lamkit label``: energies, forces and stresses for structures, by a model, an ASE calculator or a DFT program."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  lamkit label --data found/data --model run1 --head mptrj --out labelled
  lamkit label --data structures.xyz --calculator mycode:make_dft_calculator --out labelled
  lamkit label dft.yaml --data found/data --jobs 4 --out labelled
  lamkit label --data two.xyz --set 'cp2k={functional: PBEsol, cutoff: 400}' --out labelled
  lamkit label --out labelled --resume

A calculator is MODULE:FUNCTION, called without arguments. The data set is labelled/data.

dft.yaml for CP2K                     dft.yaml for VASP
  cp2k:                                 vasp:
    command: mpirun -n 8 cp2k.psmp        command: mpirun -n 32 vasp_std
    functional: PBEsol                    incar: INCAR
    cutoff: 800                           potcars: /opt/vasp/potpaw_PBE.54
    kspacing: 0.3                         potentials: {Ba: Ba_sv}
                                          kspacing: 0.2
Each frame is computed in a folder of its own, labelled/parts/tasks/...; a frame that fails or does not converge is
reported with the reason and left out. All keys: lamkit schema label."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import shared_flags

    parser.add_argument("config", nargs="?", help="YAML file (keys: lamkit schema label)")
    parser.add_argument("--data", metavar="PATH", help="data set or structure file")
    parser.add_argument("--model", metavar="CKPT", help="checkpoint or run folder that labels")
    parser.add_argument("--head", metavar="NAME", help="head of the checkpoint")
    parser.add_argument(
        "--calculator", metavar="MODULE:FUNCTION", help="any ASE calculator instead of a model"
    )
    parser.add_argument("--chunk", type=int, metavar="N", help="frames a model labels and saves together")
    parser.add_argument("--jobs", type=int, metavar="N", help="DFT tasks at the same time")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds that a DFT task may take")
    shared_flags(parser, training=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the verb."""
    from lamkit.cli.stages import options, run_folder
    from lamkit.stages import label

    out = run_folder(args, "lamkit-label")
    given = {
        "data": args.data,
        "model": args.model,
        "head": args.head,
        "calculator": args.calculator,
        "chunk": args.chunk,
        "jobs": args.jobs,
        "timeout": args.timeout,
    }
    args.seed = None  # nothing here is random
    return label.run(options(label.Options, args, out, given), out)
