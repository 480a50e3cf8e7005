"""Does it learn? Six levels of theory at once, then a seventh data set from few frames.

1. Real DFT data of six heads (mlearn Mo, Li, Si: PBE; MAPbI3: SCAN; water: PBE0; carbon: LDA) are converted and
   split into train, valid and test: mlearn as its authors did, the others by group or in blocks of a trajectory.
2. The CPU preset is pre-trained on all six for --minutes; errors are on the test parts, beside the error of
   predicting zero forces.
3. A set left out (tantalum, PBE) is learned from --frames frames: fine-tuned from that model, and from random
   weights, at equal steps and rates, several seeds; errors are on frames of the set that neither has seen.

Run: python benchmarks/learns.py --shared ../shared --out lamkit-learns
The tables are printed and written to OUT/table.md; benchmarks/RESULTS.md keeps them.
"""

from __future__ import annotations

import argparse
import itertools
import math
from pathlib import Path

import sets
from sets import lamkit

HEADS = ("Mo", "Li", "Si", "MAPbI3", "water", "carbon")
LEFT_OUT = ("Ta", "bpa", "ethanol", "mn15")


def evaluate(model: Path, data: dict[str, Path]) -> dict:
    """Errors on the test parts."""
    flags = [f"--data={name}={path}" for name, path in data.items()]
    return lamkit("evaluate", str(model), *flags, "-q")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("lamkit-learns"))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--trunk", default="orb-v3-small")
    parser.add_argument("--left-out", default="Ta", help=f"of {', '.join(LEFT_OUT)}; commas between")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions: other start, order and rotations")
    parser.add_argument("--rates", default="0.0005", help="learning rates that both starts get")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    parts = sets.prepare((*HEADS, *args.left_out.split(",")), args.shared, args.out)
    six = {name: parts[name] for name in HEADS}
    base = args.out / "pretrain"
    if not (base / "result.json").exists():
        lamkit(
            "pretrain", "--multitask", "--trunk", args.trunk, "--out", str(base),
            *[f"--data={n}={p}" for n, p in six.items()],
            "--set", f"train.max_minutes={args.minutes}", "--set", "train.max_steps=1000000",
        )  # fmt: skip
    lines = multitask_table(evaluate(base, six))
    for name in args.left_out.split(","):
        lines += ["", *few_shot(name, parts[name], base, args)]
    text = "\n".join(lines) + "\n"
    (args.out / "table.md").write_text(text)
    print(text)


def multitask_table(errors: dict) -> list[str]:
    """Markdown table of the six heads, with the factor below predicting zero."""
    lines = [
        "| head | test frames | E MAE meV/atom | F RMSE zero meV/Å | F RMSE meV/Å | factor | stress MAE meV/Å³ |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    logs = []
    for name, e in errors.items():
        factor = e["forces_rms_target"] / e["forces_rmse"]
        logs.append(math.log(factor))
        stress = "–" if e["stress_mae"] is None else f"{1000 * e['stress_mae']:.2f}"
        lines.append(
            f"| {name} | {e['n_frames']} | {1000 * e['energy_mae']:.1f} | {1000 * e['forces_rms_target']:.0f} "
            f"| {1000 * e['forces_rmse']:.0f} | {factor:.2f} | {stress} |"
        )
    lines.append(f"| geometric mean | | | | | {math.exp(sum(logs) / len(logs)):.2f} | |")
    return lines


def few_shot(name: str, data: Path, base: Path, args: argparse.Namespace) -> list[str]:
    """Fine-tuning against training from random weights on the same frames for the same steps."""
    steps = [
        "--set", f"train.max_steps={args.steps}", "--set", "train.batch_atoms=96", "--set", "train.valid_every=100",
        "--set", "train.warmup_steps=50",
    ]  # fmt: skip
    rows = []
    for rate, seed in itertools.product(args.rates.split(","), range(args.seeds)):
        common = [*steps, "--set", f"train.learning_rate={rate}", "--set", f"train.seed={seed}"]
        tuned, scratch = (
            args.out / f"{name}-{kind}-{args.steps}-{rate}-{seed}" for kind in ("finetune", "scratch")
        )
        if not (tuned / "result.json").exists():
            lamkit("finetune", "--head", name, "--from", str(base), "--data", str(data), "--frames", str(args.frames),
                   "--out", str(tuned), *common)  # fmt: skip
        if not (scratch / "result.json").exists():
            lamkit("pretrain", "--data", f"{name}={data}", "--trunk", args.trunk, "--out", str(scratch),
                   "--set", f"n_frames={args.frames}", *common)  # fmt: skip
        for kind, run in (("fine-tuned", tuned), ("from scratch", scratch)):
            e = evaluate(run, {name: data})[name]
            rows.append((kind, rate, e))
    lines = [
        f"{name}: {args.frames} frames, {args.steps} steps, {args.seeds} seeds: mean (smallest … largest)",
        "",
    ]
    lines += [
        "| start | learning rate | E MAE meV/atom | F MAE meV/Å | F RMSE meV/Å |",
        "|---|---|---|---|---|",
    ]
    for (kind, rate), group in itertools.groupby(sorted(rows, key=lambda r: r[:2]), key=lambda r: r[:2]):
        errors = [e for _, _, e in group]
        cells = (
            spread([1000 * e[key] for e in errors]) for key in ("energy_mae", "forces_mae", "forces_rmse")
        )
        lines.append(f"| {kind} | {rate} | {' | '.join(cells)} |")
    return lines


def spread(values: list[float]) -> str:
    """Mean and range of a few repetitions."""
    mean = sum(values) / len(values)
    return f"{mean:.1f} ({min(values):.1f} … {max(values):.1f})"


if __name__ == "__main__":
    main()
