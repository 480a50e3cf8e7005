"""Total charge and spin as inputs of the trunk (OrbMol)."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from lamkit.model.layers import Named


class ChargeSpin(nn.Cell):
    """q = [emb(charge), emb(spin)] with emb(v) = [sin(2 pi v W), cos(2 pi v W)] and learned W.

    Spin 0 stands for "not stated" and embeds as zeros.

    Args:
        width: of q, a multiple of 4.
        rng: draws W, standard normal.
        dtype: of everything.
    """

    def __init__(self, width: int, rng: np.random.Generator, dtype: ms.Type) -> None:
        super().__init__()
        self.charge_waves = Parameter(Tensor(rng.normal(size=width // 4), dtype))
        self.spin_waves = Parameter(Tensor(rng.normal(size=width // 4), dtype))
        self.two_pi = Tensor(2.0 * np.pi, dtype)

    def construct(self, charge: Tensor, spin: Tensor) -> Tensor:
        """From charge [n_graphs] (e) and multiplicity [n_graphs] to [n_graphs, width]."""
        stated = ops.expand_dims(ops.cast(spin != 0.0, spin.dtype), 1)
        return ops.concat(
            (self._waves(charge, self.charge_waves), self._waves(spin, self.spin_waves) * stated), 1
        )

    def _waves(self, value: Tensor, waves: Tensor) -> Tensor:
        phase = ops.expand_dims(value, 1) * waves * self.two_pi
        return ops.concat((ops.sin(phase), ops.cos(phase)), 1)

    def named(self, prefix: str) -> Named:
        """Parameters under their public names."""
        yield f"{prefix}.charge_embedding.W", self.charge_waves
        yield f"{prefix}.spin_embedding.W", self.spin_waves
