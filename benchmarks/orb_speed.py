"""Speed and memory of the 25M-parameter models against orb-models: same weights, structures and threads.

Each measurement starts a process for each engine; they stay alive and are called in turn, so that whatever else the
machine does meets all of them. Weights are those that orb-models starts with, handed on in a file; the energies
that both make of them are compared.

    inference   energy, forces, stress of a rattled copper crystal from ready neighbour lists
    training    loss, gradient, clipping and Adam on 8 rattled cells of 40 atoms

Run: python benchmarks/orb_speed.py --orb /path/to/python-with-orb-models [--jobs inference,training]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

MODELS = ("orb-v2", "orb-v3-direct-20", "orb-v3-conservative-20")
SIZES = {40: (2, 5, 1), 108: (3, 3, 3), 256: (4, 4, 4), 500: (5, 5, 5)}
REPEATS = 7
REFERENCE = "heads.energy.reference.linear.weight"


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


def lamkit_call(job: str, model: str, n_atoms: int, neighbors: int, weights: Path):
    """A function that does the job once and returns the energy, or the loss."""
    from lamkit import config, presets
    from lamkit.data.batch import Shape, collate, make_graph
    from lamkit.model.config import TrunkConfig
    from lamkit.model.runtime import setup

    setup("CPU")
    from lamkit.model.inference import Predictor
    from lamkit.model.potential import Potential

    trunk = config.load(TrunkConfig, presets.find("configs/trunk", model))
    trunk = trunk.model_copy(update={"max_neighbors": neighbors})
    frames = cells() if job == "training" else [crystal(n_atoms)]
    graphs = [make_graph(labelled(a), trunk.cutoff, neighbors) for a in frames]
    shape = Shape(sum(len(a) for a in frames) + 1, sum(len(g.senders) for g in graphs) + 1, len(frames) + 1)
    batch = collate(graphs, shape, np.zeros(119))
    potential, average = Potential(trunk, ["x"]), Potential(trunk, ["x"])
    if weights.exists():
        for network in (potential, average):
            load(network, weights)
    if job == "training":
        return training_step(potential, average, batch)
    del average
    predictor = Predictor(potential)
    reference = np.load(weights)[REFERENCE].ravel()[frames[0].numbers].sum() if weights.exists() else 0.0
    return lambda: predictor.predict(batch, 0)["energy"][0] * n_atoms + reference


def load(potential, weights: Path) -> None:
    """Take the weights that orb-models wrote."""
    from lamkit.model.public.names import lamkit_name

    with np.load(weights) as file:
        potential.load_state({lamkit_name(name, "x"): file[name] for name in file if name != REFERENCE})


def training_step(potential, average, batch):
    """A function that makes one step of training: loss, gradient, clipping, Adam, average of the weights."""
    import mindspore as ms

    from lamkit.train.config import TrainConfig
    from lamkit.train.objective import tensors
    from lamkit.train.step import TrainStep

    step = TrainStep(potential, average, TrainConfig())
    head, numbers = ms.Tensor(0, ms.int32), ms.Tensor([1e-5, 0.9, 0.99, 0.9, 0.99, 0.99, 0.99], ms.float32)
    weights = ms.Tensor(np.ones(len(step.objective.loss.names)), ms.float32)
    units = ms.Tensor([1.0, 1.0, 1.0], ms.float32)
    inputs = tensors(batch)
    return lambda: float(step(head, numbers, weights, units, *inputs)[0].asnumpy())


def labelled(atoms: Atoms):
    """The structure as a frame with labels."""
    from lamkit.data.frame import from_atoms

    energy, forces, stress = labels(atoms)
    return from_atoms(atoms, energy=energy, forces=forces, stress=stress)


def labels(atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray]:
    """Random labels of reasonable size: the cost does not depend on them."""
    rng = np.random.default_rng(len(atoms))
    return -3.0 * len(atoms), rng.normal(size=(len(atoms), 3)), rng.normal(size=6) * 0.01


def orb_call(job: str, model: str, n_atoms: int, neighbors: int, weights: Path, compiled: bool):
    """The same with orb-models; the first to come writes its weights."""
    import torch
    from orb_models.forcefield import atomic_system, base, pretrained
    from orb_models.forcefield.atomic_system import SystemConfig

    build = {
        "orb-v2": pretrained.orb_v2_architecture,
        "orb-v3-direct-20": pretrained.orb_v3_direct_architecture,
        "orb-v3-conservative-20": pretrained.orb_v3_conservative_architecture,
    }[model]
    network = build()
    if weights.exists():
        with np.load(weights) as file:
            network.load_state_dict({name: torch.tensor(file[name]) for name in file})
    else:
        np.savez(weights, **{name: value.numpy() for name, value in network.state_dict().items()})
    system = SystemConfig(radius=6.0, max_num_neighbors=neighbors)
    if compiled:
        network.compile(mode="default", dynamic=True)
    if job == "inference":
        network.eval()
        graph = atomic_system.ase_atoms_to_atom_graphs(crystal(n_atoms), system)
        return lambda: network.predict(graph)["energy"].item()
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

    def step() -> float:
        optimizer.zero_grad()
        loss = network.loss(batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        return loss.item()

    return step


def serve(side: str, job: str, model: str, n_atoms: int, neighbors: int, weights: Path) -> None:
    """Answer each line on stdin with the seconds of one call, processor time, the peak memory and the energy."""
    import time

    if side == "lamkit":
        call = lamkit_call(job, model, n_atoms, neighbors, weights)
    else:
        call = orb_call(job, model, n_atoms, neighbors, weights, compiled=side == "compiled")
    call()
    call()
    print("ready", flush=True)
    for _ in sys.stdin:
        start, spent = time.perf_counter(), time.process_time()
        value = call()
        print(time.perf_counter() - start, time.process_time() - spent, peak_gb(), value, flush=True)


# -- the comparison -------------------------------------------------------------------------------


class Side:
    """One process of one engine."""

    def __init__(self, python: str, *words: str) -> None:
        command, self.errors = [python, __file__, "--serve", *words], tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )  # fmt: skip
        self.times: list[float] = []
        self.work: list[float] = []
        self.memory = self.value = float("nan")
        # Engines may print of their own before they are ready; the end of the stream means they failed.
        self.alive = any(line.strip() == "ready" for line in iter(self.process.stdout.readline, ""))

    def call(self) -> None:
        """Do the job once and note time and memory."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds, work, self.memory, self.value = map(float, self.process.stdout.readline().split())
        self.times.append(seconds)
        self.work.append(work)

    def result(self) -> dict:
        """What was measured, or the last words."""
        if not self.alive:
            self.errors.seek(0)
            lines = [line.strip() for line in self.errors if line.strip()]
            named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Unsupported)", line)]
            return {"error": (named or lines or ["no message"])[-1][:300]}
        return {
            "min_ms": 1000 * min(self.times),
            "median_ms": 1000 * statistics.median(self.times),
            "cpu_ms": 1000 * min(self.work),
            "peak_gb": self.memory,
            "value": self.value,
        }

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def compare(
    orb: str, sides: list[str], job: str, model: str, n_atoms: int, neighbors: int, repeats: int
) -> dict:
    """Times in ms (smallest, median), peak memory in GB and energy (training: loss) of each side."""
    with tempfile.TemporaryDirectory() as folder:
        words = (job, model, str(n_atoms), str(neighbors), str(Path(folder) / "weights.npz"))
        running = {s: Side(sys.executable if s == "lamkit" else orb, s, *words) for s in sides}
    for _ in range(repeats):
        for side in running.values():
            if side.alive:
                side.call()
    result = {}
    for name, side in running.items():
        result[name] = side.result()
        side.close()
    return result


def row(r: dict) -> str:
    """One line of the table, and one for each engine that failed."""
    ours = r["lamkit"]
    if "error" in ours:
        return f"{r['job']} {r['model']}: LAMKit failed: {ours['error']}"
    others = [r.get(name, {}) for name in ("eager", "compiled")]
    times = [
        f"{side['min_ms']:.0f} / {side['median_ms']:.0f}" if "min_ms" in side else "–"
        for side in (ours, *others)
    ]
    ratios = [
        " / ".join(f"{side[kind] / ours[kind]:.2f}" for kind in ("min_ms", "median_ms", "cpu_ms"))
        if "min_ms" in side
        else "–"
        for side in others
    ]
    memory = " / ".join(f"{side['peak_gb']:.2f}" for side in (ours, others[0]) if "peak_gb" in side)
    if r["job"] == "inference" and "value" in others[0]:
        difference = f"{abs(ours['value'] - others[0]['value']) / r['atoms']:.0e}"
    else:
        difference = "–"
    failed = [
        f"\n{name} failed: {side['error']}"
        for name, side in r.items()
        if isinstance(side, dict) and "error" in side
    ]
    return (
        f"| {r['job']} | {r['model']} | {r['atoms']} | {r['neighbors']} | {' | '.join(times)} "
        f"| {' | '.join(ratios)} | {memory} | {difference} |{''.join(failed)}"
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
    parser.add_argument("--threads", type=int, help="of each engine; default: as many as there are cores")
    parser.add_argument("--compiled", action="store_true", help="torch.compile as a third side")
    parser.add_argument(
        "--out",
        type=Path,
        default="orb_speed.jsonl",
        help="results as JSON lines; what is there is not made again",
    )
    parser.add_argument("--serve", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        side, job, model, n_atoms, neighbors, weights = args.serve
        serve(side, job, model, int(n_atoms), int(neighbors), Path(weights))
        return
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = os.environ["LAMKIT_NUM_THREADS"] = str(args.threads)
    # The first side writes the weights that the others read.
    sides = [*(["eager"] if args.orb else []), *(["compiled"] if args.compiled else []), "lamkit"]
    columns = ["job", "model", "atoms", "neighbours", "LAMKit ms (min / median)", "eager ms", "compiled ms"]
    columns += ["eager ÷ LAMKit (min / median / processor time)", "compiled ÷ LAMKit"]
    columns += ["peak GB LAMKit / eager", "difference eV/atom"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    done = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    for job in args.jobs.split(","):
        for model in args.models.split(","):
            for n_atoms in map(int, args.sizes.split(",")) if job == "inference" else [320]:
                key = {
                    "job": job,
                    "model": model,
                    "atoms": n_atoms,
                    "neighbors": args.neighbors,
                    "sides": sides,
                }
                found = next((r for r in done if all(r[name] == value for name, value in key.items())), None)
                if found is None:
                    found = key | compare(args.orb, sides, job, model, n_atoms, args.neighbors, args.repeats)
                    with args.out.open("a") as file:
                        file.write(json.dumps(found) + "\n")
                print(row(found), flush=True)


if __name__ == "__main__":
    main()
