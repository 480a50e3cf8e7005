"""Does the loader keep up? Batches made per second against batches trained per second, on MPtrj-like data.

    python benchmarks/make_mptrj.py --frames 20000 --out /tmp/mptrj.json
    lamkit data convert /tmp/mptrj.json --out /tmp/mptrj
    python benchmarks/loader.py --data /tmp/mptrj

Three networks of about one million parameters are trained for some steps, each with the batches that its loader
makes: alone (the step with batches that are ready), alone (the loader with nothing to train), and together as in a
run, where the loader works in a thread beside the step.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lamkit.console import table
from lamkit.data.dataset import open_dataset
from lamkit.data.sampler import Draw
from lamkit.model.config import TrunkConfig
from lamkit.stages.sources import head_of
from lamkit.train.config import TrainConfig, expand_preset
from lamkit.train.prefetch import prefetch

if TYPE_CHECKING:
    from lamkit.train.trainer import Trainer

NETWORKS = {
    "conservative, 4 Å": {"preset": "orb-v3-small", "latent": 96, "hidden": 256, "layers": 3, "head_hidden": 96},
    "conservative, 6 Å": {"preset": "orb-v3-small", "latent": 96, "hidden": 256, "layers": 3, "head_hidden": 96,
                          "cutoff": 6.0},
    "direct, 6 Å, 20 neighbours": {"preset": "orb-v2-small", "latent": 96, "hidden": 256, "layers": 3,
                                   "head_hidden": 96, "cutoff": 6.0},
}  # fmt: skip


def step(trainer: Trainer, draw: Draw) -> None:
    trainer.stepper(draw, 1e-4, trainer.at.head_steps, 0.0, False, False)


def measure(name: str, data: Path, steps: int, batch_atoms: int) -> tuple[object, ...]:
    from lamkit.model.runtime import setup
    from lamkit.train.run import Run
    from lamkit.train.tasks import make_task
    from lamkit.train.trainer import Trainer

    setup("CPU")
    trunk = TrunkConfig(**expand_preset("configs/trunk", NETWORKS[name]))
    head = head_of("mptrj-like", data)
    task = make_task("mptrj-like", data, head, valid_fraction=0.1, seed=0)
    config = TrainConfig(batch_atoms=batch_atoms, max_steps=10_000, cache_mb=0, valid_frames=4)
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(Run([task], trunk, config, Path(out)), resume=False)
        n_parameters = sum(int(p.size) for p in (*trainer.step.trunk, *trainer.step.heads))
        begin = time.perf_counter()
        ready = [trainer.dealer.draw(k) for k in range(4 * steps)]
        loading = time.perf_counter() - begin
        frames = sum(draw.items[0].n_frames for draw in ready)
        items = [draw.items[0] for draw in ready]
        edges = sum(int((item.batch.edge_graph < item.n_frames).sum()) for item in items)
        step(trainer, ready[0])  # compiles
        begin = time.perf_counter()
        for draw in ready[:steps]:
            step(trainer, draw)
        training = time.perf_counter() - begin
        trained = sum(item.n_frames for item in items[:steps])
        batches = prefetch(trainer.dealer.draw, 4 * steps, 5 * steps)
        begin, waited, together = time.perf_counter(), 0.0, 0
        mark = begin
        for draw in batches:
            waited += time.perf_counter() - mark
            step(trainer, draw)
            together += draw.items[0].n_frames
            mark = time.perf_counter()
        whole = time.perf_counter() - begin
    supply, demand = frames / loading, trained / training
    return (
        name, f"{n_parameters / 1e6:.2f} M", f"{edges / frames:.0f}", f"{supply:.0f}", f"{edges / loading / 1e3:.0f} k",
        f"{demand:.1f}", f"{supply / demand:.1f}", f"{together / whole:.1f}", f"{100 * waited / whole:.1f} %",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="data set, for example of make_mptrj.py")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-atoms", type=int, default=128)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    args = parser.parse_args()
    data = open_dataset(args.data)
    print(f"{args.data}: {len(data)} frames, {np.mean(data.n_atoms):.1f} atoms each on average")
    rows = [measure(name, args.data, args.steps, args.batch_atoms) for name in args.networks]
    headers = ("network", "parameters", "edges/frame", "loader frames/s", "edges/s", "step frames/s", "ratio",
               "together frames/s", "waiting")  # fmt: skip
    print(table(rows, headers))


if __name__ == "__main__":
    main()
