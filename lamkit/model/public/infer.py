"""The architecture of a public Orb file, read off the names and shapes of its arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lamkit import config
from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.model.public.arrays import listed
from lamkit.model.public.names import EMBEDDING, N_ROWS, layer_of

Output = Literal["conservative", "direct"]
Shapes = Mapping[str, tuple[int, ...]]
HARMONICS = (1, 4, 9, 16)


@dataclass(frozen=True)
class Untold:
    """What the arrays do not tell.

    Attributes:
        cutoff: Å; v3 files hold it.
        max_neighbors: nearest neighbours that count.
        repulsion: whether the pair repulsion is added; None: in v3 yes, in v2 no, as in all public models.
        output: of a file without heads.
        stress: whether a conservative model gives stress; None: only OrbMol, which has charge and spin, not.
    """

    cutoff: float | None = None
    max_neighbors: int | None = None
    repulsion: bool | None = None
    output: Output | None = None
    stress: bool | None = None


def infer(shapes: Shapes, r_max: float | None, untold: Untold, where: str) -> TrunkConfig:
    """The architecture.

    Args:
        shapes: public name → shape.
        r_max: the cutoff that a v3 file holds, Å.
        untold: what must be known beside the file.
        where: the file, for messages.

    Raises:
        UserError: not an Orb file, an Orb that is not supported, or something untold is missing.
    """
    _refuse_others(shapes, where)
    latent = shapes[EMBEDDING][1]
    v3 = "model.rbf_transform.bessel_weights" in shapes
    output = _output(shapes, untold, where)
    inputs = _size(shapes, "model._encoder._edge_fn.mlp.NN-0.weight", 1, where)
    cutoff = r_max if v3 else untold.cutoff
    for flag, value in (("--cutoff", cutoff), ("--max-neighbors", untold.max_neighbors)):
        if value is None:
            raise UserError(
                f"{where}: neither the file nor its name (which is none of the public ones) tells this model's "
                f"{flag.strip('-').replace('-', ' ')}; give {flag} (public models: cutoff 6 Å; 20 neighbours for "
                "orb-v2 and '-20-', 120 for '-inf-' and OrbMol)"
            )
    if v3 and untold.cutoff is not None and not math.isclose(untold.cutoff, r_max or 0, rel_tol=1e-6):
        raise UserError(f"{where}: --cutoff {untold.cutoff}, but the file says {r_max} Å")
    radial = {"bessel": (n := shapes["model.rbf_transform.bessel_weights"][0]), "lmax": _lmax(inputs, n, where)} \
        if v3 else {"gaussians": inputs - 3}  # fmt: skip
    choices = {
        "version": "v3" if v3 else "v2",
        "output": output,
        "latent": latent,
        "hidden": _size(shapes, "model._encoder._node_fn.mlp.NN-0.weight", 0, where),
        "layers": _layers(shapes, where),
        "head_hidden": _head_hidden(shapes, latent),
        "cutoff": cutoff,
        "max_neighbors": untold.max_neighbors,
        **radial,
        "repulsion": v3 if untold.repulsion is None else untold.repulsion,
        "conditioning": _any(shapes, "model.conditioner."),
        "confidence": _any(shapes, "heads.confidence."),
        "decoder": _any(shapes, "model._decoder."),
        "stress": _stress(shapes, untold, output),
    }
    return config.parse(TrunkConfig, choices, origin=where)


def _any(shapes: Shapes, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)


def _refuse_others(shapes: Shapes, where: str) -> None:
    """Refuse what is no Orb, and the Orb of the first release."""
    if _any(shapes, "model.rbf."):
        raise UserError(
            f"{where}: an orb-v1 model (learnable radial functions), withdrawn by its authors; use orb-v2"
        )
    table = shapes.get(EMBEDDING)
    if table is None or len(table) != 2 or table[0] != N_ROWS or table[1] == 0:
        found = f"has shape {table}" if table is not None else "is missing"
        raise UserError(
            f"{where}: not an Orb model: {EMBEDDING} {found}, ({N_ROWS}, width) is needed. "
            f"It holds {len(shapes)} arrays:{listed(shapes, 6)}"
        )


def _size(shapes: Shapes, name: str, axis: int, where: str) -> int:
    shape = shapes.get(name, ())
    if len(shape) != 2 or 0 in shape:
        found = f"has shape {shape}" if name in shapes else "is missing"
        raise UserError(f"{where}: not a whole Orb model: {name} {found}, a matrix is needed")
    return shape[axis]


def _layers(shapes: Shapes, where: str) -> int:
    indices = {i for name in shapes if (i := layer_of(name)) is not None}
    if not indices or indices != set(range(len(indices))):
        strange = [n for n in shapes if n.startswith("model.gnn_stacks.")]
        raise UserError(
            f"{where}: its interaction layers are numbered {sorted(indices)[:20]}; 0, 1, 2 … without a gap "
            f"are needed.{listed(strange, 4)}"
        )
    return len(indices)


def _output(shapes: Shapes, untold: Untold, where: str) -> Output:
    """Conservative files hold the normaliser of their gradients, direct ones a head for forces."""
    if _any(shapes, "grad_forces_normalizer."):
        found: Output | None = "conservative"
    elif _any(shapes, "heads.forces."):
        found = "direct"
    else:
        found = untold.output
    if found is None:
        raise UserError(
            f"{where}: holds no head for forces and no grad_forces_normalizer, so it does not tell whether the "
            "model is direct or conservative; give --output direct or --output conservative"
        )
    if untold.output is not None and untold.output != found:
        raise UserError(f"{where}: --output {untold.output}, but the file holds a {found} model")
    return found


def _stress(shapes: Shapes, untold: Untold, output: Output) -> bool:
    conditioning = _any(shapes, "model.conditioner.")
    if output == "direct" and _any(shapes, "heads."):
        return _any(shapes, "heads.stress.")
    return not conditioning if untold.stress is None else untold.stress


def _lmax(inputs: int, n_radial: int, where: str) -> int:
    if n_radial == 0 or inputs % n_radial or inputs // n_radial not in HARMONICS:
        raise UserError(
            f"{where}: {inputs} edge inputs are no product of {n_radial} radial functions with "
            f"{', '.join(map(str, HARMONICS))} spherical harmonics"
        )
    return HARMONICS.index(inputs // n_radial)


def _head_hidden(shapes: Shapes, latent: int) -> int:
    """Width of the heads; that of the trunk where there are none."""
    for name, shape in shapes.items():
        if re.fullmatch(r"heads\.(energy|forces|stress)\.mlp\.NN-0\.weight", name) and len(shape) == 2:
            return shape[0]
    return latent
