"""Equal time on one core, same frames: LAMKit against MACE and DeePMD-kit's se_e2_a.

MAPbI3 (SCAN, 48 atoms): --frames training frames, 73 for validation, 147 for the test, drawn at random. Each program
trains for --seconds of processor time, start-up, compilation and validation included (processor time, because other
work may share the machine; one thread, one core, one after the other); how many steps that allows is extrapolated
from two short runs. Settings are what each program's documentation shows for small data, written out below; MACE's is
its small model. ``tuned`` is LAMKit's tiny preset fine-tuned from the model of ``data_saved.py``, whose pre-training
is not counted.

Run: python benchmarks/peers.py --mace VENV/bin --deepmd VENV/bin --out lamkit-claims
(``pip install mace-torch``; ``pip install deepmd-kit[torch]``; a peer whose flag is missing is left out)
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import data_saved
import numpy as np
import runs
import sets

SYSTEM = "perovskite"
ELEMENTS = ["H", "C", "N", "I", "Pb"]
# Its documentation's small model; batches and rate are its defaults for small data.
MACE = (  # noqa: SIM905
    "--model=MACE --num_interactions=2 --num_channels=64 --max_L=0 --r_max=5.0 --batch_size=5 --valid_batch_size=10 "
    "--lr=0.01 --ema --ema_decay=0.99 --amsgrad --default_dtype=float32 --device=cpu --E0s=average "
    "--energy_key=energy --forces_key=forces --error_table=PerAtomRMSE --forces_weight=100 --energy_weight=1 "
    "--plot=False"
).split()
# Of examples/water/se_e2_a in deepmd-kit; two frames to a step, as LAMKit takes.
DESCRIPTOR = {
    "type": "se_e2_a", "sel": "auto", "rcut": 6.0, "rcut_smth": 0.5, "neuron": [25, 50, 100], "axis_neuron": 16,
    "resnet_dt": False, "type_one_side": True, "precision": "float32",
}  # fmt: skip
FITTING = {"neuron": [240, 240, 240], "resnet_dt": True, "precision": "float32"}
LOSS = {
    "type": "ener", "start_pref_e": 0.02, "limit_pref_e": 1, "start_pref_f": 1000, "limit_pref_f": 1, "start_pref_v": 0,
    "limit_pref_v": 0,
}  # fmt: skip


def timed(command: list[str], folder: Path, log: str) -> float:
    """Run in ``folder`` with one thread; processor seconds of it and its children."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "LAMKIT_NUM_THREADS": "1"}
    environment |= {"DP_INTRA_OP_PARALLELISM_THREADS": "1", "DP_INTER_OP_PARALLELISM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / log).open("w") as out:
        subprocess.run(command, cwd=folder, env=environment, stdout=out, stderr=out, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fitted(train: Callable[[int, str], float], few: int, seconds: float) -> tuple[int, float]:
    """Train so long that it takes ``seconds``: the number of steps (or epochs) and the seconds it took.

    ``train(n, name)`` trains for n steps in the folder ``name`` and returns processor seconds. Where the two short runs
    mislead, because start-up takes longer at one time than at another, the long one tells how many steps it takes.
    """
    once, twice = train(few, "few"), train(2 * few, "more")
    each = max((twice - once) / few, 1e-9)
    n = max(1, int((seconds - once + few * each) / each))
    taken = train(n, "full")
    if n > 2 * few and not 0.8 < taken / seconds < 1.2:
        each = max((taken - once) / (n - few), 1e-9)
        n = max(1, int((seconds - once + few * each) / each))
        taken = train(n, "full")
    return n, taken


def root_mean_square(x: np.ndarray) -> float:
    """√⟨x²⟩."""
    return float(np.sqrt(np.mean(np.square(x))))


def mace(seed: int, work: Path, args: argparse.Namespace) -> dict:
    """MACE, trained by its own command line."""
    from ase.io import read

    def train(n: int, name: str) -> float:
        folder = fresh(work / name)
        command = [
            str(args.mace / "mace_run_train"),
            *MACE,
            f"--seed={seed}",
            "--name=m",
            f"--max_num_epochs={n}",
        ]
        data = work.parent / "xyz"
        return timed(
            [*command, f"--train_file={data}/train.xyz", f"--valid_file={data}/valid.xyz"], folder, "log"
        )

    n, seconds = fitted(train, 1, args.seconds)
    test, out = work.parent / "xyz" / "test.xyz", work / "full" / "out.xyz"
    command = [
        str(args.mace / "mace_eval_configs"),
        f"--configs={test}",
        "--model=m.model",
        f"--output={out}",
    ]
    timed([*command, "--device=cpu", "--default_dtype=float32"], work / "full", "eval.log")
    found, known = read(out, ":"), read(test, ":")
    forces = [a.arrays["MACE_forces"] - b.get_forces() for a, b in zip(found, known, strict=True)]
    energies = [
        (a.info["MACE_energy"] - b.get_potential_energy()) / len(b) for a, b in zip(found, known, strict=True)
    ]
    return result(n, "epochs", seconds, np.concatenate(forces), np.array(energies))


def deepmd(seed: int, work: Path, args: argparse.Namespace) -> dict:
    """DeePMD-kit with the PyTorch backend."""
    data = work.parent / "npy"

    def systems(part: str) -> list[str]:
        return sorted(str(path.parent.resolve()) for path in (data / part).glob("**/type.raw"))

    def train(n: int, name: str) -> float:
        folder = fresh(work / name)
        settings = {
            "model": {
                "type_map": ELEMENTS,
                "descriptor": {**DESCRIPTOR, "seed": seed},
                "fitting_net": {**FITTING, "seed": seed},
            },
            "loss": LOSS,
            "learning_rate": {"type": "exp", "start_lr": 0.001, "stop_lr": 3.5e-8, "decay_steps": max(1, n // 100)},
            "training": {
                "training_data": {"systems": systems("train"), "batch_size": 2},
                "validation_data": {"systems": systems("valid"), "batch_size": 2, "numb_btch": 3},
                "numb_steps": n, "seed": seed, "disp_freq": max(1, n // 10), "save_freq": n,
            },
        }  # fmt: skip
        (folder / "input.json").write_text(json.dumps(settings))
        return timed([str(args.deepmd / "dp"), "--pt", "train", "input.json"], folder, "log")

    n, seconds = fitted(train, 60, args.seconds)
    folder = work / "full"
    timed([str(args.deepmd / "dp"), "--pt", "freeze", "-o", "m.pth"], folder, "freeze.log")
    forces, energies = [], []
    for i, system in enumerate(systems("test")):
        command = [
            str(args.deepmd / "dp"),
            "--pt",
            "test",
            "-m",
            "m.pth",
            "-s",
            system,
            "-d",
            f"d{i}",
            "-n",
            "100000",
        ]
        timed(command, folder, "test.log")
        f, e = np.loadtxt(folder / f"d{i}.f.out"), np.loadtxt(folder / f"d{i}.e_peratom.out", ndmin=2)
        forces.append(f[:, 3:] - f[:, :3])
        energies.append(e[:, 1] - e[:, 0])
    return result(n, "steps", seconds, np.concatenate(forces), np.concatenate(energies))


def ours(seed: int, work: Path, args: argparse.Namespace, trunk: str | None) -> dict:
    """LAMKit from scratch with the presets ``trunk`` and ``pretrain``, or fine-tuned."""
    data = work.parent / "data"

    def train(n: int, name: str) -> float:
        folder = fresh(work / name)
        train = [f"train.max_steps={n}", f"train.seed={seed}", f"train.valid_every={max(1, n // 5)}"]
        train += ["train.batch_atoms=96", "train.valid_frames=32", "train.learning_rate=0.002"]
        command = [sys.executable, "-m", "lamkit"]
        if trunk is None:
            base = data_saved.base(args).resolve()
            command += ["finetune", "--head", SYSTEM, "--data", str(data), "--from", str(base)]
            train += ["retention=0"]
        else:
            command += ["pretrain", "--data", f"{SYSTEM}={data}", "--trunk", trunk]
        flags = [part for setting in train for part in ("--set", setting)]
        return timed([*command, "--out", "run", "-q", *flags], folder, "log")

    n, seconds = fitted(train, 20, args.seconds)
    command = [sys.executable, "-m", "lamkit", "evaluate", str(work / "full" / "run"), "-q", "--json"]
    found = subprocess.run(
        [*command, f"--data={data / 'test'}"], stdout=subprocess.PIPE, text=True, check=True
    )
    errors = json.loads(found.stdout)[SYSTEM]
    kept = {k: errors[k] for k in ("forces_rmse", "forces_mae", "energy_mae")}
    return {"n": n, "of": "steps", "cpu_seconds": seconds, **kept}


def result(n: int, of: str, seconds: float, forces: np.ndarray, energies: np.ndarray) -> dict:
    """One row of the table."""
    return {
        "n": n, "of": of, "cpu_seconds": seconds, "forces_rmse": root_mean_square(forces),
        "forces_mae": float(np.abs(forces).mean()), "energy_mae": float(np.abs(energies).mean()),
    }  # fmt: skip


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def prepare(args: argparse.Namespace) -> None:
    """The same parts in the forms that the peers read."""
    import dpdata

    from lamkit.data.dataset import open_dataset, write_dataset
    from lamkit.data.exchange import export

    parts = sets.prepare([SYSTEM], args.shared, args.out)[SYSTEM]
    for part in ("train", "valid", "test"):
        (place(args) / "xyz").mkdir(parents=True, exist_ok=True)
        data, path = place(args) / "data" / part, place(args) / "xyz" / f"{part}.xyz"
        if not (data / "dataset.yaml").exists():
            whole = open_dataset(parts / part)
            n = min(args.frames, len(whole)) if part == "train" else len(whole)
            chosen = np.sort(np.random.default_rng(0).permutation(len(whole))[:n])
            view = whole.subset(chosen)
            write_dataset((view.frame(i) for i in range(len(view))), data)
        if not path.exists():
            export(open_dataset(data), "extxyz", path)
        npy = place(args) / "npy" / part
        if not npy.exists():
            dpdata.MultiSystems.from_file(str(path), fmt="extxyz").to("deepmd/npy", str(npy))


def place(args: argparse.Namespace) -> Path:
    """Where everything about so many frames is."""
    return args.out / "peers" / str(args.frames)


def main() -> None:
    parser = data_saved.arguments(
        argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    )
    parser.add_argument("--mace", type=Path, help="folder with mace_run_train")
    parser.add_argument("--deepmd", type=Path, help="folder with dp")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--frames", type=int, default=100, help="to train on")
    parser.add_argument("--ours", default="orb-v3-tiny,orb-v3-small,tuned")
    args = parser.parse_args()
    args.out = args.out.resolve()
    if "tuned" in args.ours:
        data_saved.base(args)
    prepare(args)
    jobs: dict[str, Callable[[int, Path], dict]] = {}
    for name in args.ours.split(","):
        trunk = None if name == "tuned" else name
        jobs[f"LAMKit {name}"] = lambda seed, work, trunk=trunk: ours(seed, work, args, trunk)
    if args.mace is not None:
        jobs["MACE"] = lambda seed, work: mace(seed, work, args)
    if args.deepmd is not None:
        jobs["DeePMD se_e2_a"] = lambda seed, work: deepmd(seed, work, args)
    rows: dict[str, list[dict]] = {name: [] for name in jobs}
    for seed in range(args.seeds):
        for name, job in jobs.items():
            work = place(args) / f"{name.replace(' ', '-')}-{args.seconds:g}-{seed}"
            done = work / "result.json"
            if not done.exists():
                found = job(seed, work)
                done.write_text(json.dumps(found))
            rows[name].append(json.loads(done.read_text()))
            print(name, seed, rows[name][-1], flush=True)
    text = table(rows, args)
    (args.out / "peers.md").write_text(text)
    print(text)


def table(rows: dict[str, list[dict]], args: argparse.Namespace) -> str:
    """Markdown."""
    lines = [
        f"{SYSTEM}, {args.frames} training frames, {args.seconds:g} s of one core each, {args.seeds} seeds",
        "",
        "| program | trained for | processor s | F RMSE meV/Å | F MAE meV/Å | E MAE meV/atom |",
        "|---|---|---|---|---|---|",
    ]
    for name, of in rows.items():
        cells = [
            runs.spread([1000 * r[k] for r in of], 1) for k in ("forces_rmse", "forces_mae", "energy_mae")
        ]
        seconds = runs.spread([r["cpu_seconds"] for r in of])
        lines.append(f"| {name} | {of[0]['n']} {of[0]['of']} | {seconds} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
