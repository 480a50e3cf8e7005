"""Error against the number of labelled frames: the sample trunk fine-tuned, and the same network from scratch.

    python examples/bnbzto/learning_curve.py --train new.extxyz --test known.extxyz --sizes 1,2,4,8

Both get the same frames, steps, batches and rate; the last frame of --train is for validation only. Finished points are
kept in OUT/points.json and not computed again; the figure is OUT/learning_curve.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import ase.io
import matplotlib
import numpy as np

from lamkit.data.dataset import DatasetFacts, write_dataset
from lamkit.data.frame import from_atoms
from lamkit.data.heads import load_head
from lamkit.files import atomic_write
from lamkit.presets import examples
from lamkit.stages import evaluate, finetune, pretrain

HEAD = "pbesol_bnbzto"


def prepare(args: argparse.Namespace) -> Path:
    """Data sets ``train``, ``valid`` and ``test`` in ``OUT/data``."""
    folder = args.out / "data"
    if not folder.exists():
        images = ase.io.read(args.train, index=":")
        facts = DatasetFacts(head=HEAD, level_of_theory=load_head(HEAD).level_of_theory)
        parts = {"train": images[:-1], "valid": images[-1:], "test": ase.io.read(args.test, index=":")}
        for name, chosen in parts.items():
            frames = [from_atoms(a, source=name, step=k, group=name) for k, a in enumerate(chosen)]
            write_dataset(frames, folder / name, facts)
    return folder


def point(args: argparse.Namespace, data: Path, start: str, n: int, seed: int) -> dict[str, Any]:
    """Train one model and test it."""
    out = args.out / f"{start}-{n}-{seed}"
    resume = (out / "config.yaml").is_file()
    train = {"preset": "sample-finetune", "max_steps": args.steps, "max_minutes": None, "seed": seed}
    common = {"n_frames": n, "train": train, "resume": resume}
    if start == "fine-tuned":
        checkpoint = str(examples() / "model")
        options = {"checkpoint": checkpoint, "head": HEAD, "init": "pbesol_oxides", "retention": 0}
        finetune.run(finetune.Options(data=str(data), **options, **common), out)
    else:
        pretrain.run(pretrain.Options(data={HEAD: str(data)}, trunk="orb-v3-small", **common), out)
    errors = evaluate.run(evaluate.Options(model=str(out), data={HEAD: str(data / "test")}), None)[HEAD]
    names = ("energy_mae", "forces_mae", "forces_rmse", "stress_mae")
    return {"start": start, "n": n, "seed": seed, **{name: errors[name] for name in names}}


def draw(points: list[dict[str, Any]], zero: float, path: Path) -> None:
    """Root-mean-square error of the forces, a point for each seed and a line through the means."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
    for start, colour in (("from scratch", "tab:gray"), ("fine-tuned", "tab:blue")):
        mine = [p for p in points if p["start"] == start]
        sizes = sorted({p["n"] for p in mine})
        means = [np.mean([p["forces_rmse"] for p in mine if p["n"] == n]) for n in sizes]
        axes.plot(sizes, means, "-", color=colour, label=start)
        axes.plot([p["n"] for p in mine], [p["forces_rmse"] for p in mine], "o", color=colour, ms=4)
    axes.axhline(zero, color="black", lw=0.8, ls=":", label="forces all zero")
    axes.set(
        xlabel="labelled frames (40 atoms)", ylabel="force error, eV/Å (RMS)", xscale="log", ylim=(0, None)
    )
    sizes = sorted({p["n"] for p in points})
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Compute the points that are missing, print the table, draw the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--sizes", default="1,2,4,8")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--most", type=int, default=None, help="stop after so many new points")
    parser.add_argument("--out", type=Path, default=Path("bnbzto-curve"))
    args = parser.parse_args()
    data, file = prepare(args), args.out / "points.json"
    points = json.loads(file.read_text()) if file.is_file() else []
    known = {(p["start"], p["n"], p["seed"]) for p in points}
    wanted = [
        (start, int(n), int(seed))
        for seed in args.seeds.split(",")
        for n in args.sizes.split(",")
        for start in ("fine-tuned", "from scratch")
    ]
    for start, n, seed in [w for w in wanted if w not in known][: args.most]:
        points.append(point(args, data, start, n, seed))
        atomic_write(file, json.dumps(points, indent=1))
    forces = np.concatenate([a.get_forces() for a in ase.io.read(args.test, index=":")])
    zero = float(np.sqrt((forces**2).mean()))
    print("start         frames  seed  energy MAE meV/atom  forces MAE eV/Å  forces RMSE eV/Å")
    for p in sorted(points, key=lambda p: (p["n"], p["start"], p["seed"])):
        energy, mae, rmse = 1e3 * p["energy_mae"], p["forces_mae"], p["forces_rmse"]
        print(f"{p['start']:12}  {p['n']:6}  {p['seed']:4}  {energy:19.2f}  {mae:15.3f}  {rmse:16.3f}")
    print(f"forces all zero: RMSE {zero:.3f} eV/Å")
    draw(points, zero, args.out / "learning_curve.png")


if __name__ == "__main__":
    main()
