"""Does fine-tuning with the defaults ever end worse than it began? Force errors on test frames that decided nothing.

``configs/train/finetune.yaml`` as it is, from the pre-trained model of ``data_saved.py``: heads of the model that go on
with a few more frames of their own data (the case that most easily spoils a good head: gfn2, wb97x, pbe), and new heads
on sets that it never saw (bpa, perovskite, water, mn15, Mo), with 10 and with 100 frames. The start is the model with
its reference refitted; the end is the checkpoint that ``lamkit finetune`` hands back.

Run: python benchmarks/recipes.py --out lamkit-claims
"""

from __future__ import annotations

import argparse

import data_saved
import runs
import sets

CASES = ("gfn2", "wb97x", "pbe", "bpa", "perovskite", "water", "mn15", "Mo")


def tuned(name: str, n: int, seed: int, args: argparse.Namespace, *, start: bool = False) -> dict:
    """Fine-tuning with the defaults; with ``start`` the model as it is before the first step."""
    path = args.out / "parts" / name
    train: dict = {"preset": "finetune", "seed": seed}
    if start:
        train |= {"max_steps": 1, "learning_rate": 1e-9}
    elif args.steps:
        train |= {"max_steps": args.steps}
    options = {
        "head": name, "checkpoint": str(data_saved.base(args)), "data": str(path), "n_frames": n, "retention": 0,
        "train": train,
    }  # fmt: skip
    folder = args.out / f"recipe-{'start' if start else 'end'}-{name}-{n}-{seed}"
    return runs.run(folder, "finetune", options, {name: path / "test"})


def table(names: list[str], args: argparse.Namespace) -> list[str]:
    """Start and end of each case, and whether any seed got worse."""
    lines = [
        f"{args.seeds} seeds; F RMSE on the test part, meV/Å",
        "",
        "| head | frames | start | end | end / start, worst seed | best steps | E MAE start → end meV/atom |",
        "|---|---|---|---|---|---|---|",
    ]
    worse = 0
    for name in names:
        for n in map(int, args.frames.split(",")):
            first = tuned(name, n, 0, args, start=True)["errors"][name]
            ends = [tuned(name, n, seed, args) for seed in range(args.seeds)]
            last = [end["errors"][name] for end in ends]
            ratios = [e["forces_rmse"] / first["forces_rmse"] for e in last]
            worse += sum(ratio > 1.0 + 1e-6 for ratio in ratios)
            energy = runs.spread([1000 * e["energy_mae"] for e in last], 1)
            lines.append(
                f"| {name} | {n} | {1000 * first['forces_rmse']:.0f} "
                f"| {runs.spread([1000 * e['forces_rmse'] for e in last])} | {max(ratios):.3f} "
                f"| {', '.join(str(end['result']['best_step']) for end in ends)} "
                f"| {1000 * first['energy_mae']:.1f} → {energy} |"
            )
    lines += ["", f"Runs that ended worse than they began: {worse}"]
    return lines


def main() -> None:
    parser = data_saved.arguments(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    )
    parser.add_argument("--heads", default=",".join(CASES))
    parser.add_argument("--frames", default="10,100", help="training frames")
    parser.add_argument("--steps", type=int, help="instead of the default of the preset")
    args = parser.parse_args()
    data_saved.base(args)
    names = args.heads.split(",")
    sets.prepare(names, args.shared, args.out)
    text = "\n".join(table(names, args)) + "\n"
    (args.out / "recipes.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
