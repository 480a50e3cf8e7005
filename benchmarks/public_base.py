"""A trunk that has learned what a public universal potential knows of the matter at hand, for ``distilled.py``.

Public weights of an Orb could not be downloaded where these benchmarks are run; SevenNet's come with its package. So
for each system, with the frames that ``distilled.py`` draws:

1. ``examples/base`` is fine-tuned on the drawn DFT frames; its MD, begun at them, and displaced copies of them give
   structures (``lamkit explore``, ``lamkit select``);
2. SevenNet labels these (``make_public.py``, in an environment of its own): PBE, for water r2SCAN; with --tune-epochs
   SevenNet-0, fine-tuned on the drawn frames first (``tune_public.py``);
3. a trunk is pre-trained on these labels, from the weights of ``examples/base``, or another architecture (--trunk) from
   none: OUT/base-SYSTEM. In rounds, each from the weights of the one before: the cosine schedule with warm restarts
   (Loshchilov and Hutter, arXiv 1608.03983).

No DFT label is used but those of the drawn frames.

Run: python benchmarks/public_base.py --sevennet VENV/bin/python --out lamkit-distilled --systems Si,MAPbI3,water
then: python benchmarks/distilled.py --out lamkit-distilled --systems Si --trunk lamkit-distilled/base-Si ...
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from distilled import lamkit, prepare, resumed

from lamkit import presets

HERE = Path(__file__).parent
# The potential, structures that it labels, MD steps of each trajectory, copies of each start, their displacement (Å)
# and strain. Temperatures are wider than the distillation's.
PLANS = {
    "Si": {
        "model": "7net-l3i5", "n": 600, "kelvin": [300, 900, 1600, 2500], "copies": 12, "rattle": 0.12,
        "strain": 0.06,
    },
    "MAPbI3": {
        "model": "7net-0", "n": 1200, "kelvin": [300, 600, 1000], "copies": 12, "rattle": 0.05, "strain": 0.08,
    },
    "water": {
        "model": "7net-mf-0", "modal": "R2SCAN", "n": 350, "kelvin": [300, 450], "copies": 6, "rattle": 0.03,
        "strain": 0.03,
    },
}  # fmt: skip


def structures(name: str, plan: dict, args: argparse.Namespace) -> Path:
    """Structures of the system, without labels that count, as extended XYZ."""
    train, _ = prepare(name, args)
    first, explored, chosen = (args.out / f"{name}-{kind}" for kind in ("first", "explored", "chosen"))
    resumed(
        first, "finetune", "--head", name, "--from", str(presets.examples() / "base"), "--data", str(train),
        "--set", f"train.max_steps={args.first_steps}", "--set", "train.learning_rate=0.001",
        "--set", "train.batch_atoms=64", "--set", "retention=0",
    )  # fmt: skip
    settings = {
        "starts": [str(train)], "model": str(first), "head": name, "n_starts": args.starts,
        "temperatures": plan["kelvin"], "dynamics": {"steps": args.md_steps, "save_every": 20, "equilibrate": 20},
        "perturb": {"n": plan["copies"], "rattle": plan["rattle"], "strain": plan["strain"], "squeezed": 1},
        "seed": 1000 + args.seed,
    }  # fmt: skip
    config = args.out / f"{name}-explored.json"
    config.write_text(json.dumps(settings))
    resumed(explored, "explore", str(config))
    resumed(
        chosen, "select", "--data", str(explored / "data"), "--n-frames", str(plan["n"]), "--method", "random"
    )
    return exported(chosen / "data", args.out / f"{name}-structures.extxyz")


def exported(data: Path, target: Path) -> Path:
    """A data set as extended XYZ."""
    if not target.exists():
        lamkit("data", "export", str(data), "--to", "extxyz", "--out", str(target))
    return target


def tuned(name: str, args: argparse.Namespace) -> Path:
    """SevenNet-0, fine-tuned on the drawn frames."""
    train, _ = prepare(name, args)
    out = args.out / f"{name}-tuned"
    if not (out / "checkpoint_best.pth").exists():
        frames = exported(train, args.out / f"{name}-drawn.extxyz")
        command = [args.sevennet, str(HERE / "tune_public.py"), "--frames", str(frames), "--out", str(out)]
        subprocess.run([*command, "--epochs", str(args.tune_epochs)], check=True)
    return out / "checkpoint_best.pth"


def labelled(name: str, plan: dict, source: Path, args: argparse.Namespace) -> Path:
    """The data set with SevenNet's labels."""
    kind = "tuned-labels" if args.tune_epochs else "public"
    target, frames = args.out / f"{name}-{kind}", args.out / f"{name}-{kind}.extxyz"
    if not frames.exists():
        model = str(tuned(name, args)) if args.tune_epochs else plan["model"]
        command = [args.sevennet, str(HERE / "make_public.py"), "--structures", str(source)]
        command += ["--out", str(frames), "--model", model, "--jobs", str(args.jobs)]
        command += ["--modal", plan["modal"]] if "modal" in plan and not args.tune_epochs else []
        subprocess.run(command, check=True)
    if not target.exists():
        lamkit("data", "convert", str(frames), "--out", str(target))
    return target


def pretrained(name: str, data: Path, rounds: list[int], trunk: str | None, out: Path) -> None:
    """The trunk, ``out``/base-SYSTEM; rounds before the last one are beside it."""
    begin = ["--trunk", trunk] if trunk is not None else ["--from", str(presets.examples() / "base")]
    for k, steps in enumerate(rounds, start=1):
        folder = out / (f"base-{name}" if k == len(rounds) else f"base-{name}-round{k}")
        resumed(
            folder, "pretrain", "--multitask", *begin, "--data",
            f"{name.lower()}_public={data}", "--set", f"train.max_steps={steps}",
            "--set", "train.learning_rate=0.003", "--set", "train.batch_atoms=96", "--set", "train.valid_every=1000",
        )  # fmt: skip
        begin = ["--from", str(folder)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("lamkit-distilled"))
    parser.add_argument("--sevennet", required=True, help="the Python that has sevenn")
    parser.add_argument("--systems", default=",".join(PLANS))
    parser.add_argument("--frames", type=int, default=100, help="DFT frames that are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first-steps", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=25)
    parser.add_argument("--md-steps", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=1, help="processes of SevenNet")
    parser.add_argument("--steps", default="20000", help="of pre-training; of several rounds: 20000,18000")
    parser.add_argument("--tune-epochs", type=int, default=0, help="of SevenNet-0 on the drawn frames")
    parser.add_argument("--trunk", help="preset or YAML file; from random weights")
    parser.add_argument("--only-labels", action="store_true", help="without pre-training")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.systems.split(","):
        plan = PLANS[name]
        data = labelled(name, plan, structures(name, plan, args), args)
        if args.only_labels:
            continue
        pretrained(name, data, [int(steps) for steps in args.steps.split(",")], args.trunk, args.out)


if __name__ == "__main__":
    main()
