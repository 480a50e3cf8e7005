"""What does distilling gain? A teacher, its student, and the same student trained without the teacher.

For each system (molybdenum and silicon: PBE, mlearn; MAPbI3: SCAN; water: PBE0+TS; energies and forces by DFT):

1. --frames frames are drawn at random from the training part. mlearn has its authors' test part; of the others the
   last quarter of the trajectory tests, and nothing of it is trained on.
2. teacher: a trunk that was pre-trained on other data (--trunk) is fine-tuned on these frames.
3. student: `lamkit distill`; it never sees a DFT label, only the teacher's on frames of the teacher's MD.
4. direct: the same architecture, steps and rates as the student, trained on the DFT frames themselves.

All three are tested on the same held-out DFT frames. Kept: the teacher's accuracy that the student keeps,
error(teacher) / error(student). Gain: error(direct) / error(student).

Run: python benchmarks/distilled.py --shared ../shared --trunk CKPT --out lamkit-distilled
Each finished piece is kept and not done again. The table is printed and written to OUT/table-STUDENT.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

# Sources of DFT frames and temperatures of the exploration in K.
SYSTEMS = {
    "Mo": {
        "functional": "PBE",
        "train": "mlearn/Mo/training.json",
        "test": "mlearn/Mo/test.json",
        "kelvin": [300, 1500, 3000],
    },
    "Si": {
        "functional": "PBE",
        "train": "mlearn/Si/training.json",
        "test": "mlearn/Si/test.json",
        "kelvin": [300, 1000, 2000],
    },
    "MAPbI3": {"functional": "SCAN", "train": "dpgen_MAPbI3_SCAN/sys.000", "kelvin": [300, 600]},
    "water": {"functional": "PBE0+TS", "train": "deepmd_water", "kelvin": [300, 450]},
}
TEST_PART = 0.25


def lamkit(*arguments: str) -> dict:
    """Run a verb; its JSON result."""
    command = [sys.executable, "-m", "lamkit", *arguments, "--json", "-q"]
    print("$ lamkit", *arguments, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def resumed(out: Path, *arguments: str) -> None:
    """Run a verb that writes ``out``, or go on with it, unless it is finished."""
    if not (out / "result.json").exists():
        begun = (out / "config.yaml").exists()
        lamkit(*arguments, "--out", str(out), *(["--resume"] if begun else []))


def prepare(name: str, args: argparse.Namespace) -> tuple[Path, Path]:
    """The drawn frames and the test frames of a system, as data sets."""
    from lamkit.data.dataset import open_dataset, write_dataset

    folder, source = args.out / "data" / name, SYSTEMS[name]
    train, test = folder / f"train-{args.frames}-{args.seed}", folder / "test"
    if test.exists() and train.exists():
        return train, test
    parts = {}
    for part in ("train", "test"):
        if part in source:
            parts[part] = folder / "raw" / part
            if not parts[part].exists():
                lamkit("data", "convert", str(args.shared / "data" / source[part]), "--out", str(parts[part]))
    data = open_dataset(parts["train"])
    n_test = 0 if "test" in parts else round(TEST_PART * len(data))
    order = sorted(range(len(data)), key=lambda i: (data.frame(i).source, data.frame(i).step))
    tests = open_dataset(parts["test"]) if "test" in parts else data.subset(order[len(order) - n_test :])
    drawn = np.random.default_rng(args.seed).permutation(len(data) - n_test)[: args.frames]
    chosen = data.subset(np.sort(np.array(order)[drawn]))
    for view, target in ((chosen, train), (tests, test)):
        if not target.exists():
            write_dataset((view.frame(i) for i in range(len(view))), target, data.facts)
    return train, test


def direct(name: str, data: Path, out: Path, args: argparse.Namespace) -> None:
    """The student's architecture trained on the DFT frames, as the distillation trains it."""
    from lamkit.data.heads import HeadConfig, LevelOfTheory
    from lamkit.stages import distill, student

    if (out / "result.json").exists():
        return
    options = distill.Options(student=args.student, train=training(args))
    level = LevelOfTheory(method="DFT", functional=SYSTEMS[name]["functional"])
    head = HeadConfig(name=name, level_of_theory=level)
    result = student.fit(data, head, options.student, options.train, out)
    (out / "result.json").write_text(json.dumps(result, default=str))


def training(args: argparse.Namespace) -> dict:
    """How both students are trained."""
    return {"max_steps": args.steps, "seed": args.seed, "valid_fraction": 0.1}


def distilled(name: str, teacher: Path, train: Path, test: Path, out: Path, args: argparse.Namespace) -> None:
    """The student of the teacher."""
    settings = {
        "n_starts": args.starts,
        "temperatures": SYSTEMS[name]["kelvin"],
        "heldout": {"n_starts": 2},
        "dynamics": {"steps": 200, "save_every": 4, "equilibrate": 8},
        "perturb": {"n": 6},
        "n_frames": args.labels,
        "rounds": 1,
        "criterion": {"rounds": 1},
        "train": training(args),
        "seed": args.seed,
    }
    if SYSTEMS[name].get("min_atoms"):
        settings["min_atoms"] = SYSTEMS[name]["min_atoms"]
    config = args.out / f"distill-{name}-{args.student}-{args.seed}.json"
    config.write_text(json.dumps(settings))  # JSON is YAML
    resumed(
        out, "distill", str(config), "--teacher", str(teacher), "--head", name, "--student", args.student,
        "--starts", str(train), "--data", str(test),
    )  # fmt: skip


def measure(name: str, args: argparse.Namespace) -> dict[str, dict]:
    """All models of a system, and their errors on its test frames."""
    train, test = prepare(name, args)
    mark = f"{args.student}-{args.steps}-{args.seed}"
    teacher = args.out / f"{name}-teacher-{args.seed}"
    runs = {
        "teacher": teacher,
        "student": args.out / f"{name}-student-{mark}",
        "direct": args.out / f"{name}-direct-{mark}",
    }
    resumed(
        teacher, "finetune", "--head", name, "--from", str(args.trunk), "--data", str(train),
        "--set", f"train.max_steps={args.teacher_steps}", "--set", f"train.learning_rate={args.rate}",
        "--set", f"train.seed={args.seed}",
    )  # fmt: skip
    direct(name, train, runs["direct"], args)
    distilled(name, teacher, train, test, runs["student"], args)
    found = {}
    for kind, run in runs.items():
        saved = run / "tested.json"
        if not saved.exists():
            saved.write_text(json.dumps(lamkit("evaluate", str(run), f"--data={name}={test}")[name]))
        found[kind] = json.loads(saved.read_text())
    return found


def row(name: str, found: dict[str, dict]) -> str:
    """A line of the table."""
    f = {kind: 1000 * e["forces_rmse"] for kind, e in found.items()}
    e = {kind: 1000 * v["energy_mae"] for kind, v in found.items()}
    zero, n = 1000 * found["teacher"]["forces_rms_target"], found["teacher"]["n_frames"]
    return (
        f"| {name} | {n} | {zero:.0f} | {f['teacher']:.0f} | {f['student']:.0f} | {f['direct']:.0f} "
        f"| {f['teacher'] / f['student']:.0%} | {f['direct'] / f['student']:.2f} "
        f"| {e['teacher']:.1f} | {e['student']:.1f} | {e['direct']:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("lamkit-distilled"))
    parser.add_argument("--trunk", type=Path, default=Path("examples/model"), help="pre-trained checkpoint")
    parser.add_argument("--systems", default="Mo,MAPbI3,water", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--student", default="orb-narrow", help="preset of configs/student")
    parser.add_argument("--frames", type=int, default=100, help="DFT frames of the teacher and of direct")
    parser.add_argument("--labels", type=int, default=800, help="frames that the teacher labels")
    parser.add_argument("--starts", type=int, default=12)
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=0.002, help="learning rate of fine-tuning")
    parser.add_argument("--steps", type=int, default=3000, help="of student and of direct")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [
        "| system | test frames | F RMSE zero | teacher | student | direct | kept | gain "
        "| E MAE teacher | student | direct |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in args.systems.split(","):
        lines.append(row(name, measure(name, args)))
        print("\n".join(lines), flush=True)
        (args.out / f"table-{args.student}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
