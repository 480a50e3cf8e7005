"""Names of public files: the grammar is that of orb-models, and every older spelling comes to it."""

from __future__ import annotations

import json
import re

import pytest
from torch_files import old_names, public_arrays, small_trunk

from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.model.public.infer import Untold, infer
from lamkit.model.public.known import FILES, recognise
from lamkit.model.public.names import canonical, layer_of, public_shapes, refuse_mismatch

TOLD = Untold(cutoff=6.0, max_neighbors=20)
ARCHITECTURES = [
    "orb_v2", "orb_d3_sm_v2", "orb_d3_xs_v2", "orb_v3_conservative", "orb_v3_conservative_omol",
    "orb_v3_direct", "orb_v3_direct_omol", "separate_d3_3layer",
]  # fmt: skip


def shapes_of(trunk: TrunkConfig) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in public_arrays(trunk).items()}


def inferred(shapes, told=TOLD) -> TrunkConfig:
    return infer(shapes, 6.0, told, "FILE")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_and_shapes_are_those_of_the_public_package(shared, name):
    listing = shared / "design" / "orb_param_names" / f"{name}.txt"
    if not listing.is_file():
        pytest.skip(f"no {listing}")
    rows = [line.split("\t") for line in listing.read_text().splitlines() if not line.startswith("#")]
    published = {row[0]: tuple(json.loads(row[1])) for row in rows}
    trunk = inferred(published)
    assert public_shapes(trunk) == published
    assert refuse_mismatch(published, trunk, partial_heads=False, where="FILE") == ([], [])
    [facts] = re.findall(r"(\{.*)", listing.read_text().splitlines()[0])
    values = 0
    for shape in public_shapes(trunk).values():
        size = 1
        for n in shape:
            size *= n
        values += size
    assert values == json.loads(facts)["state_values"]


CHOICES = [
    {},
    {"output": "direct"},
    {"version": "v2"},
    {"version": "v2", "output": "conservative"},
    {"output": "direct", "stress": False, "conditioning": True},
    {"conditioning": True, "stress": False},
    {"confidence": False, "decoder": False, "lmax": 1, "bessel": 4},
    {"latent": 12, "hidden": 6, "layers": 4, "head_hidden": 7},
    {"version": "v2", "gaussians": 9},
]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_an_architecture_is_read_off_its_names_and_shapes(choices):
    trunk = small_trunk(max_neighbors=20, **choices)
    assert inferred(shapes_of(trunk)) == trunk


def test_the_names_of_release_0_4_mean_the_same_arrays():
    arrays = public_arrays(small_trunk(version="v2"))
    names, left_out = canonical(old_names(arrays), where="FILE")
    assert set(names) == set(arrays)
    assert names["heads.forces.mlp.NN-0.weight"] == "node_head.mlp.NN-0.weight"
    assert left_out == {}


def test_a_bare_backbone_gets_its_prefix():
    names, _ = canonical(["atom_emb.embeddings.weight", "gnn_stacks.0._receive_attn.bias"], where="FILE")
    assert set(names) == {"model.atom_emb.embeddings.weight", "model.gnn_stacks.0._receive_attn.bias"}


def test_of_a_diffusion_model_only_the_backbone_is_kept_and_the_rest_is_named():
    wrapped = ["model.model.atom_emb.embeddings.weight", "model.noise_schedule", "heads.energy.mlp.NN-0.bias"]
    names, left_out = canonical(wrapped, where="FILE")
    assert names == {
        "model.atom_emb.embeddings.weight": "model.model.atom_emb.embeddings.weight",
        "heads.energy.mlp.NN-0.bias": "heads.energy.mlp.NN-0.bias",
    }
    assert list(left_out.values()) == [["model.noise_schedule"]]


def test_a_backbone_that_lost_its_heads_is_read_with_and_without_the_wrapper():
    bare = ["model.atom_emb.embeddings.weight"]
    assert canonical(bare, where="FILE")[0] == {bare[0]: bare[0]}
    assert set(canonical([f"model.{bare[0]}"], where="FILE")[0]) == set(bare)


def test_later_layers_are_cut_off_and_named():
    arrays = public_arrays(small_trunk(layers=4))
    names, left_out = canonical(arrays, layers=2, where="FILE")
    assert {layer_of(n) for n in names} == {None, 0, 1}
    [(reason, cut)] = left_out.items()
    assert "first 2" in reason
    assert set(cut) | set(names) == set(arrays)


def test_more_layers_than_there_are_is_an_error():
    with pytest.raises(UserError, match="has 2 interaction layers; --layers 3"):
        canonical(public_arrays(small_trunk()), layers=3, where="FILE")


def test_one_array_under_two_spellings_is_an_error():
    with pytest.raises(UserError, match=r"both mean heads\.energy\.x"):
        canonical(["graph_head.x", "heads.energy.x"], where="FILE")


def test_an_absurd_name_is_refused_at_once():
    with pytest.raises(UserError, match="a name of 6000001 characters"):
        canonical(["model." * 1_000_000 + "x"], where="FILE")


@pytest.mark.parametrize(
    "gone", ["model._encoder._node_fn.mlp.NN-1.bias", "model.gnn_stacks.1._send_attn.weight"]
)
def test_a_missing_array_of_the_trunk_is_always_an_error(gone):
    shapes = shapes_of(small_trunk())
    del shapes[gone]
    with pytest.raises(UserError, match=gone):
        refuse_mismatch(shapes, inferred(shapes), partial_heads=True, where="FILE")


def test_an_unknown_array_of_the_trunk_is_always_an_error():
    shapes = {**shapes_of(small_trunk()), "model.coulomb.charges": (3,)}
    with pytest.raises(UserError, match=r"not part of such a model:\n  model.coulomb.charges"):
        refuse_mismatch(shapes, inferred(shapes), partial_heads=True, where="FILE")


def test_heads_may_differ_when_allowed_and_are_listed():
    shapes = {**shapes_of(small_trunk()), "heads.dipole.mlp.NN-0.weight": (6, 8)}
    del shapes["heads.energy.mlp.NN-1.bias"]
    trunk = inferred(shapes)
    with pytest.raises(UserError, match="--partial-heads") as error:
        refuse_mismatch(shapes, trunk, partial_heads=False, where="FILE")
    assert "heads.dipole.mlp.NN-0.weight" in str(error.value)
    missing, extra = refuse_mismatch(shapes, trunk, partial_heads=True, where="FILE")
    assert missing == ["heads.energy.mlp.NN-1.bias"]
    assert extra == ["heads.dipole.mlp.NN-0.weight"]


def test_a_wrong_shape_is_an_error_even_in_a_head():
    shapes = {**shapes_of(small_trunk()), "heads.energy.mlp.NN-1.weight": (2, 6)}
    with pytest.raises(UserError, match=r"has shape \(2, 6\), \(1, 6\) is needed"):
        refuse_mismatch(shapes, inferred(shapes), partial_heads=True, where="FILE")


NOT_ORB = {
    "nothing": ({}, "not an Orb model"),
    "another network": ({"conv1.weight": (64, 3, 7, 7)}, "conv1.weight"),
    "a table of another size": ({"model.atom_emb.embeddings.weight": (100, 8)}, r"\(100, 8\)"),
    "orb-v1": ({"model.rbf.means": (50,), "model.atom_emb.embeddings.weight": (119, 8)}, "orb-v1"),
    "an embedding alone": (
        {"model.atom_emb.embeddings.weight": (119, 8), "heads.forces.x": (1,)},
        "not a whole Orb",
    ),
}


@pytest.mark.parametrize("case", NOT_ORB)
def test_what_is_no_orb_is_refused_by_name(case):
    shapes, reason = NOT_ORB[case]
    with pytest.raises(UserError, match=reason):
        inferred(shapes)


def test_layers_with_a_gap_are_refused():
    shapes = {n.replace("stacks.1", "stacks.2"): s for n, s in shapes_of(small_trunk()).items()}
    with pytest.raises(UserError, match=r"numbered \[0, 2\]"):
        inferred(shapes)


def test_harmonics_of_no_degree_are_refused():
    shapes = {**shapes_of(small_trunk()), "model._encoder._edge_fn.mlp.NN-0.weight": (10, 96)}
    with pytest.raises(UserError, match="96 edge inputs are no product of 8"):
        inferred(shapes)


def test_neighbours_must_be_told_where_the_name_does_not():
    shapes = shapes_of(small_trunk())
    with pytest.raises(UserError, match="give --max-neighbors"):
        inferred(shapes, Untold())
    with pytest.raises(UserError, match="give --cutoff"):
        inferred(shapes_of(small_trunk(version="v2")), Untold(max_neighbors=20))


def test_a_cutoff_against_that_of_the_file_is_refused():
    with pytest.raises(UserError, match=r"--cutoff 5.0, but the file says 6.0"):
        inferred(shapes_of(small_trunk()), Untold(cutoff=5.0, max_neighbors=20))


def test_without_heads_the_kind_of_forces_must_be_told():
    shapes = {n: s for n, s in shapes_of(small_trunk()).items() if n.startswith("model.")}
    with pytest.raises(UserError, match="give --output"):
        inferred(shapes)
    assert inferred(shapes, Untold(6.0, 20, output="direct")).output == "direct"


# -- public names ----------------------------------------------------------------------------------------


def test_every_public_file_is_known_by_its_name():
    named = {
        "orb-v2-20241011.ckpt": (20, "mptrj_alexandria"),
        "orb-d3-xs-v2-20241011.ckpt": (20, "mptrj_alexandria_d3"),
        "orb-mptraj-only-v2-20241014.ckpt": (20, "mptrj"),
        "orb-v3-conservative-inf-omat-20250404.ckpt": (120, "omat24"),
        "orb-v3-direct-20-mpa-20250404.ckpt": (20, "mpa"),
        "orb-v3-conservative-omol-20250820.ckpt": (120, "omol25"),
        "separate-d4-5layer.ckpt": (120, "d4"),
        "orb-v2.ckpt": (20, "mptrj_alexandria"),
    }
    for name, (neighbors, data) in named.items():
        found = recognise(name)
        assert (found.max_neighbors, found.data) == (neighbors, data), name
    assert len({f.name for f in FILES}) == len(FILES) == 19


@pytest.mark.parametrize(
    "name", ["model.ckpt", "orb-v2-mine.ckpt", "orb-v3-20250404.ckpt", "orb-v2-2024.ckpt", "orb-v22.ckpt"]
)
def test_other_names_are_not_taken_for_public_ones(name):
    assert recognise(name) is None
