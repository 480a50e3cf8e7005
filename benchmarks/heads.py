"""A hundred heads against two on the same trunk: cost of a step, compiled graphs, memory.

    python benchmarks/heads.py --shared ../shared --out /tmp/heads

The thousand MPtrj and the thousand Alexandria frames are two heads in one run and a hundred heads (fifty parts of
each) in the other. Both trainers live in one process with the same padded shapes, and take turns of some steps with
batches that are ready, so that other load on the machine meets both alike. Then the hundred heads train on as a run
does, while the memory is watched.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from lamkit.console import table
from lamkit.data.dataset import Dataset, open_dataset, write_dataset
from lamkit.data.facts import DatasetFacts
from lamkit.stages.sources import head_of
from lamkit.train.config import TrainConfig, expand_preset

SETS = {"mptrj": "mptrj/mptrj-random-1k.xyz", "alexandria": "alexandria_pbe/alexandria-random-1k.xyz"}
TURN = 10  # steps before it is the other's turn


def convert(shared: Path, out: Path) -> dict[str, Dataset]:
    """Both data sets, converted once."""
    found = {}
    for name, source in SETS.items():
        folder = out / name
        if not (folder / "dataset.yaml").exists():
            command = ["data", "convert", str(shared / "data" / source), "--out", str(folder)]
            subprocess.run([sys.executable, "-m", "lamkit", *command], check=True)
        found[name] = open_dataset(folder)
    return found


def parts(whole: dict[str, Dataset], each: int, out: Path) -> dict[str, Path]:
    """Every data set cut into so many, as data sets of their own."""
    found = {}
    for name, data in whole.items():
        for k in range(each):
            folder = out / "parts" / f"{name}-{k:02d}"
            if not (folder / "dataset.yaml").exists():
                facts = DatasetFacts(head=folder.name, level_of_theory=data.facts.level_of_theory)
                write_dataset((data.frame(i) for i in range(k, len(data), each)), folder, facts)
            found[folder.name] = folder
    return found


def trainer_of(data: dict[str, Path], config: TrainConfig, trunk: dict, out: Path):
    """A trainer of these heads."""
    from lamkit.model.config import TrunkConfig
    from lamkit.train.run import Run
    from lamkit.train.tasks import make_task
    from lamkit.train.trainer import Trainer

    tasks = [make_task(n, p, head_of(n, p), valid_fraction=0.1, seed=0) for n, p in data.items()]
    out.mkdir(parents=True, exist_ok=True)
    return Trainer(Run(tasks, TrunkConfig(**trunk), config, out), resume=False)


def turns(trainers: dict[str, object], steps: int) -> dict[str, list[float]]:
    """Seconds of each step, the trainers taking turns."""
    draws = {name: [t.dealer.draw(k) for k in range(steps + 2)] for name, t in trainers.items()}
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for first in range(0, steps + 2, TURN):
        for name, trainer in trainers.items():
            for draw in draws[name][first : first + TURN]:
                begin = time.perf_counter()
                trainer.stepper(draw, 1e-4, [1] * len(trainer.names), 0.0, False, False)
                times[name].append(time.perf_counter() - begin)
    return {name: found[2:] for name, found in times.items()}  # the first compiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--out", type=Path, default=Path("heads-benchmark"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--each", type=int, default=50, help="heads made of each data set")
    parser.add_argument("--trunk", default="orb-v3-small")
    args = parser.parse_args()
    whole = convert(args.shared, args.out)
    many = parts(whole, args.each, args.out)
    two = {name: args.out / name for name in whole}
    from lamkit.model.runtime import setup

    setup("CPU")
    trunk = expand_preset("configs/trunk", args.trunk)
    config = TrainConfig(batch_atoms=64, batch_edges=2000, max_steps=100_000, valid_frames=2, cache_mb=256)
    trainers = {
        "2 heads": trainer_of(two, config, trunk, args.out / "run-2"),
        f"{2 * args.each} heads": trainer_of(many, config, trunk, args.out / "run-many"),
    }
    largest = [max(s[i] for t in trainers.values() for s in t.buckets.shapes) for i in range(3)]
    for trainer in trainers.values():  # the same shape for all batches of both
        trainer.buckets.shapes[:] = [type(trainer.buckets.shapes[0])(*largest)]
        trainer.buckets._of_head = dict.fromkeys(trainer.buckets._of_head, 0)
    times = turns(trainers, args.steps)
    rows = [
        (
            name,
            f"{1000 * statistics.median(v):.1f}",
            f"{1000 * min(v):.1f}",
            len(trainers[name].step.compile_cache),
        )
        for name, v in times.items()
    ]
    (a, b) = times.values()
    blocks = [np.median(b[k : k + TURN]) / np.median(a[k : k + TURN]) for k in range(0, args.steps, TURN)]
    trainer, memory = trainers[f"{2 * args.each} heads"], []
    process = psutil.Process()
    for k in range(args.steps + 2, 3 * args.steps + 2):
        trainer.stepper(trainer.dealer.draw(k), 1e-4, [1] * len(trainer.names), 0.0, False, False)
        if k % (args.steps // 5) == 0:
            memory.append((k, round(process.memory_info().rss / 2**20)))
    seen = len({trainer.dealer.samplers[0].draw(k) for k in range(3 * args.steps + 2)})
    print(table(rows, ("run", "median ms/step", "min ms/step", "compiled graphs")))
    ratio = float(np.median(blocks))
    print(f"a step of many heads / of two: {ratio:.3f} (median over turns; minima: {min(b) / min(a):.3f})")
    print(f"heads drawn: {seen}; compiled graphs at the end: {len(trainer.step.compile_cache)}")
    print(table(memory, ("step", "resident MiB")))
    result = {
        "ratio": ratio,
        "ratio_min": min(b) / min(a),
        "rows": rows,
        "memory_MiB": memory,
        "shape": largest,
    }
    (args.out / "result.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
