"""Why the CPU presets look as they do: how fast a conservative network of that size begins to learn.

Eight frames of 3BPA (wB97X) are fitted for --steps steps, turned at random at each step; printed is the force RMSE
in eV/Å after every 50 steps. Varied are the degree of the angular features and the starting weights.

Run: python benchmarks/choices.py --shared ../shared
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from lamkit.data.batch import collate, make_graph, random_rotations, rotate, shape_of
from lamkit.data.dataset import open_dataset
from lamkit.model.config import TrunkConfig
from lamkit.model.runtime import setup
from lamkit.stages import convert
from lamkit.train.config import LossConfig, TrainConfig

# name, lmax, gain of the starting weights, size of the starting biases, size of a head's last layer
CASES = (
    ("lmax 3, PyTorch's start", 3, 3**-0.5, 1.0, 1.0),
    ("lmax 0, PyTorch's start", 0, 3**-0.5, 1.0, 1.0),
    ("lmax 3, our start", 3, 1.5, 0.1, 0.05),
    ("lmax 1, our start", 1, 1.5, 0.1, 0.05),
    ("lmax 0, our start", 0, 1.5, 0.1, 0.05),
)


def learn(lmax: int, gain: float, bias: float, last: float, data: Path, steps: int) -> list[float]:
    """Force RMSE (eV/Å) of the batch at every 50th step."""
    ms = setup()
    from mindspore import Tensor

    from lamkit.model import heads, layers
    from lamkit.model.potential import Potential
    from lamkit.train.objective import tensors
    from lamkit.train.step import TrainStep

    layers.START_GAIN, layers.START_BIAS, heads.LAST_LAYER = gain, bias, last
    trunk = TrunkConfig(
        latent=32, hidden=48, layers=2, head_hidden=32, cutoff=4.5, lmax=lmax, repulsion=False
    )
    frames = open_dataset(data)
    chosen = np.linspace(0, len(frames) - 1, 8).astype(int)
    graphs = [make_graph(frames.frame(int(i)), trunk.cutoff, None) for i in chosen]
    shape, reference = shape_of(graphs), np.zeros(119)
    reference[:] = np.mean([g.energy / g.n_atoms for g in graphs])
    scale = float(np.sqrt(np.mean(np.concatenate([g.forces for g in graphs]) ** 2)))
    config = TrainConfig(loss=LossConfig(kind="mse"), weight_decay=0, clip_norm=1e3)
    networks = [Potential(trunk, ["a"], seed=1) for _ in range(2)]
    for network in networks:
        network.set_scale("a", "energy", 0.0, scale)
    step = TrainStep(*networks, config)
    weights = Tensor(np.array([0.1, 10, 0]), ms.float32)
    units = Tensor(np.array([0.02 * scale, scale, 1]), ms.float32)
    batch, found = collate(graphs, shape, reference), []
    for k in range(1, steps + 1):
        turned = rotate(batch, random_rotations(np.random.default_rng(k), shape.n_graphs))
        rate, powers = 3e-3 * min(1, k / 20), (config.beta1**k, config.beta2**k)
        numbers = Tensor(np.array([rate, *powers, *powers, 0.9, 0.9]), ms.float32)
        outputs = step(Tensor(0, ms.int32), numbers, weights, units, *tensors(turned))
        if k % 50 == 0:
            found.append(float(np.sqrt(outputs[3].asnumpy())))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = args.shared / "data" / "3bpa_wB97X" / "train_300K.xyz"
        convert.convert(convert.Options(sources=[str(source)]), Path(folder) / "data")
        print("| case |", " | ".join(f"step {k}" for k in range(50, args.steps + 1, 50)), "|")
        print("|---|" + "---|" * (args.steps // 50))
        for name, *case in CASES:
            found = learn(*case, Path(folder) / "data", args.steps)
            print(f"| {name} |", " | ".join(f"{x:.3f}" for x in found), "|", flush=True)


if __name__ == "__main__":
    main()
