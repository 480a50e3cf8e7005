"""What does distilling gain? A teacher, its student, and the same student trained without the teacher.

For each system (molybdenum and silicon: PBE, mlearn; MAPbI3: SCAN; water: PBE0+TS; energies and forces by DFT):

1. --frames frames are drawn at random from the training part. mlearn has its authors' test part; of the others the
   last quarter of the trajectory tests, and nothing of it is trained on.
2. teacher: a trunk that was pre-trained on other data (--trunk) is fine-tuned on these frames.
3. student: `lamkit distill`; it never sees a DFT label, only the teacher's on frames of the teacher's MD that begins at
   the drawn frames (of MAPbI3 at half as many cells of other volumes, too), and on displaced copies of these.
4. direct: the student's architecture, batches and steps, trained on the DFT frames themselves, once with each of
   --rates; the run that is best on its validation frames counts (of each run its best checkpoint). The student is
   trained with the first of the rates only.
5. with --repeats both are trained again from other random weights, on the same frames; their mean error counts.

All are tested on the same held-out DFT frames. Kept: the teacher's accuracy that the student keeps,
error(teacher) / error(student). Gain: error(direct) / error(student).

Run: python benchmarks/distilled.py --shared ../shared --trunk CKPT --out lamkit-distilled
make_classical.py makes data of classical potentials to pre-train trunks on. Each finished piece is kept and not done
again. The table is printed and written to OUT/table-STUDENT.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

# Sources of DFT frames, temperatures of the exploration in K, displacements of copies in Å (0.1 unless told; bonds to
# hydrogen are too stiff for that), their strain (0.03), and volumes of further starts in Å³ per atom. The later frames
# of MAPbI3 are hotter, and up to a fifth larger than the early ones.
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
    "MAPbI3": {
        "functional": "SCAN",
        "train": "dpgen_MAPbI3_SCAN/sys.000",
        "kelvin": [300, 600, 1000],
        "rattle": 0.05,
        "strain": 0.06,
        "volume": (17.9, 26.5),
    },
    "water": {"functional": "PBE0+TS", "train": "deepmd_water", "kelvin": [300, 450], "rattle": 0.03},
}
TEST_PART = 0.25
SHAPE = 0.02  # strain of stretched cells beside the volume's, standard deviation


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


def stretched(frames: Sequence[Atoms], volume: tuple[float, float], seed: int) -> list[Atoms]:
    """Every second frame with a cell of another shape and of a volume (Å³ per atom) between these, atoms along."""
    rng, result = np.random.default_rng(seed), []
    for atoms in (frame.copy() for frame in frames[::2]):
        strain = rng.normal(0, SHAPE, (3, 3))
        shape = np.eye(3) + (strain + strain.T) / 2
        shape *= (rng.uniform(*volume) * len(atoms) / atoms.get_volume() / np.linalg.det(shape)) ** (1 / 3)
        atoms.set_cell(atoms.cell[:] @ shape, scale_atoms=True)
        result.append(atoms)
    return result


def starts(name: str, train: Path, args: argparse.Namespace) -> Path:
    """Structures that the teacher's MD begins at: the drawn frames, and stretched ones where the system says so."""
    from ase.io import write

    from lamkit.data.dataset import open_dataset
    from lamkit.data.frame import to_atoms

    if "volume" not in SYSTEMS[name]:
        return train
    target = args.out / "data" / name / f"starts-{train.name}.extxyz"
    if not target.exists():
        data = open_dataset(train)
        frames = [to_atoms(data.frame(i)) for i in range(len(data))]
        both = frames + stretched(frames, SYSTEMS[name]["volume"], args.seed)
        write(target, [Atoms(a.numbers, a.positions, cell=a.cell, pbc=a.pbc) for a in both])
    return target


def trained(name: str, data: Path, out: Path, rate: float, seed: int, args: argparse.Namespace) -> float:
    """The student's architecture trained on ``data``, as the distillation trains it; its validation score."""
    from lamkit.data.heads import HeadConfig, LevelOfTheory
    from lamkit.stages import distill, student

    if not (out / "result.json").exists():
        options = distill.Options(student=args.student, train=training(args, rate, seed))
        level = LevelOfTheory(method="DFT", functional=SYSTEMS[name]["functional"])
        head = HeadConfig(name=name, level_of_theory=level)
        result = student.fit(data, head, options.student, options.train, out)
        (out / "result.json").write_text(json.dumps(result, default=str))
    return float(json.loads((out / "result.json").read_text())["score"])


def training(args: argparse.Namespace, rate: float, seed: int) -> dict:
    """How both students are trained."""
    return {
        "max_steps": args.steps, "batch_atoms": args.batch_atoms, "learning_rate": rate, "seed": seed,
        "valid_fraction": 0.1, "valid_frames": args.valid_frames,
    }  # fmt: skip


def distilled(name: str, teacher: Path, train: Path, test: Path, out: Path, args: argparse.Namespace) -> None:
    """The student of the teacher."""
    settings = {
        "n_starts": args.starts,
        "temperatures": SYSTEMS[name]["kelvin"],
        "heldout": {"n_starts": 2},
        "dynamics": {"steps": args.md_steps, "save_every": 10, "equilibrate": 10},
        "perturb": {
            "n": args.copies,
            "rattle": SYSTEMS[name].get("rattle", 0.1),
            "strain": SYSTEMS[name].get("strain", 0.03),
        },
        "n_frames": args.labels,
        "rounds": 1,
        "criterion": {"rounds": 1},
        "train": training(args, args.rates[0], args.seed),
        "seed": args.seed,
    }
    config = args.out / f"{out.name}.json"
    config.write_text(json.dumps(settings))  # JSON is YAML
    resumed(
        out, "distill", str(config), "--teacher", str(teacher), "--head", name, "--student", args.student,
        "--starts", str(starts(name, train, args)), "--data", str(test),
    )  # fmt: skip


def measure(name: str, args: argparse.Namespace) -> dict[str, list[dict]]:
    """All models of a system, of each kind one or several, and their errors on its test frames."""
    train, test = prepare(name, args)
    drawn = f"{args.frames}-{args.seed}"
    mark = f"{Path(args.student).stem}-{args.steps}-{drawn}"
    tried = {rate: args.out / f"{name}-direct-{mark}-{rate:g}" for rate in args.rates}
    if args.only_direct:
        return {
            str(out): [{"score": trained(name, train, out, r, args.seed, args)}] for r, out in tried.items()
        }
    teacher = args.out / f"{name}-teacher-{drawn}"
    resumed(
        teacher, "finetune", "--head", name, "--from", str(args.trunk), "--data", str(train),
        "--set", f"train.max_steps={args.teacher_steps}", "--set", f"train.learning_rate={args.rate}",
        "--set", f"train.batch_atoms={args.batch_atoms}", "--set", f"train.seed={args.seed}",
        "--set", "train.patience=null",  # the best checkpoint counts, as of the others
    )  # fmt: skip
    student = args.out / f"{name}-student-{mark}"
    distilled(name, teacher, train, test, student, args)
    scores = {rate: trained(name, train, out, rate, args.seed, args) for rate, out in tried.items()}
    best = min(scores, key=lambda rate: scores[rate])
    runs = {"teacher": [teacher], "student": [student], "direct": [tried[best]]}
    for kind, data, rate in (("student", student / "data", args.rates[0]), ("direct", train, best)):
        for seed in range(args.seed + 1, args.seed + args.repeats):
            again = args.out / f"{runs[kind][0].name}-seed{seed}"
            trained(name, data, again, rate, seed, args)
            runs[kind].append(again)
    return {kind: [tested(run, name, test) for run in several] for kind, several in runs.items()}


def tested(run: Path, name: str, test: Path) -> dict:
    """Errors of a run on the test frames."""
    saved = run / "tested.json"
    if not saved.exists():
        saved.write_text(json.dumps(lamkit("evaluate", str(run), f"--data={name}={test}")[name]))
    return json.loads(saved.read_text())


def row(name: str, found: dict[str, list[dict]]) -> str:
    """A line of the table; of several models of a kind the means, and how far their force errors scatter."""
    forces = {kind: np.array([1000 * v["forces_rmse"] for v in several]) for kind, several in found.items()}
    f = {kind: several.mean() for kind, several in forces.items()}
    e = {kind: np.mean([1000 * v["energy_mae"] for v in several]) for kind, several in found.items()}
    said = {
        kind: f"{several.mean():.0f}" + (f" ± {several.std(ddof=1):.0f}" if len(several) > 1 else "")
        for kind, several in forces.items()
    }
    zero, n = 1000 * found["teacher"][0]["forces_rms_target"], found["teacher"][0]["n_frames"]
    return (
        f"| {name} | {n} | {zero:.0f} | {said['teacher']} | {said['student']} | {said['direct']} "
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
    parser.add_argument("--systems", default="Si,water,MAPbI3", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--student", default="orb-narrow", help="preset of configs/student, or a YAML file")
    parser.add_argument("--frames", type=int, default=100, help="DFT frames of the teacher and of direct")
    parser.add_argument("--labels", type=int, default=800, help="frames that the teacher labels")
    parser.add_argument(
        "--starts", type=int, default=30, help="drawn frames at which the teacher's MD begins"
    )
    parser.add_argument("--md-steps", type=int, default=100)
    parser.add_argument("--copies", type=int, default=10, help="displaced copies of each start")
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=0.002, help="learning rate of fine-tuning")
    parser.add_argument("--steps", type=int, default=2000, help="of student and of direct")
    parser.add_argument("--batch-atoms", type=int, default=64, help="of all three; one frame at least")
    parser.add_argument(
        "--rates", type=lambda t: [float(v) for v in t.split(",")], default=[0.004, 0.01],
        help="learning rates of direct; the student has the first one",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=1, help="students and direct ones, of different seeds")
    parser.add_argument(
        "--valid-frames", type=int, default=32, help="that choose the checkpoint of a student"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-direct", action="store_true", help="train the direct ones, and nothing else")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [
        "| system | test frames | F RMSE zero | teacher | student | direct | kept | gain "
        "| E MAE teacher | student | direct |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in args.systems.split(","):
        found = measure(name, args)
        if args.only_direct:
            print(found, flush=True)
            continue
        lines.append(row(name, found))
        print("\n".join(lines), flush=True)
        (args.out / f"table-{Path(args.student).stem}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
