"""MindSpore's .ckpt: its names and its order of arrays come to the public ones."""

from __future__ import annotations

import numpy as np
import pytest
from torch_files import old_names, public_arrays, small_trunk

from lamkit.errors import UserError
from lamkit.model.public.infer import Untold
from lamkit.model.public.load import load
from lamkit.model.public.mindspore_ckpt import is_mindspore, public_names, read_mindspore
from lamkit.model.runtime import setup

TRUNK = small_trunk(version="v2", max_neighbors=20)
TOLD = Untold(cutoff=6.0, max_neighbors=20)


@pytest.fixture(scope="module")
def ms():
    return setup("CPU")


def save(ms, path, arrays, **options):
    ms.save_checkpoint([{"name": n, "data": ms.Tensor(a)} for n, a in arrays.items()], str(path), **options)
    return path


def ported(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As MindScience's port names them: one numbered sequence per network, gamma and beta."""
    found = {}
    for name, array in old_names(arrays).items():
        for k in range(3):
            head = "_head." in name
            name = name.replace(f"{'' if head else '.mlp'}.NN-{k}.", f".{2 * k}.")
        name = name.replace("_decoder.node_fn.", "_decoder.node_fn.0.")
        name = name.replace(".layer_norm.weight", ".6.gamma").replace(".layer_norm.bias", ".6.beta")
        name = name.replace("embeddings.weight", "embeddings.embedding_table")
        if name.endswith("num_batches_tracked"):
            array = array.astype(np.float32).reshape(1)
        found[name] = array.reshape(1, 118) if "reference" in name else array
    return found


@pytest.fixture(scope="module")
def arrays():
    return public_arrays(TRUNK)


def assert_loaded(path, arrays) -> None:
    model = load(path, TOLD)
    assert model.trunk == TRUNK
    assert set(model.arrays) == set(arrays)
    for name, array in arrays.items():
        assert np.array_equal(model.arrays[name], array), name
        assert model.arrays[name].dtype == array.dtype


def test_the_ports_names_are_read(ms, tmp_path, arrays):
    path = save(ms, tmp_path / "orb.ckpt", ported(arrays))
    assert is_mindspore(path)
    assert_loaded(path, arrays)


def test_public_names_in_a_mindspore_file_are_read(ms, tmp_path, arrays):
    assert_loaded(save(ms, tmp_path / "orb.ckpt", arrays), arrays)


def test_a_file_with_a_checksum_is_read_and_damage_noticed(ms, tmp_path, arrays):
    path = save(ms, tmp_path / "orb.ckpt", ported(arrays), crc_check=True)
    assert_loaded(path, arrays)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "b.ckpt").write_bytes(content)
    with pytest.raises(UserError, match="checksum does not fit"):
        load(tmp_path / "b.ckpt", TOLD)


def test_a_large_array_in_pieces_is_put_together(ms, tmp_path, monkeypatch):
    monkeypatch.setattr("mindspore.train.serialization.SLICE_SIZE", 1)  # kB
    array = np.random.default_rng(0).normal(size=(50, 70)).astype(np.float32)
    [(name, found)] = read_mindspore(save(ms, tmp_path / "a.ckpt", {"w": array})).items()
    assert name == "w"
    assert np.array_equal(found.load(), array)


def test_a_truncated_file_is_refused(ms, tmp_path, arrays):
    content = save(ms, tmp_path / "orb.ckpt", ported(arrays)).read_bytes()
    rng = np.random.default_rng(0)
    for end in [0, 1, 5, 30, *rng.integers(31, len(content) - 1, 60)]:
        (tmp_path / "b.ckpt").write_bytes(content[:end])
        with pytest.raises(UserError):
            load(tmp_path / "b.ckpt", TOLD)


def test_changed_bytes_give_arrays_of_the_right_shapes_or_a_user_error(ms, tmp_path, arrays):
    # Without checksum a changed number cannot be noticed; a changed structure is.
    content = save(ms, tmp_path / "orb.ckpt", ported(arrays)).read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        (tmp_path / "b.ckpt").write_bytes(damaged)
        try:
            model = load(tmp_path / "b.ckpt", TOLD)
        except UserError:
            continue
        assert {n: a.shape for n, a in model.arrays.items()} == {n: a.shape for n, a in arrays.items()}


def test_arrays_without_known_names_are_found_by_order_and_shape(ms, tmp_path, arrays):
    in_order = {f"Parameter.{i}": array for i, array in enumerate(in_module_order(arrays))}
    path = save(ms, tmp_path / "orb.ckpt", in_order)
    assert_loaded(path, arrays)


def in_module_order(arrays) -> list[np.ndarray]:
    """The port's order: force head, energy head, stress head, encoder, layers, decoder, embedding."""
    heads = ["heads.forces.", "heads.energy.", "heads.stress."]
    network = ["model._encoder._node_fn.", "model._encoder._edge_fn."]
    for i in range(TRUNK.layers):
        network += [
            f"model.gnn_stacks.{i}.{p}." for p in ("_node_mlp", "_edge_mlp", "_receive_attn", "_send_attn")
        ]
    inner = [
        "running_mean",
        "running_var",
        "num_batches_tracked",
        "NN-0",
        "NN-1",
        "NN-2",
        "layer_norm",
        "reference",
    ]
    found = []
    for prefix in [*heads, *network, "model._decoder.", "model.atom_emb."]:
        names = [n for n in arrays if n.startswith(prefix)]
        rank = {n: next((i for i, part in enumerate(inner) if part in n), 0) for n in names}
        found += [arrays[n] for n in sorted(names, key=lambda n: (rank[n], n.endswith("bias")))]
    return found


def test_an_order_that_fits_no_model_is_refused(ms, tmp_path, arrays):
    shuffled = in_module_order(arrays)[::-1]
    path = save(ms, tmp_path / "orb.ckpt", {f"Parameter.{i}": a for i, a in enumerate(shuffled)})
    with pytest.raises(UserError, match="neither the names nor the order"):
        load(path, TOLD)


def test_a_single_layer_of_a_unit_test_is_refused(ms, tmp_path):
    net = {"_node_mlp.0.weight": np.zeros((4, 4), np.float32), "_receive_attn.bias": np.zeros(1, np.float32)}
    with pytest.raises(UserError, match="neither the names nor the order"):
        load(save(ms, tmp_path / "attn_net.ckpt", net), TOLD)


def test_encrypted_files_are_refused(ms, tmp_path, arrays):
    path = save(ms, tmp_path / "orb.ckpt", ported(arrays), enc_key=b"0123456789ABCDEF", enc_mode="AES-GCM")
    with pytest.raises(UserError):
        load(path, TOLD)


def test_names_that_collide_are_refused(arrays):
    from lamkit.model.public.arrays import LazyArray

    array = LazyArray((1,), np.dtype(np.float32), lambda: np.zeros(1, np.float32))
    with pytest.raises(UserError, match="same public name"):
        public_names({"model.x.gamma": array, "model.x.weight": array}, "FILE")
