"""``lamkit distill``: a small fast student learns from a large teacher."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """examples:
  lamkit distill                                               sample model, sample structures, minutes
  lamkit distill --teacher lamkit-finetune --head mptrj --starts mydata --out student
  lamkit distill --teacher run1 --head mptrj --data heldout    test against your own labels as well
  lamkit distill --calculator ase.calculators.emt:EMT --starts POSCAR --temperatures 300,900
  lamkit distill --out student --resume
  lamkit distill --teacher run1 --set criterion.forces_rmse=0.05 --set train.max_steps=5000

The student is student/checkpoints/best: lamkit evaluate, lamkit explore and LamCalculator read it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    from lamkit.cli import shared_flags

    parser.add_argument("config", nargs="?", help="YAML file (keys: lamkit schema distill)")
    parser.add_argument("--teacher", metavar="CKPT", help="checkpoint or run folder")
    parser.add_argument("--head", metavar="NAME", help="head of the teacher")
    parser.add_argument("--calculator", metavar="MODULE:FUNCTION", help="any ASE calculator as the teacher")
    parser.add_argument("--student", metavar="NAME", help="preset of configs/student, or a YAML file")
    parser.add_argument("--starts", nargs="+", metavar="PATH", help="data sets or structure files")
    parser.add_argument("--data", metavar="DIR", help="held-out labelled data, to test both models on")
    parser.add_argument("--temperatures", metavar="K,K", help="temperatures with commas between")
    parser.add_argument("--n-frames", type=int, metavar="N", help="frames labelled in each round")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds at most")
    shared_flags(parser, training=True)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the verb."""
    from lamkit.cli.stages import numbers, options, run_folder
    from lamkit.stages import distill

    out = run_folder(args, "lamkit-distill")
    given = {
        "teacher": args.teacher,
        "head": args.head,
        "calculator": args.calculator,
        "student": args.student,
        "starts": args.starts,
        "data": args.data,
        "temperatures": numbers("--temperatures", args.temperatures),
        "n_frames": args.n_frames,
        "rounds": args.rounds,
        "train.seed": args.seed,
    }
    return distill.run(options(distill.Options, args, out, given), out)
