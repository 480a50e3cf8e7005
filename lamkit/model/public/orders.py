"""The orders in which frameworks write the arrays of an orb-v2 model, for files whose names are not known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations

from lamkit.model.config import TrunkConfig
from lamkit.model.public.names import COUNTER, EMBEDDING, N_ROWS, REFERENCE, public_shapes, same_shape

Shape = tuple[int, ...]
GAUSSIANS = 20
STATISTICS = ("running_mean", "running_var", COUNTER)


def candidates(shapes: Sequence[Shape]) -> Iterator[list[str]]:
    """Public names in every known order that fits a list of shapes; none where it cannot be an orb-v2.

    Args:
        shapes: of the arrays, in the order of the file.
    """
    trunk = _sizes(shapes)
    if trunk is None:
        return
    expected = public_shapes(trunk)
    for heads in permutations(("energy", "forces", "stress")):
        for heads_first in (True, False):
            for embedding_first in (True, False):
                network = _network(trunk)
                network = [EMBEDDING, *network] if embedding_first else [*network, EMBEDDING]
                outputs = [name for head in heads for name in _head(head)]
                names = [*outputs, *network] if heads_first else [*network, *outputs]
                if len(names) == len(shapes) and all(
                    same_shape(found, expected[name], name) for found, name in zip(shapes, names, strict=True)
                ):
                    yield names


def _sizes(shapes: Sequence[Shape]) -> TrunkConfig | None:
    """Widths and layers, from the shapes that only one array of an orb-v2 has."""
    tables = [s for s in shapes if len(s) == 2 and s[0] == N_ROWS]
    edges = [s for s in shapes if len(s) == 2 and s[1] == GAUSSIANS + 3]
    stresses = [s for s in shapes if len(s) == 2 and s[0] == 6]
    if not tables or not edges or 0 in (*tables[0], *edges[0]):
        return None
    latent, hidden = tables[0][1], edges[0][0]
    # The last layer of the stress head, told from any other matrix of six rows by the layers beside it.
    widths = [h for _, h in stresses if {(1, h), (3, h), (h, latent)} <= set(shapes)]
    if not widths:
        return None
    layers = sum(s == (hidden, 3 * latent) for s in shapes) // 2
    if layers == 0:
        return None
    return TrunkConfig(
        version="v2", output="direct", latent=latent, hidden=hidden, layers=layers,
        head_hidden=widths[-1], gaussians=GAUSSIANS, repulsion=False, decoder=True,
    )  # fmt: skip


def _network(trunk: TrunkConfig) -> list[str]:
    names = [*_mlp("model._encoder._node_fn", 3, norm=True), *_mlp("model._encoder._edge_fn", 3, norm=True)]
    for i in range(trunk.layers):
        layer = f"model.gnn_stacks.{i}"
        names += [*_mlp(f"{layer}._node_mlp", 3, norm=True), *_mlp(f"{layer}._edge_mlp", 3, norm=True)]
        names += [
            f"{layer}.{gate}.{part}"
            for gate in ("_receive_attn", "_send_attn")
            for part in ("weight", "bias")
        ]
    return [*names, *_mlp("model._decoder.node_fn", 3, norm=False)]


def _head(head: str) -> list[str]:
    names = [f"heads.{head}.normalizer.bn.{part}" for part in STATISTICS]
    names += _mlp(f"heads.{head}", 2, norm=False)
    return [*names, REFERENCE] if head == "energy" else names


def _mlp(name: str, n_linear: int, *, norm: bool) -> list[str]:
    names = [f"{name}.mlp.NN-{i}.{part}" for i in range(n_linear) for part in ("weight", "bias")]
    return [*names, f"{name}.layer_norm.weight", f"{name}.layer_norm.bias"] if norm else names
