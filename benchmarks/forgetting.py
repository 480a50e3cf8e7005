"""What fine-tuning costs the heads that it is not about, and what replay saves.

A new head is fine-tuned from the pre-trained model of ``data_saved.py`` on --frames frames in four ways: ``naive``
(everything is trained on the new frames only), ``real`` (old heads train along on their real data), ``replay`` (they
train along on labels of the starting model, of structures that it explored itself) and ``lora`` (rank 4). Force errors
on the test parts of the old heads, and on sets that neither training saw (``HEAD@SET``: the head predicts it as it
is, out of its distribution), are divided by those of the starting model; aim: within 1.10.

Run: python benchmarks/forgetting.py --out lamkit-claims
"""

from __future__ import annotations

import argparse
from pathlib import Path

import data_saved
import runs
import sets

OLD = ("gfn2", "perovskites", "wb97x")
UNSEEN = {"gfn2@ethanol": "ethanol"}
WAYS = ("naive", "real", "replay", "lora")


def tests(args: argparse.Namespace) -> dict[str, Path]:
    """What every model is tested on, beside the new head."""
    old = args.old.split(",")
    names = (*old, *UNSEEN.values())
    parts = sets.prepare(names, args.shared, args.out)
    return {n: parts[n] / "test" for n in old} | {label: parts[n] / "test" for label, n in UNSEEN.items()}


def options(way: str, name: str, seed: int, steps: int, args: argparse.Namespace) -> dict:
    """Options of ``lamkit finetune``."""
    parts = args.out / "parts"
    train = {
        "preset": "finetune", "max_steps": steps, "seed": seed, "warmup_steps": max(1, steps // 10),
        "valid_every": max(1, steps // 4), "valid_frames": 32, "learning_rate": args.rate if steps > 1 else 1e-9,
    }  # fmt: skip
    found = {
        "head": name, "checkpoint": str(data_saved.base(args)), "data": str(parts / name), "n_frames": args.frames,
        "retention": 0, "train": train,
    }  # fmt: skip
    if way == "lora":
        train["tune"] = {"lora": 4}
    old = {n: str(parts / n) for n in args.old.split(",")}
    if way == "real":
        found["replay"] = {"heads": list(old), "data": old}
    if way == "replay":
        found["replay"] = {"heads": list(old), "structures": {n: f"{p}/train" for n, p in old.items()}}
    return found


def errors(way: str, name: str, seed: int, args: argparse.Namespace) -> dict:
    """Test errors after fine-tuning in one way; ``start`` is the model before it, its reference refitted."""
    steps = 1 if way == "start" else args.steps
    folder = args.out / f"forget-{way}-{name}-{args.frames}-{steps}-{args.rate:g}-{seed}"
    new = {name: args.out / "parts" / name / "test"}
    found = runs.run(
        folder,
        "finetune",
        options(way, name, seed, steps, args),
        new | tests(args),
        share=way in ("start", "naive", "lora"),
    )
    return found["errors"]


def table(name: str, args: argparse.Namespace) -> list[str]:
    """Errors of all ways, divided by those of the start where they are about old heads."""
    start = errors("start", name, 0, args)
    ways = args.ways.split(",")
    after = {way: [errors(way, name, seed, args) for seed in range(args.seeds)] for way in ways}
    lines = [
        f"New head {name}, {args.frames} frames, {args.steps} steps at {args.rate:g}, {args.seeds} seeds",
        "",
        f"| test | start, F RMSE meV/Å | {' | '.join(ways)} |",
        "|---|---|" + "---|" * len(ways),
    ]

    def force(found: dict, label: str) -> float:
        return 1000 * found[label]["forces_rmse"]

    cells = [runs.spread([force(e, name) for e in after[way]]) for way in ways]
    lines.append(f"| {name} (new), meV/Å | {force(start, name):.0f} | {' | '.join(cells)} |")
    for labels, words in ((tuple(args.old.split(",")), "old heads"), (tuple(UNSEEN), "unseen sets")):
        ratios = {
            (way, label): [force(e, label) / force(start, label) for e in after[way]]
            for way in ways
            for label in labels
        }
        for label in labels:
            cells = [runs.spread(ratios[way, label], 2) for way in ways]
            lines.append(f"| {label}, ratio | {force(start, label):.0f} | {' | '.join(cells)} |")
        means = {
            way: [runs.geometric([ratios[way, label][k] for label in labels]) for k in range(args.seeds)]
            for way in ways
        }
        cells = [runs.spread(means[way], 3) for way in ways]
        lines.append(f"| {words}, geometric mean of the ratios | | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = data_saved.arguments(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    )
    parser.add_argument("--new", default="bpa", help="sets of data_saved.py to fine-tune on")
    parser.add_argument("--old", default=",".join(OLD), help="heads that train along and are tested")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.0005, help="that of the preset finetune")
    parser.add_argument("--ways", default=",".join(WAYS))
    args = parser.parse_args()
    data_saved.tables(args.new.split(","), table, args, "forgetting.md")


if __name__ == "__main__":
    main()
