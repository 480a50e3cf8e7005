"""Speed and memory of the 25M-parameter models against orb-models: same weights' sizes, structures and threads.

Each measurement starts two processes, LAMKit and orb-models, which stay alive and are called in turn, so that
whatever else the machine does meets both. Energies are compared first where weights are shared by a file.

    inference   energy, forces, stress of a rattled copper crystal from ready neighbour lists
    training    loss, gradient, clipping and Adam on 8 rattled cells of 40 atoms

Run: python benchmarks/orb_speed.py --orb /path/to/python-with-orb-models [--jobs inference,training]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

MODELS = ("orb-v2", "orb-v3-direct-20", "orb-v3-conservative-20")
SIZES = {40: (2, 5, 1), 108: (3, 3, 3), 256: (4, 4, 4), 500: (5, 5, 5)}
REPEATS = 7


def crystal(n_atoms: int, seed: int = 0) -> Atoms:
    """Copper, rattled by 0.05 Å: 40, 108, 256 or 500 atoms."""
    atoms = bulk("Cu", cubic=True) * SIZES[n_atoms]
    atoms.rattle(0.05, seed=seed)
    return atoms


def cells() -> list[Atoms]:
    """The training batch: 8 x 40 atoms."""
    return [crystal(40, seed) for seed in range(8)]


def peak_gb() -> float:
    """Largest resident size of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1e6
    return float("nan")


# -- the two sides --------------------------------------------------------------------------------


def lamkit_call(job: str, model: str, n_atoms: int, neighbors: int):
    """A function that does the job once."""
    from lamkit import config, presets
    from lamkit.data.batch import Shape, collate, make_graph
    from lamkit.model.config import TrunkConfig
    from lamkit.model.runtime import setup

    ms = setup("CPU")
    from lamkit.model.inference import Predictor
    from lamkit.model.potential import Potential

    trunk = config.load(TrunkConfig, presets.find("configs/trunk", model))
    trunk = trunk.model_copy(update={"max_neighbors": neighbors})
    frames = cells() if job == "training" else [crystal(n_atoms)]
    graphs = [make_graph(_labelled(a), trunk.cutoff, neighbors) for a in frames]
    shape = Shape(sum(len(a) for a in frames) + 1, sum(len(g.senders) for g in graphs) + 1, len(frames) + 1)
    batch = collate(graphs, shape, np.zeros(119))
    potential = Potential(trunk, ["x"])
    if job == "inference":
        predictor = Predictor(potential)
        return lambda: predictor.predict(batch, 0)
    from lamkit.train.config import TrainConfig
    from lamkit.train.objective import tensors
    from lamkit.train.step import TrainStep

    step = TrainStep(potential, Potential(trunk, ["x"]), TrainConfig())
    head, numbers = ms.Tensor(0, ms.int32), ms.Tensor([1e-5, 0.9, 0.99, 0.9, 0.99, 0.99], ms.float32)
    weights = ms.Tensor(np.ones(len(step.objective.loss.names)), ms.float32)
    units = ms.Tensor([1.0, 1.0, 1.0], ms.float32)
    inputs = tensors(batch)
    return lambda: step(head, numbers, weights, units, *inputs)[0].asnumpy()


def _labelled(atoms: Atoms):
    from lamkit.data.frame import from_atoms

    energy, forces, stress = labels(atoms)
    return from_atoms(atoms, energy=energy, forces=forces, stress=stress)


def labels(atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
    """Random labels of reasonable size: the cost does not depend on them."""
    rng = np.random.default_rng(len(atoms))
    return -3.0 * len(atoms), rng.normal(size=(len(atoms), 3)), rng.normal(size=6) * 0.01


def orb_call(job: str, model: str, n_atoms: int, neighbors: int, compiled: bool):
    """The same with orb-models."""
    import torch
    from orb_models.forcefield import atomic_system, base, pretrained
    from orb_models.forcefield.atomic_system import SystemConfig

    build = {
        "orb-v2": pretrained.orb_v2_architecture,
        "orb-v3-direct-20": pretrained.orb_v3_direct_architecture,
        "orb-v3-conservative-20": pretrained.orb_v3_conservative_architecture,
    }[model]
    network = build()
    system = SystemConfig(radius=6.0, max_num_neighbors=neighbors)
    if compiled:
        network.compile(mode="default", dynamic=True)
    if job == "inference":
        network.eval()
        graph = atomic_system.ase_atoms_to_atom_graphs(crystal(n_atoms), system)
        return lambda: network.predict(graph)
    network.train()
    graphs = []
    for atoms in cells():
        graph = atomic_system.ase_atoms_to_atom_graphs(atoms, system)
        energy, forces, stress = labels(atoms)
        node = {"forces": torch.tensor(forces, dtype=torch.float32)}
        graph = graph._replace(
            system_targets={
                "energy": torch.tensor([energy], dtype=torch.float32),
                "stress": torch.tensor(stress[None], dtype=torch.float32),
            },
            node_targets=node,
        )
        graphs.append(graph)
    batch = base.batch_graphs(graphs)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        network.loss(batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()

    return step


def serve(side: str, job: str, model: str, n_atoms: int, neighbors: int) -> None:
    """Answer each line on stdin with the seconds of one call and the peak memory."""
    import time

    compiled = side == "compiled"
    maker = lamkit_call if side == "lamkit" else orb_call
    call = maker(job, model, n_atoms, neighbors, *(() if side == "lamkit" else (compiled,)))
    call()
    call()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        call()
        print(time.perf_counter() - start, peak_gb(), flush=True)


# -- the comparison -------------------------------------------------------------------------------


class Side:
    """One process of one engine."""

    def __init__(self, python: str, side: str, job: str, model: str, n_atoms: int, neighbors: int) -> None:
        command = [python, __file__, "--serve", side, job, model, str(n_atoms), str(neighbors)]
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment,
        )  # fmt: skip
        self.times: list[float] = []
        self.memory = float("nan")
        # Engines may print of their own before they are ready; the end of the stream means they failed.
        self.alive = any(line.strip() == "ready" for line in iter(self.process.stdout.readline, ""))

    def call(self) -> None:
        """Do the job once and note time and memory."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds, memory = self.process.stdout.readline().split()
        self.times.append(float(seconds))
        self.memory = float(memory)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def compare(
    orb: str, sides: list[str], job: str, model: str, n_atoms: int, neighbors: int, repeats: int
) -> dict:
    """Times in ms (smallest, median) and peak memory in GB of each side."""
    running = {
        s: Side(sys.executable if s == "lamkit" else orb, s, job, model, n_atoms, neighbors) for s in sides
    }
    for _ in range(repeats):
        for side in running.values():
            if side.alive:
                side.call()
    result = {"job": job, "model": model, "atoms": n_atoms, "neighbors": neighbors}
    for name, side in running.items():
        if side.alive:
            result[name] = {
                "min_ms": 1000 * min(side.times),
                "median_ms": 1000 * statistics.median(side.times),
                "peak_gb": side.memory,
            }
        side.close()
    return result


def row(r: dict) -> str:
    """One line of the table."""
    ours, cells_ = r["lamkit"], []
    for name in ("lamkit", "eager", "compiled"):
        side = r.get(name)
        cells_.append("–" if side is None else f"{side['min_ms']:.0f} / {side['median_ms']:.0f}")
    ratios = [
        f"{r[name]['min_ms'] / ours['min_ms']:.2f} / {r[name]['median_ms'] / ours['median_ms']:.2f}"
        if name in r
        else "–"
        for name in ("eager", "compiled")
    ]
    memory = (
        f"{ours['peak_gb']:.2f} / {r['eager']['peak_gb']:.2f}" if "eager" in r else f"{ours['peak_gb']:.2f}"
    )
    return (
        f"| {r['job']} | {r['model']} | {r['atoms']} | {r['neighbors']} | {' | '.join(cells_)} "
        f"| {' | '.join(ratios)} | {memory} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orb", help="Python that has orb-models 0.5.5")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--jobs", default="inference,training")
    parser.add_argument("--sizes", default="40,108,256,500", help="atoms of the inference runs")
    parser.add_argument("--neighbors", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--compiled", action="store_true", help="torch.compile as a third side")
    parser.add_argument("--out", type=Path, help="results as JSON lines")
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        side, job, model, n_atoms, neighbors = args.serve
        serve(side, job, model, int(n_atoms), int(neighbors))
        return
    sides = ["lamkit", *(["eager"] if args.orb else []), *(["compiled"] if args.compiled else [])]
    print("| job | model | atoms | neighbours | LAMKit ms (min / median) | eager ms | compiled ms | eager ÷ LAMKit "
          "| compiled ÷ LAMKit | peak GB LAMKit / eager |\n|" + "---|" * 10)  # fmt: skip
    for job in args.jobs.split(","):
        for model in args.models.split(","):
            for n_atoms in map(int, args.sizes.split(",")) if job == "inference" else [320]:
                found = compare(args.orb, sides, job, model, n_atoms, args.neighbors, args.repeats)
                print(row(found), flush=True)
                if args.out:
                    with args.out.open("a") as file:
                        file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
