"""Time and memory of the 25M-parameter models against the number of atoms and of structures in a batch.

Each measurement is a process of its own, so that its peak memory is its own. Copper, rattled by 0.05 Å (for 120
neighbours compressed until every atom has that many within the cutoff); times are the best of a few evaluations
after the first one, which compiles; `first` includes that. Finished measurements are read from --out and not made
again.

    inference   one structure of 108 ... 10,976 atoms, and batches of 40 atoms
    training    batches of 40 atoms: loss, gradient, clipping, Adam, average of the weights

Run: python benchmarks/scale.py --out scale.jsonl [--models …] [--neighbors 20,120] [--jobs …]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from orb_speed import labelled, peak_gb, training_step

MODELS = ("orb-v3-direct-20", "orb-v3-conservative-20")
EDGES = {108: 3, 500: 5, 1372: 7, 4000: 10, 10976: 14}
BATCHES = (1, 2, 4, 8, 16, 32)
LATTICE = {20: 3.61, 120: 3.1}  # Å; at 3.1 Å copper has 134 neighbours within 6 Å


def structures(atoms: int, batch: int, neighbors: int) -> list[Atoms]:
    """One crystal of ``atoms``, or ``batch`` cells of 40 atoms."""
    size = (2, 5, 1) if atoms == 40 else (EDGES[atoms],) * 3
    found = [bulk("Cu", a=LATTICE[neighbors], cubic=True) * size for _ in range(batch)]
    for seed, frame in enumerate(found):
        frame.rattle(0.05, seed=seed)
    return found


def call_of(job: str, model: str, atoms: int, batch: int, neighbors: int) -> Callable[[], object]:
    """A function that does the job once."""
    from lamkit import config, presets
    from lamkit.data.batch import Shape, collate, make_graph
    from lamkit.model.config import TrunkConfig
    from lamkit.model.runtime import setup

    setup("CPU")
    from lamkit.model.inference import Predictor
    from lamkit.model.potential import Potential

    trunk = config.load(TrunkConfig, presets.find("configs/trunk", model))
    trunk = trunk.model_copy(update={"max_neighbors": neighbors})
    graphs = [make_graph(labelled(a), trunk.cutoff, neighbors) for a in structures(atoms, batch, neighbors)]
    assert all(len(g.senders) == neighbors * len(g.numbers) for g in graphs)
    shape = Shape(atoms * batch + 1, sum(len(g.senders) for g in graphs) + 1, batch + 1)
    padded = collate(graphs, shape, np.zeros(119))
    potential = Potential(trunk, ["x"])
    if job == "inference":
        predictor = Predictor(potential)
        return lambda: predictor.predict(padded, 0)
    return training_step(potential, Potential(trunk, ["x"]), padded)


def measure(job: str, model: str, atoms: int, batch: int, neighbors: int, repeats: int) -> dict[str, float]:
    """Seconds of the first and of the best later call, its processor time, and peak memory."""
    call = call_of(job, model, atoms, batch, neighbors)
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    times, work = [], []
    while len(times) < repeats and (not times or sum(times) < 60):
        start, spent = time.perf_counter(), time.process_time()
        call()
        times.append(time.perf_counter() - start)
        work.append(time.process_time() - spent)
    return {"first_s": first, "best_s": min(times), "cpu_s": min(work), "peak_gb": peak_gb()}


def row(key: list, found: dict[str, float]) -> str:
    """One line of the table."""
    job, model, atoms, batch, neighbors = key
    each = 1000 / (atoms * batch)
    return (
        f"| {job} | {model} | {batch} × {atoms} | {neighbors} | {1000 * found['best_s']:.0f} "
        f"| {each * found['best_s']:.2f} | {each * found['cpu_s']:.2f} | {found['peak_gb']:.2f} "
        f"| {found['first_s']:.1f} |"
    )


def plan(args: argparse.Namespace) -> list[list]:
    """Job, model, atoms, batch, neighbours of every measurement."""
    found: list[list] = []
    for neighbors in map(int, args.neighbors.split(",")):
        for model in args.models.split(","):
            if "inference" in args.jobs:
                found += [["inference", model, int(n), 1, neighbors] for n in args.sizes.split(",")]
                found += [["inference", model, 40, int(b), neighbors] for b in args.batches.split(",")]
            if "training" in args.jobs:
                found += [["training", model, 40, int(b), neighbors] for b in args.training.split(",")]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="results as JSON lines")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--neighbors", default="20")
    parser.add_argument("--jobs", default="inference,training")
    parser.add_argument("--sizes", default=",".join(map(str, EDGES)), help="atoms of single structures")
    parser.add_argument("--batches", default="1,8,32", help="structures of 40 atoms, inference")
    parser.add_argument("--training", default=",".join(map(str, BATCHES[:5])), help="the same, training")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*json.loads(args.one), args.repeats)))
        return
    done = {}
    if args.out.exists():
        for line in args.out.read_text().splitlines():
            record = json.loads(line)
            done[json.dumps(record["key"])] = record["found"]
    print(
        "| job | model | atoms | neighbours | ms | ms per atom | processor ms per atom | peak GB | first call s |\n|"
        + "---|" * 9,
        flush=True,
    )
    for key in plan(args):
        if json.dumps(key) not in done:
            command = [sys.executable, __file__, "--one", json.dumps(key), "--out", str(args.out)]
            command += ["--repeats", str(args.repeats)]
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            done[json.dumps(key)] = json.loads(result.stdout.splitlines()[-1])
            with args.out.open("a") as file:
                file.write(json.dumps({"key": key, "found": done[json.dumps(key)]}) + "\n")
        print(row(key, done[json.dumps(key)]), flush=True)


if __name__ == "__main__":
    main()
