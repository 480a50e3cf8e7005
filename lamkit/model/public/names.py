"""Names and shapes of the arrays of a public Orb file, and the older spellings brought to them.

The names are those of orb-models 0.5; LAMKit's own are the same with the head's name put in (see
:func:`lamkit_name`). The element references are the one array that LAMKit keeps outside of the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.model.normalizers import normalizers
from lamkit.model.public.arrays import listed, shown

EMBEDDING = "model.atom_emb.embeddings.weight"
REFERENCE = "heads.energy.reference.linear.weight"
N_ROWS, N_REFERENCES = 119, 118  # of the embedding; of the references, both by atomic number, 0 unused
CONFIDENCE_BINS = 50
# Heads of orb-models 0.4, as in the public orb-v2 files.
OLD_HEADS = {"graph_head.": "heads.energy.", "node_head.": "heads.forces.", "stress_head.": "heads.stress."}
# Part of a head although upstream names it beside the heads; per head in LAMKit.
OF_A_HEAD = ("heads.", "grad_forces_normalizer.", "grad_stress_normalizer.")
COUNTER = "num_batches_tracked"
MAX_NAME = 300  # characters


def public_shapes(trunk: TrunkConfig) -> dict[str, tuple[int, ...]]:
    """Every array of a public file of this architecture, with its shape."""
    width, hidden, first = trunk.latent, trunk.hidden, trunk.head_hidden
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (N_ROWS, width)}
    if trunk.version == "v3":
        place = "model.rbf_transform"
        shapes |= {f"{place}.bessel_weights": (trunk.bessel,), f"{place}.r_max": (), f"{place}.prefactor": ()}
    if trunk.conditioning:
        shapes |= {f"model.conditioner.{kind}_embedding.W": (width // 4,) for kind in ("charge", "spin")}
    networks = {"model._encoder._node_fn": width, "model._encoder._edge_fn": trunk.n_edge_inputs}
    for i in range(trunk.layers):
        layer = f"model.gnn_stacks.{i}"
        networks |= {f"{layer}._node_mlp": 3 * width, f"{layer}._edge_mlp": 3 * width}
        for gate in ("_receive_attn", "_send_attn"):
            shapes |= _linear(f"{layer}.{gate}", width, 1)
        if trunk.conditioning:
            shapes |= _linear(f"{layer}._cond_node_proj", width, width)
    for name, n_in in networks.items():
        shapes |= _mlp(name, n_in, hidden, hidden, width)
        shapes[f"{name}.layer_norm.weight"] = (width,)
        if trunk.version == "v2":
            shapes[f"{name}.layer_norm.bias"] = (width,)
    if trunk.decoder:
        shapes |= _mlp("model._decoder.node_fn", width, hidden, hidden, 3)
    for head, n_out in head_outputs(trunk).items():
        shapes |= _mlp(f"heads.{head}", width, first, n_out)
    shapes[REFERENCE] = (N_REFERENCES,)
    if trunk.confidence:
        shapes["heads.confidence.bin_edges"] = (CONFIDENCE_BINS + 1,)
    for place in normalizer_names(trunk):
        counter = (1,) if place == "heads.energy.normalizer" else ()
        values = {"running_mean": (1,), "running_var": (1,), COUNTER: counter}
        shapes |= {f"{place}.bn.{name}": shape for name, shape in values.items()}
    return shapes


def head_outputs(trunk: TrunkConfig) -> dict[str, int]:
    """Output networks of a head with the number of their outputs."""
    outputs = {"energy": 1}
    if not trunk.conservative:
        outputs |= {"forces": 3, "stress": 6} if trunk.stress else {"forces": 3}
    return outputs | ({"confidence": CONFIDENCE_BINS} if trunk.confidence else {})


def normalizer_names(trunk: TrunkConfig) -> list[str]:
    """Public names of the running means and variances."""
    places = (normalizer.place for normalizer in normalizers(trunk))
    return [place if place.startswith("grad_") else f"heads.{place}" for place in places]


def _linear(name: str, n_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _mlp(name: str, *widths: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        shapes |= _linear(f"{name}.mlp.NN-{i}", n_in, n_out)
    return shapes


def of_a_head(name: str) -> bool:
    """Whether a public name belongs to a head (energy, forces, stress, confidence), not to the trunk."""
    return name.startswith(OF_A_HEAD)


def lamkit_name(name: str, head: str) -> str:
    """The name in a LAMKit checkpoint of an array with a public name."""
    if name.startswith("heads."):
        return f"heads.{head}.{name.removeprefix('heads.')}"
    return f"heads.{head}.{name}" if of_a_head(name) else name


def same_shape(found: tuple[int, ...], expected: tuple[int, ...], name: str) -> bool:
    """Whether a shape will do: references may be (1, 118), statistics and counters () or (1,)."""
    loose = name == REFERENCE or ".bn." in name
    return found == expected or (loose and _squeezed(found) == _squeezed(expected))


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def canonical(
    names: Iterable[str], *, layers: int | None = None, where: str
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Public names of the arrays of a file, whatever release wrote it.

    Three spellings are brought to that of orb-models 0.5: the heads of 0.4; a bare backbone, without heads
    and without the prefix ``model.``; and a backbone wrapped in a diffusion model (``model.model.…``), of
    which only the backbone is kept.

    Args:
        names: as in the file.
        layers: keep only so many interaction layers.
        where: the file, for messages.

    Returns:
        Public name → name in the file; and what was left out on purpose: reason → names in the file.

    Raises:
        UserError: two names become one, an absurd name, or fewer layers than wanted.
    """
    found: dict[str, str] = {}
    left_out: dict[str, list[str]] = {}
    originals = list(names)
    if long := [name for name in originals if len(name) > MAX_NAME]:
        raise UserError(f"{where}: an array has a name of {len(long[0])} characters: {shown(long[0])}")
    current = [(_new_head(name), name) for name in originals]
    if not any(name.startswith("heads.") for name, _ in current):
        current = [(f"model.{name}", original) for name, original in current]
    while any(name.startswith("model.model.") for name, _ in current):
        current = list(_unwrapped(current, left_out))
    for name, original in current:
        if layers is not None and (index := layer_of(name)) is not None and index >= layers:
            left_out.setdefault(f"layers after the first {layers}", []).append(original)
            continue
        if name in found:
            raise UserError(f"{where}: {shown(original)} and {shown(found[name])} both mean {shown(name)}")
        found[name] = original
    present = {i for name in found if (i := layer_of(name)) is not None}
    if layers is not None and len(present) < layers:
        raise UserError(f"{where}: has {len(present)} interaction layers; --layers {layers} asks for more")
    return found, left_out


def _new_head(name: str) -> str:
    for old, new in OLD_HEADS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _unwrapped(names: list[tuple[str, str]], left_out: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    for name, original in names:
        if name.startswith("model.model."):
            yield name.removeprefix("model."), original
        elif name.startswith("model."):
            left_out.setdefault("parts of the diffusion model around the backbone", []).append(original)
        else:
            yield name, original


def layer_of(name: str) -> int | None:
    """Index of the interaction layer that an array belongs to; None for the rest."""
    match = re.match(r"model\.gnn_stacks\.(\d{1,4})\.", name)
    return int(match[1]) if match else None


def refuse_mismatch(
    found: dict[str, tuple[int, ...]], trunk: TrunkConfig, *, partial_heads: bool, where: str
) -> tuple[list[str], list[str]]:
    """Compare the arrays of a file with those that its architecture needs.

    Args:
        found: public name → shape in the file.
        trunk: the architecture.
        partial_heads: let arrays of heads be missing or unknown.
        where: the file, for messages.

    Returns:
        Names that are missing and names that are unknown, of heads alone.

    Raises:
        UserError: a wrong shape; anything missing or unknown in the trunk; or in heads unless allowed.
    """
    expected = public_shapes(trunk)
    wrong = [
        f"{name} has shape {found[name]}, {shape} is needed"
        for name, shape in expected.items()
        if name in found and not same_shape(found[name], shape, name)
    ]
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    problems = []
    if wrong:
        problems.append(f"arrays of a wrong shape:{listed(wrong)}")
    heads_only = all(of_a_head(name) for name in (*missing, *extra))
    if not (partial_heads and heads_only):
        if missing:
            problems.append(f"{len(missing)} arrays are missing:{listed(missing)}")
        if extra:
            problems.append(f"{len(extra)} arrays are not part of such a model:{listed(extra)}")
        if heads_only and (missing or extra):
            problems.append(
                "Only heads differ; --partial-heads takes what is there (a missing one begins at random)"
            )
    if problems:
        kind = f"Orb {trunk.version} {trunk.output} with {trunk.layers} layers of width {trunk.latent}"
        raise UserError(f"{where}: taken for {kind}, but\n" + "\n".join(problems))
    return missing, extra
