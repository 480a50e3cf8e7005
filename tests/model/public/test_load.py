"""Files of public weights as a whole: what LAMKit makes of each, and what it says of those it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from torch_files import old_names, public_arrays, records_of, small_trunk, write, write_zip

from lamkit.errors import UserError
from lamkit.model.public.export import loading_code, refuse_inexpressible
from lamkit.model.public.export import public_arrays as exported
from lamkit.model.public.infer import Untold
from lamkit.model.public.load import load, notes
from lamkit.model.public.names import REFERENCE, lamkit_name

TOLD = Untold(cutoff=6.0, max_neighbors=20)
TRUNK = small_trunk(max_neighbors=20)
V2 = small_trunk(version="v2", max_neighbors=20)


@pytest.fixture(scope="module")
def arrays():
    return public_arrays(TRUNK)


def assert_same(found, expected) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize(
    "choices",
    [{}, {"output": "direct"}, {"version": "v2"}, {"conditioning": True, "stress": False},
     {"output": "direct", "conditioning": True, "stress": False}, {"confidence": False, "decoder": False}],
    ids=str,
)  # fmt: skip
def test_every_architecture_is_read_bit_for_bit(tmp_path, choices):
    trunk = small_trunk(max_neighbors=20, **choices)
    expected = public_arrays(trunk)
    model = load(write(tmp_path / "a.ckpt", expected), TOLD)
    assert model.trunk == trunk
    assert notes(model) == []
    assert_same(model.arrays, expected)


def test_files_of_release_0_4_are_read_bit_for_bit(tmp_path):
    expected = public_arrays(V2)
    model = load(write(tmp_path / "a.ckpt", old_names(expected)), TOLD)
    assert model.trunk == V2
    assert_same(model.arrays, expected)


def test_references_and_counters_of_other_shapes_are_brought_to_the_published_ones(tmp_path, arrays):
    shapes = {REFERENCE: (1, 118)}
    shapes |= {n: () if a.shape else (1,) for n, a in arrays.items() if "num_batches" in n}
    odd = {n: a.reshape(shapes.get(n, a.shape)) for n, a in arrays.items()}
    assert_same(load(write(tmp_path / "a.ckpt", odd), TOLD).arrays, arrays)


def test_references_can_be_left_out_and_that_is_said(tmp_path, arrays):
    model = load(write(tmp_path / "a.ckpt", arrays), TOLD, skip_reference=True)
    assert REFERENCE not in model.arrays
    assert len(model.arrays) == len(arrays) - 1
    assert REFERENCE in "\n".join(notes(model))
    assert model.missing == []


def test_the_first_layers_alone_are_a_smaller_model(tmp_path, arrays):
    model = load(write(tmp_path / "a.ckpt", arrays), TOLD, layers=1)
    assert model.trunk == TRUNK.model_copy(update={"layers": 1})
    assert_same(model.arrays, {n: a for n, a in arrays.items() if "stacks.1" not in n})
    assert "layers after the first 1" in "\n".join(notes(model))


def test_a_missing_head_is_taken_only_when_allowed(tmp_path, arrays):
    bare = {n: a for n, a in arrays.items() if n.startswith("model.")}
    path = write(tmp_path / "a.ckpt", bare)
    told = Untold(6.0, 20, output="conservative")
    with pytest.raises(UserError, match="--partial-heads"):
        load(path, told)
    model = load(path, told, partial_heads=True)
    assert_same(model.arrays, bare)
    assert REFERENCE in model.missing
    assert "begin as in a new model" in "\n".join(notes(model))


def test_a_diffusion_model_gives_its_backbone_and_names_the_rest(tmp_path, arrays):
    bare = {n.replace("model.", "model.model.", 1): a for n, a in arrays.items() if n.startswith("model.")}
    wrapped = {**bare, "model.noise.table": np.zeros(3, np.float32)}
    model = load(write(tmp_path / "a.ckpt", wrapped), Untold(6.0, 20, output="direct"), partial_heads=True)
    assert_same(model.arrays, {n: a for n, a in arrays.items() if n.startswith("model.")})
    assert "model.noise.table" in "\n".join(notes(model))


def test_a_public_name_tells_what_the_arrays_do_not(tmp_path, arrays):
    trunk = small_trunk(layers=5, max_neighbors=20)
    path = write(tmp_path / "orb-v3-conservative-20-omat-20250404.ckpt", public_arrays(trunk))
    model = load(path)
    assert model.trunk == trunk
    assert model.known.data == "omat24"
    assert load(path, Untold(max_neighbors=33)).trunk.max_neighbors == 33


def test_a_public_name_on_another_model_is_refused(tmp_path, arrays):
    with pytest.raises(UserError, match="version v3 instead of v2, output conservative instead of direct"):
        load(write(tmp_path / "orb-v2-20241011.ckpt", arrays))
    with pytest.raises(UserError, match="layers 2 instead of 5"):
        load(write(tmp_path / "orb-v3-conservative-inf-omat-20250404.ckpt", arrays))


BAD = {
    "a NaN": (
        "model._encoder._node_fn.mlp.NN-1.bias",
        lambda a: np.where(a == a[0], np.nan, a),
        "1 numbers that are NaN",
    ),
    "an infinity": (REFERENCE, lambda a: np.where(a == a[3], np.inf, a), "NaN or infinite"),
    "a variance of zero": ("heads.energy.normalizer.bn.running_var", np.zeros_like, "must be positive"),
    "a negative variance": ("grad_forces_normalizer.bn.running_var", np.negative, "must be positive"),
    "weights of integers": (
        "model.gnn_stacks.0._send_attn.bias",
        lambda a: a.astype(np.int64),
        "floating point",
    ),
    "a number too few": (
        "model.gnn_stacks.0._node_mlp.mlp.NN-2.bias",
        lambda a: a[:-1],
        r"\(7,\), \(8,\) is needed",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_numbers_that_cannot_be_weights_are_refused(tmp_path, arrays, case):
    name, change, reason = BAD[case]
    with pytest.raises(UserError, match=reason) as error:
        load(write(tmp_path / "a.ckpt", {**arrays, name: change(arrays[name]).astype(arrays[name].dtype)
                                         if "integers" not in case else change(arrays[name])}), TOLD)  # fmt: skip
    assert name in str(error.value)


@pytest.mark.parametrize("what", ["missing.ckpt", "."])
def test_what_is_no_file_is_refused(tmp_path, what):
    with pytest.raises(UserError, match=r"no such file|is a folder"):
        load(tmp_path / what, TOLD)


@pytest.mark.parametrize("record", [b"", b"{", b"[1]", b'{"trunk": 3}', b"[" * 100_000, b"\xff\xfe"])
def test_a_damaged_record_of_lamkit_is_refused(tmp_path, arrays, record):
    path = write_zip(tmp_path / "a.ckpt", {**records_of(arrays), "lamkit.json": record})
    with pytest.raises(UserError, match="lamkit"):
        load(path, TOLD)


def test_a_record_with_a_wrong_architecture_is_refused(tmp_path, arrays):
    record = json.dumps({"trunk": {"latent": -1}}).encode()
    with pytest.raises(UserError, match="latent"):
        load(write_zip(tmp_path / "a.ckpt", {**records_of(arrays), "lamkit.json": record}))


# -- export ----------------------------------------------------------------------------------------------


def own(arrays, head="one"):
    """Arrays as a LAMKit checkpoint holds them, and the references [119]."""
    weights = {
        lamkit_name(n, head): a.astype(np.float64) if ".bn.running" in n else a for n, a in arrays.items()
    }
    return {n: a for n, a in weights.items() if "reference" not in n}, np.append(
        arrays[REFERENCE], 0.0
    ).astype(float)


def test_export_gives_back_every_bit(arrays):
    weights, reference = own(arrays)
    assert_same(exported(TRUNK, weights, reference, "one", "MODEL"), arrays)


def test_references_that_single_precision_would_round_stay_double(arrays):
    weights, reference = own(arrays)
    reference[26] = -34567.123456789
    found = exported(TRUNK, weights, reference, "one", "MODEL")[REFERENCE]
    assert found.dtype == np.float64
    assert np.array_equal(found, reference[:118])


def test_a_model_without_decoder_gets_one_of_zeros_because_orb_models_insists(arrays):
    weights, reference = own({n: a for n, a in arrays.items() if "_decoder" not in n})
    found = exported(TRUNK.model_copy(update={"decoder": False}), weights, reference, "one", "MODEL")
    assert set(found) == set(arrays)
    assert not any(a.any() for n, a in found.items() if "_decoder" in n)


@pytest.mark.parametrize(
    ("choices", "reason"),
    [({"cutoff": 5.0}, "cutoff is 5.0"), ({"repulsion_rule": "physical"}, "rule 'physical'")],
)
def test_what_orb_models_cannot_build_is_refused(choices, reason):
    with pytest.raises(UserError, match=reason):
        refuse_inexpressible(small_trunk(**choices), "MODEL")


def test_a_reference_of_element_118_does_not_fit(arrays):
    weights, reference = own(arrays)
    reference[118] = 1.0
    with pytest.raises(UserError, match="Og"):
        exported(TRUNK, weights, reference, "one", "MODEL")


@pytest.mark.parametrize(
    "choices", [{}, {"output": "direct"}, {"version": "v2"}, {"lmax": 0, "confidence": False}], ids=str
)
def test_the_code_to_load_a_file_is_python(choices):
    code = loading_code(small_trunk(**choices), "it's.ckpt")
    compile(code, "code", "exec")
    assert repr("it's.ckpt") in code
