"""What the network sees of an edge vector: radial functions, spherical harmonics, cutoff envelope."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from lamkit.model.config import TrunkConfig
from lamkit.model.layers import Named


class Envelope(nn.Cell):
    """f = 1 - 15 q^4 + 24 q^5 - 10 q^6 for q = r / cutoff < 1, else 0.

    Written as (1-q)^3 (1 + 3q + 6q^2 + 10q^3): the same polynomial without cancellation near the cutoff,
    where value, slope and curvature vanish.
    """

    def __init__(self, cutoff: float, dtype: ms.Type) -> None:
        super().__init__()
        self.cutoff = Tensor(cutoff, dtype)

    def construct(self, r: Tensor) -> Tensor:
        """[n_edges] Å -> [n_edges]."""
        q = r / self.cutoff
        s = ops.relu(1.0 - q)
        return s * s * s * (1.0 + q * (3.0 + q * (6.0 + q * 10.0)))


class GaussianFeatures(nn.Cell):
    """v2: exp(-(r - mu_k)^2) with mu_k = 0, 0.5, 1, ... Å, then the unit vector."""

    def __init__(self, config: TrunkConfig, dtype: ms.Type) -> None:
        super().__init__()
        self.centres = Tensor(0.5 * np.arange(config.gaussians)[None, :], dtype)

    def construct(self, r: Tensor, unit: Tensor, envelope: Tensor) -> Tensor:
        """From r [n_edges] Å and unit [n_edges, 3] to [n_edges, gaussians + 3]; no envelope in v2."""
        distance = ops.expand_dims(r, 1) - self.centres
        return ops.concat((ops.exp(-distance * distance), unit), 1)

    def named(self, prefix: str) -> Named:
        """No parameters."""
        yield from ()


class BesselFeatures(nn.Cell):
    """v3: envelope(r) B_b(r) Y_s(u), radial index b slow, angular index s fast.

    B_b = sqrt(2/rc) sin((b+1) pi r / rc) / r. Its constants are state, as in the public checkpoints, which
    hold them rounded to float32.
    """

    def __init__(self, config: TrunkConfig, dtype: ms.Type) -> None:
        super().__init__()
        frequencies = np.float32(np.pi) * np.arange(1, config.bessel + 1, dtype=np.float32)
        self.frequencies = _constant(frequencies / np.float32(config.cutoff), dtype)
        self.prefactor = _constant(np.array(np.sqrt(2.0 / config.cutoff), np.float32), dtype)
        self.r_max = _constant(np.array(config.cutoff, np.float32), dtype)
        self.harmonics = SphericalHarmonics(config.lmax, dtype)
        self.width = config.n_edge_inputs

    def construct(self, r: Tensor, unit: Tensor, envelope: Tensor) -> Tensor:
        """From r and envelope [n_edges], unit [n_edges, 3] to [n_edges, bessel (lmax+1)^2]."""
        column = ops.expand_dims(r, 1)
        radial = ops.sin(column * self.frequencies) * (ops.expand_dims(envelope, 1) * self.prefactor / column)
        angular = self.harmonics(unit)
        product = ops.expand_dims(radial, 2) * ops.expand_dims(angular, 1)
        return ops.reshape(product, (r.shape[0], self.width))

    def named(self, prefix: str) -> Named:
        """Constants under their public names."""
        yield f"{prefix}.bessel_weights", self.frequencies
        yield f"{prefix}.prefactor", self.prefactor
        yield f"{prefix}.r_max", self.r_max


class SphericalHarmonics(nn.Cell):
    """Real spherical harmonics up to degree 3, sum of squares 2l+1 per degree, y as polar axis.

    Each is a homogeneous polynomial of the unit vector, so that all are one product of
    [1, u, u x u, u x u x u] with a constant matrix.
    """

    def __init__(self, lmax: int, dtype: ms.Type) -> None:
        super().__init__()
        self.lmax = lmax
        self.table = Tensor(harmonic_table(lmax), dtype)

    def construct(self, unit: Tensor) -> Tensor:
        """[n_edges, 3] -> [n_edges, (lmax+1)^2]."""
        n = unit.shape[0]
        monomials = (ops.ones_like(unit[:, :1]),)
        power = unit
        for degree in range(1, self.lmax + 1):
            if degree > 1:
                outer = ops.expand_dims(power, 2) * ops.expand_dims(unit, 1)
                power = ops.reshape(outer, (n, 3**degree))
            monomials = (*monomials, power)  # type: ignore[assignment]  # graph mode
        return ops.matmul(ops.concat(monomials, 1), self.table)


def harmonic_table(lmax: int) -> np.ndarray:
    """Coefficients [1 + 3 + 9 + 27, (lmax+1)^2] of the harmonics over products of x, y, z."""
    x, y, z = np.eye(3)

    def product(*factors: np.ndarray) -> np.ndarray:
        result = factors[0]
        for factor in factors[1:]:
            result = np.multiply.outer(result, factor)
        return result

    xx, yy, zz = product(x, x), product(y, y), product(z, z)
    s3 = np.sqrt(3.0)
    c20, c24 = s3 * product(x, z), s3 / 2 * (zz - xx)
    planar = 4 * yy - xx - zz
    degrees = [
        [np.ones(())],
        [x, y, z],
        [c20, s3 * product(x, y), yy - (xx + zz) / 2, s3 * product(y, z), c24],
        [
            np.sqrt(5 / 6) * (product(c20, z) + product(c24, x)),
            np.sqrt(5) * product(c20, y),
            np.sqrt(3 / 8) * product(planar, x),
            product(2 * yy - 3 * xx - 3 * zz, y) / 2,
            np.sqrt(3 / 8) * product(planar, z),
            np.sqrt(5) * product(c24, y),
            np.sqrt(5 / 6) * (product(c24, z) - product(c20, x)),
        ],
    ]
    n_rows = sum(3**degree for degree in range(lmax + 1))
    table = np.zeros((n_rows, (lmax + 1) ** 2))
    row = column = 0
    for degree in range(lmax + 1):
        for polynomial in degrees[degree]:
            table[row : row + 3**degree, column] = np.sqrt(2 * degree + 1) * polynomial.ravel()
            column += 1
        row += 3**degree
    return table


def _constant(value: np.ndarray, dtype: ms.Type) -> Parameter:
    """State that is saved with the weights and never trained."""
    return Parameter(Tensor(value, dtype), requires_grad=False)


FEATURES = {"v2": GaussianFeatures, "v3": BesselFeatures}
