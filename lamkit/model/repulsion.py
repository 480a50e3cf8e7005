"""Ziegler-Biersack-Littmark pair repulsion, smoothly off at the sum of the covalent radii.

V = 14.3996 Z_i Z_j / r phi(r/a) g(r) with phi a sum of four exponentials, screening length
a = 0.4543 * 0.529 / (Z_i^0.3 + Z_j^0.3) and
g = 1 - 28 q^6 + 48 q^7 - 21 q^8 for q = r / (R_i + R_j) < 1, else 0 (Orb models, version 3).
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from ase.data import covalent_radii
from mindspore import Tensor, nn, ops

from lamkit.model.config import TrunkConfig

COULOMB = 14.3996  # eV Å
SCREENING_LENGTH = 0.4543 * 0.529  # Å
WEIGHTS = (0.1818, 0.5099, 0.2802, 0.02817)
DECAYS = (3.2, 0.9423, 0.4028, 0.2016)


class Repulsion(nn.Cell):
    """Energy of each directed edge, half the pair's, so that the sum over edges is the energy.

    Args:
        config: ``repulsion_rule`` decides on the atomic numbers: the public Orb weights were trained with
            numbers too large by one.
        dtype: of all constants.
    """

    def __init__(self, config: TrunkConfig, dtype: ms.Type) -> None:
        super().__init__()
        shift = 1 if config.repulsion_rule == "orb" else 0
        known = len(covalent_radii) - 1
        z = np.minimum(np.arange(known + 1) + shift, known)
        # One row per atomic number: charge, charge^0.3, radius.
        charge = np.maximum(z, 1)  # the dummy of padding has no pairs; keep it finite
        self.table = Tensor(np.stack([charge, charge**0.3, covalent_radii[charge]], 1), dtype)
        self.half_coulomb = Tensor(0.5 * COULOMB, dtype)
        self.length = Tensor(SCREENING_LENGTH, dtype)
        self.weights = Tensor(np.array([WEIGHTS]), dtype)
        self.decays = Tensor(np.array([DECAYS]), dtype)

    def construct(self, r: Tensor, numbers: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """From r [n_edges] Å to [n_edges] eV."""
        atoms = ops.gather(self.table, numbers, 0)
        i, j = ops.gather(atoms, senders, 0), ops.gather(atoms, receivers, 0)
        scaled = ops.expand_dims(r * (i[:, 1] + j[:, 1]) / self.length, 1)
        screening = ops.sum(self.weights * ops.exp(-self.decays * scaled), 1)
        q = r / (i[:, 2] + j[:, 2])
        s = ops.relu(1.0 - q)
        # 1 - 28 q^6 + 48 q^7 - 21 q^8 = (1-q)^3 (1 + 3q + 6q^2 + 10q^3 + 15q^4 + 21q^5): no cancellation
        switch = s * s * s * (1.0 + q * (3.0 + q * (6.0 + q * (10.0 + q * (15.0 + q * 21.0)))))
        return self.half_coulomb * i[:, 0] * j[:, 0] / r * screening * switch
