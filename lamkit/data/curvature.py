"""The Hessian of the energy in a few directions, by central differences of forces.

For a direction v the product is H v = -(F(x + h v) - F(x - h v)) / 2h, with H_ij = d²E / dx_i dx_j. Teacher and
student use the same v and h, so that a student with the teacher's forces has the teacher's products exactly.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from lamkit.data.frame import Frame

# Å. Forces in float32 are good to 1e-6 to 1e-5 eV/Å, products thus to some 1e-4 eV/Å² of 1 to 50; a step ten times
# as small would leave 1e-3, one ten times as large would see the third derivatives.
STEP = 0.01


def directions(frame: Frame, n: int) -> NDArray[np.float64]:
    """Random directions of all atoms at once, [n, n_atoms, 3], no unit; the same ones for the same structure.

    They are normal, scaled so that the mean square of the components is 1: products do not depend on the size
    of the frame then.
    """
    rng = np.random.default_rng(zlib.crc32(np.ascontiguousarray(frame.positions).tobytes()))
    drawn = rng.normal(size=(n, len(frame), 3))
    return np.asarray(drawn / np.sqrt(np.mean(drawn**2, axis=(1, 2), keepdims=True)), dtype=np.float64)


def product(ahead: NDArray[np.float64], behind: NDArray[np.float64]) -> NDArray[np.float64]:
    """H v in eV/Å² from the forces in eV/Å at x + h v and at x - h v; all [n_atoms, 3]."""
    return (behind - ahead) / (2 * STEP)
