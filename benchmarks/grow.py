"""A larger trunk that begins by computing what a trained one computes (Net2Net: Chen et al., arXiv 1511.05641).

New hidden units read with random weights and write nothing, new interaction layers end in a norm of gain zero, new
angular features are read with weight zero: energies and forces are those of the old trunk until training uses what was
added. So it shows whether size is what limits a trained trunk.

Run: python benchmarks/grow.py --from CKPT --out DIR --hidden 128 --layers 5; then lamkit pretrain --from DIR ...
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from lamkit.model.build import build
from lamkit.model.config import TrunkConfig
from lamkit.model.runtime import setup
from lamkit.train import checkpoint

FIRST_OF_EDGES = "model._encoder._edge_fn.mlp.NN-0.weight"  # [hidden, bessel (lmax+1)^2], angular index fast


def grown(
    start: checkpoint.Checkpoint, *, hidden: int, layers: int, lmax: int, seed: int = 0
) -> checkpoint.Checkpoint:
    """The checkpoint with a larger trunk and the same predictions.

    Args:
        start: checkpoint of an Orb.
        hidden: width of the hidden layers of the trunk's networks, at least the old one.
        layers: interaction layers, at least the old number.
        lmax: highest degree of the spherical harmonics, at least the old one.
        seed: of the new weights.
    """
    old = start.trunk
    assert isinstance(old, TrunkConfig)
    if hidden < old.hidden or layers < old.layers or lmax < old.lmax:
        raise SystemExit(f"{start.path}: hidden {old.hidden}, layers {old.layers}, lmax {old.lmax} only grow")
    trunk = old.model_copy(update={"hidden": hidden, "layers": layers, "lmax": lmax})
    weights = build(trunk, start.heads, seed).state()
    for name, value in weights.items():
        before = start.weights.get(name)
        if before is None:  # of a layer that is new
            weights[name] = np.zeros_like(value) if name.endswith("layer_norm.weight") else value
            continue
        if name == FIRST_OF_EDGES:
            before = _spread(before, old, trunk)
        if before.shape == value.shape:
            weights[name] = before
        else:
            value[: len(before)] = 0.0  # what old units would read of new ones
            value[tuple(slice(n) for n in before.shape)] = before
    return replace(start, trunk=trunk, weights=weights)


def _spread(weight: np.ndarray, old: TrunkConfig, new: TrunkConfig) -> np.ndarray:
    """The columns of the old angular features at their places among the new ones."""
    n_old, n_new = (old.lmax + 1) ** 2, (new.lmax + 1) ** 2
    result = np.zeros((len(weight), old.bessel, n_new), weight.dtype)
    result[:, :, :n_old] = weight.reshape(len(weight), old.bessel, n_old)
    return result.reshape(len(weight), -1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hidden", type=int, help="units; none: as many as before")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--lmax", type=int)
    args = parser.parse_args()
    setup("CPU")
    start = checkpoint.read(args.checkpoint)
    sizes = {key: getattr(args, key) or getattr(start.trunk, key) for key in ("hidden", "layers", "lmax")}
    checkpoint.write(args.out, grown(start, **sizes))


if __name__ == "__main__":
    main()
