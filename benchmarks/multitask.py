"""Multi-task against single-task training at equal steps per task, on six levels of theory; two sets of six.

``related``: sets that share chemistry, as multi-task training is meant for: molecules of H, C, N, O with GFN2-xTB,
PBE/def2-SVP, PBE+TS (ethanol), wB97X/6-31G(d) (3BPA), MN15 (C3H3O4), and MAPbI3 (SCAN).
``unrelated``: Mo (PBE), MAPbI3 (SCAN), carbon (LDA), 3BPA (wB97X), C3H3O4 (MN15), three intermetallics (optB88-vdW),
which have hardly an element or a bond in common.

One trunk with six heads for 6 × --steps steps, each head drawn equally often, against six models of their own for
--steps steps. Both sides at their own learning rate, the best of --rates by the validation errors of seed 0. Errors
are on test parts, over seeds: mean ± standard error.

Run: python benchmarks/make_gfn2.py --out lamkit-claims/gfn2.extxyz; python benchmarks/multitask.py --out lamkit-claims
"""

from __future__ import annotations

import argparse
from pathlib import Path

import runs
import sets

GROUPS = {
    "related": ("gfn2", "pbe", "ethanol", "bpa", "mn15", "MAPbI3"),
    "unrelated": ("Mo", "MAPbI3", "carbon", "bpa", "mn15", "optb88"),
}
LEVELS = {
    "gfn2": "GFN2-xTB", "pbe": "PBE/def2-SVP", "ethanol": "PBE+TS", "bpa": "wB97X/6-31G(d)", "mn15": "MN15/6-31G**",
    "MAPbI3": "SCAN", "Mo": "PBE (plane waves)", "carbon": "LDA", "optb88": "optB88-vdW",
}  # fmt: skip


def settings(steps: int, rate: float, seed: int) -> dict:
    """Training options that both sides share."""
    return {
        "preset": "pretrain", "max_steps": steps, "learning_rate": rate, "seed": seed, "batch_atoms": 96,
        "warmup_steps": steps // 20, "valid_every": max(1, steps // 4), "valid_frames": 24,
    }  # fmt: skip


def together(group: str, rate: float, seed: int, heads: dict[str, Path], args: argparse.Namespace) -> dict:
    """One trunk, all heads."""
    train = {**settings(args.steps * len(heads), rate, seed), "weights": dict.fromkeys(heads, 1.0)}
    folder = args.out / f"multi-{group}-{args.trunk}-{args.steps}-{rate:g}-{seed}"
    data = {name: str(path) for name, path in heads.items()}
    tests = {name: path / "test" for name, path in heads.items()}
    options = {"data": data, "trunk": args.trunk, "train": train}
    return runs.run(folder, "pretrain", options, tests, share=False)


def alone(rate: float, seed: int, heads: dict[str, Path], args: argparse.Namespace) -> dict[str, dict]:
    """A model for each head."""
    found = {}
    for name, path in heads.items():
        train = settings(args.steps, rate, seed)
        options = {"data": {name: str(path)}, "trunk": args.trunk, "train": train}
        folder = args.out / f"single-{name}-{args.trunk}-{args.steps}-{rate:g}-{seed}"
        found[name] = runs.run(folder, "pretrain", options, {name: path / "test"})
    return found


def choose(group: str, heads: dict[str, Path], args: argparse.Namespace) -> tuple[float, float]:
    """Learning rates with the smallest geometric-mean validation error at seed 0: multi-task, single-task."""
    rates = [float(rate) for rate in args.rates.split(",")]
    multi = {rate: together(group, rate, 0, heads, args)["result"]["score"] for rate in rates}
    single = {
        rate: runs.geometric([r["result"]["score"] for r in alone(rate, 0, heads, args).values()])
        for rate in rates
    }
    return min(multi, key=lambda rate: multi[rate]), min(single, key=lambda rate: single[rate])


def table(group: str, heads: dict[str, Path], args: argparse.Namespace) -> list[str]:
    """Errors of both sides, head by head, and the geometric mean of their ratios."""
    both, own = choose(group, heads, args)
    multi = [together(group, both, seed, heads, args)["errors"] for seed in range(args.seeds)]
    single = [
        {name: r["errors"][name] for name, r in alone(own, seed, heads, args).items()}
        for seed in range(args.seeds)
    ]
    lines = [
        f"{group}, {args.trunk}: {args.steps} steps per task, {args.seeds} seeds; learning rate {both:g} multi-task, "
        f"{own:g} single-task (best of {args.rates})",
        "",
        "| head | level | zero | F RMSE single meV/Å | multi | ratio | E MAE single meV/atom | multi |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ratios = {
        name: [m[name]["forces_rmse"] / s[name]["forces_rmse"] for m, s in zip(multi, single, strict=True)]
        for name in heads
    }
    for name in heads:
        cells = [runs.spread([1000 * e[name]["forces_rmse"] for e in side]) for side in (single, multi)] + [
            runs.spread(ratios[name], 2)
        ]
        cells += [runs.spread([1000 * e[name]["energy_mae"] for e in side], 1) for side in (single, multi)]
        zero = 1000 * multi[0][name]["forces_rms_target"]
        lines.append(f"| {name} | {LEVELS.get(name, '')} | {zero:.0f} | {' | '.join(cells)} |")
    means = [runs.geometric([ratios[name][k] for name in heads]) for k in range(args.seeds)]
    lines.append(f"| geometric mean | | | | | {runs.spread(means, 3)} | | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("lamkit-claims"))
    parser.add_argument("--trunk", default="orb-v3-tiny")
    parser.add_argument("--steps", type=int, default=150, help="per task")
    parser.add_argument("--rates", default="0.0015,0.003,0.006")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--groups", default=",".join(GROUPS))
    args = parser.parse_args()
    lines = []
    for group in args.groups.split(","):
        heads = sets.prepare(GROUPS[group], args.shared, args.out)
        lines += [*table(group, heads, args), ""]
    text = "\n".join(lines)
    (args.out / "multitask.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
