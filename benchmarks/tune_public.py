"""A public universal potential, SevenNet, fine-tuned on the drawn DFT frames of a system by its own program.

Energies of the frames are shifted first, by one constant per atom, to the level of the potential (all frames of a
system have one composition); forces do not change. A tenth of the frames validates. Leaves OUT/checkpoint_best.pth,
which ``make_public.py --model`` takes.

Run, in the environment of make_public.py: python benchmarks/tune_public.py --frames FILE.extxyz --out OUT --epochs 8
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.io import read, write
from make_public import potential

# Where sevenn keeps the architecture of its weights.
PRESETS = {"7net-0": "fine_tune.yaml", "7net-l3i5": "sevennet-l3i5.yaml"}


def shift(frames: list[Atoms], calculator: Any) -> float:
    """How far energies of the frames lie above the potential's, eV per atom (from ten of them)."""
    some = [frames[i] for i in np.linspace(0, len(frames) - 1, 10).astype(int)]
    apart = []
    for atoms in some:
        copy = atoms.copy()
        copy.calc = calculator
        apart.append((atoms.get_potential_energy() - copy.get_potential_energy()) / len(atoms))
    return float(np.mean(apart))


def settings(model: dict, args: argparse.Namespace) -> dict:
    """Input of ``sevenn`` for the architecture ``model`` of its own example, with our frames and our schedule."""
    train = {
        "random_seed": args.seed, "is_train_stress": True, "epoch": args.epochs, "loss": "Huber",
        "loss_param": {"delta": 0.01}, "optimizer": "adam", "optim_param": {"lr": args.rate},
        "scheduler": "linearlr",
        "scheduler_param": {"start_factor": 1.0, "end_factor": 0.01, "total_iters": args.epochs},
        "force_loss_weight": 1.0, "stress_loss_weight": 0.01, "per_epoch": args.epochs,
        "error_record": [["Energy", "RMSE"], ["Force", "RMSE"], ["Stress", "RMSE"], ["TotalLoss", "None"]],
        "continue": {
            "checkpoint": args.model, "reset_optimizer": True, "reset_scheduler": True,
            "reset_epoch": True,
        },
    }  # fmt: skip
    data = {
        "batch_size": args.batch, "data_format_args": {"index": ":"},
        "load_trainset_path": ["train.extxyz"], "load_validset_path": ["valid.extxyz"],
    }  # fmt: skip
    return {"model": model | {"chemical_species": "auto"}, "train": train, "data": data}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=PRESETS, default="7net-0")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=0.001)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import sevenn

    preset = yaml.safe_load((Path(sevenn.__file__).parent / "presets" / PRESETS[args.model]).read_text())
    args.out.mkdir(parents=True)
    frames = read(args.frames, index=":")
    above = shift(frames, potential(args.model, None))
    for atoms in frames:
        atoms.calc.results["energy"] -= above * len(atoms)
        atoms.calc.results.pop("free_energy", None)  # which sevenn would prefer
    write(args.out / "train.extxyz", [a for i, a in enumerate(frames) if i % 10 != 5])
    write(args.out / "valid.extxyz", [a for i, a in enumerate(frames) if i % 10 == 5])
    (args.out / "input.yaml").write_text(yaml.safe_dump(settings(preset["model"], args)))
    program = Path(sys.executable).with_name("sevenn")
    subprocess.run([program, "train", "input.yaml", "-s"], cwd=args.out, check=True)


if __name__ == "__main__":
    main()
