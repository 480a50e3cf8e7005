"""How much data fine-tuning saves: learning curves at 10, 30, 100, 300 frames, fine-tuned against from scratch.

Pre-training is on a cheap level of theory, of the kinds of matter that follow but of no frame of theirs: organic
molecules, clusters of water, and halide perovskites in small cells (GFN2-xTB), and on a few molecules with wB97X and
PBE. Left out, and learned here, are 3BPA (wB97X) and MAPbI3 (SCAN), which have 300 training frames in small cells, and
liquid water (PBE0+TS), which has 256 of 192 atoms. (C3H3O4, MN15, would have 300, but forces up to 68 eV/Å make its
error that of a few frames: a third of all squared forces is in one of twenty.)

Both sides: the same frames (drawn with the seed), batches and network; each at its own learning rate, the best of
--rates on the validation part with 30 frames; each trains until five validations in a row were no better than the best
before, for --steps at most, and its best checkpoint on the validation part is tested. Errors are over seeds: mean ±
standard error.

Run: python benchmarks/make_gfn2.py --out lamkit-claims/gfn2.extxyz; python benchmarks/make_perovskites.py --out
lamkit-claims/perovskites.extxyz; python benchmarks/data_saved.py --out lamkit-claims
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import runs
import sets

PRETRAINING = {"gfn2": 0.62, "perovskites": 0.30, "wb97x": 0.04, "pbe": 0.04}  # set → share of the steps
DOWNSTREAM = {"bpa": 300, "perovskite": 300, "water": 256}  # set → most training frames
SIZES = (10, 30, 100, 300)
TUNED_ON = 30


def base(args: argparse.Namespace) -> Path:
    """The pre-trained model that all of these benchmarks start from: ``--base``, else one that is made once.

    In rounds, each from the weights of the one before: the cosine schedule with warm restarts (Loshchilov and
    Hutter, arXiv 1608.03983).
    """
    if args.base:
        return Path(args.base).resolve()
    parts = sets.prepare(PRETRAINING, args.shared, args.out)
    rounds = [int(steps) for steps in args.base_steps.split(",")]
    tests = {name: path / "test" for name, path in parts.items() if name not in ("mptrj", "alexandria")}
    folder = args.out / "base"
    for k, steps in enumerate(rounds, start=1):
        train = {
            "preset": "pretrain", "max_steps": steps, "learning_rate": args.base_rate, "batch_atoms": args.base_batch,
            "valid_every": max(1, steps // 12), "valid_frames": 16, "weights": PRETRAINING,
        }  # fmt: skip
        options = {
            "data": {name: str(path) for name, path in parts.items()},
            "trunk": args.trunk,
            "train": train,
        }
        if k > 1:
            options["init"] = str(folder)
        folder = args.out / ("base" if k == len(rounds) else f"base-round{k}")
        runs.run(folder, "pretrain", options, tests, share=False)
    return folder


def learn(kind: str, name: str, n: int, rate: float, seed: int, args: argparse.Namespace) -> dict:
    """One point of a learning curve."""
    path, steps = args.out / "parts" / name, args.steps
    train = {
        "preset": "finetune", "max_steps": steps, "learning_rate": rate, "seed": seed, "batch_atoms": 96,
        "warmup_steps": steps // 20, "valid_every": max(1, steps // 20), "valid_frames": 24, "patience": 5,
    }  # fmt: skip
    if kind == "finetune":
        verb, options = "finetune", {"head": name, "checkpoint": str(base(args)), "data": str(path)}
        options |= {"retention": 0}
    else:
        verb, options = "pretrain", {"data": {name: str(path)}, "trunk": args.trunk}
    folder = args.out / f"{kind}-{name}-{n}-{steps}-{rate:g}-{seed}"
    return runs.run(folder, verb, {**options, "n_frames": n, "train": train}, {name: path / "test"})


def best_rate(kind: str, name: str, args: argparse.Namespace) -> float:
    """The rate with the smallest validation error, seed 0, at TUNED_ON frames."""
    asked = args.finetune_rates if kind == "finetune" and args.finetune_rates else args.rates
    rates = [float(rate) for rate in asked.split(",")]
    if len(rates) == 1:
        return rates[0]
    scores = {rate: learn(kind, name, TUNED_ON, rate, 0, args)["result"]["score"] for rate in rates}
    return min(scores, key=lambda rate: scores[rate])


def frames_needed(curve: dict[int, float], error: float) -> float:
    """Frames at which a falling curve reaches ``error``, straight between its points on log-log axes."""
    sizes = sorted(curve)
    logs = np.log([curve[n] for n in sizes])
    if math.log(error) < logs.min():
        return math.inf
    return float(np.exp(np.interp(-math.log(error), -logs, np.log(sizes))))


def table(name: str, args: argparse.Namespace) -> list[str]:
    """Learning curves of one set."""
    rates = {kind: best_rate(kind, name, args) for kind in ("finetune", "scratch")}
    sizes = [min(n, DOWNSTREAM.get(name, max(SIZES))) for n in SIZES if n <= args.most]
    pairs = {n: min(10 * n, sizes[-1]) for n in sizes if 10 * n <= max(SIZES)}
    compared = {("finetune", n) for n in pairs} | {("scratch", n) for n in pairs.values()}
    found = {
        (kind, n): [
            learn(kind, name, n, rates[kind], seed, args)["errors"][name]
            for seed in range(args.seeds if (kind, n) in compared else min(args.seeds, args.curve_seeds))
        ]
        for kind in rates
        for n in sizes
    }
    found = {key: errors for key, errors in found.items() if errors}
    force = {key: np.array([1000 * e["forces_rmse"] for e in errors]) for key, errors in found.items()}
    energy = {key: [1000 * e["energy_mae"] for e in errors] for key, errors in found.items()}
    zero = 1000 * found["scratch", sizes[-1]][0]["forces_rms_target"]
    curve = {n: float(force["scratch", n].mean()) for n in sizes if ("scratch", n) in force}
    lines = [
        f"{name}: up to {args.steps} steps, {args.seeds} seeds, learning rate {rates['finetune']:g} fine-tuned, "
        f"{rates['scratch']:g} from scratch; predicting zero: {zero:.0f} meV/Å",
        "",
        "| frames | F RMSE fine-tuned | F RMSE scratch | E MAE fine-tuned | E MAE scratch "
        "| fine-tuned(n) / scratch(10 n) | scratch needs |",
        "|---|---|---|---|---|---|---|",
    ]
    for n in sizes:
        ratio = "–"
        if n in pairs:
            ratio = runs.spread(list(force["finetune", n] / force["scratch", pairs[n]]), 2)
            ratio += "" if pairs[n] == 10 * n else f" (against {pairs[n]})"
        needed = "–"
        if ("finetune", n) in force:
            frames = frames_needed(curve, float(force["finetune", n].mean()))
            needed = f"{frames:.0f}" if math.isfinite(frames) else f"> {sizes[-1]}"
        cells = [
            runs.spread(of[kind, n], digits) if (kind, n) in of else "–"
            for of, digits in ((force, 0), (energy, 1))
            for kind in ("finetune", "scratch")
        ]
        lines.append(f"| {n} | {' | '.join(cells)} | {ratio} | {needed} |")
    return lines


def arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Flags that the benchmarks of training share."""
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("lamkit-claims"))
    parser.add_argument("--trunk", default=str(Path(__file__).with_name("orb-v3-mid.yaml")))
    parser.add_argument("--base", type=Path, help="start from this checkpoint (examples/base) and make none")
    parser.add_argument("--base-steps", default="22000,62000", help="of pre-training, in rounds")
    parser.add_argument("--base-rate", type=float, default=0.003, help="learning rate of pre-training")
    parser.add_argument("--base-batch", type=int, default=96, help="atoms of a batch of pre-training")
    parser.add_argument("--seeds", type=int, default=3)
    return parser


def tables(
    names: Sequence[str],
    table_of: Callable[[str, argparse.Namespace], Sequence[str]],
    args: argparse.Namespace,
    file: str,
) -> None:
    """Make the base model, then the table of each set; print them, and write them to ``file`` in ``args.out``."""
    base(args)
    sets.prepare(names, args.shared, args.out)
    text = "\n".join(line for name in names for line in (*table_of(name, args), "")) + "\n"
    (args.out / file).write_text(text)
    print(text)


def main() -> None:
    parser = arguments(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    )
    parser.add_argument("--steps", type=int, default=1000, help="at most")
    parser.add_argument("--rates", default="0.001,0.003")
    parser.add_argument("--finetune-rates", help="instead of --rates for the fine-tuned side")
    parser.add_argument("--downstream", default=",".join(DOWNSTREAM))
    parser.add_argument(
        "--curve-seeds",
        type=int,
        default=3,
        help="of the points that the claim does not compare; 0: none of them",
    )
    parser.add_argument("--most", type=int, default=300, help="training frames at most")
    args = parser.parse_args()
    tables(args.downstream.split(","), table, args, "data_saved.md")


if __name__ == "__main__":
    main()
