"""The C++ operators are the plain network: outputs, forces, and the gradient of a loss of both."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from ase.build import bulk

from lamkit.data.batch import Shape, collate, make_graph
from lamkit.data.frame import from_atoms
from lamkit.errors import UserError
from lamkit.model.native import build
from lamkit.train.config import TrainConfig
from tests.model.small import SHAPE, batch_of, ms, rattled, small_config, small_potential, structures

from lamkit.model.inference import Predictor  # isort: skip
from lamkit.model.native import cells, predict  # isort: skip
from lamkit.model.potential import inputs  # isort: skip
from lamkit.train.objective import tensors  # isort: skip
from lamkit.train.step import TrainStep  # isort: skip

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
# Whether edge encoder and layers keep their second, and their first hidden layer.
LEVELS = {
    "none": [(False, False)] * 3,
    "half of two networks": [(True, False), (True, False), (False, False)],
    "all of one": [(True, True), (True, False), (True, False)],
    "all": [(True, True)] * 3,
}
CASES = [("v3", "conservative"), ("v3", "direct"), ("v2", "conservative"), ("v2", "direct")]


class LossGradient(ms.nn.Cell):
    """Gradient, with respect to the trunk, of a sum over squares of energies, forces and stresses."""

    def __init__(self, potential):
        super().__init__()
        self.potential = potential
        self.weights = ms.ParameterTuple(potential.trunk_parameters())
        self.gradient = ms.grad(self.loss, None, self.weights)

    def loss(self, slices, scales, masks, *batch):
        energy, forces, stress = self.potential.outputs(slices, scales, *batch)[:3]
        graphs, nodes = masks
        ops = ms.ops
        return (
            ops.sum(ops.square(energy) * graphs)
            + ops.sum(ops.square(forces) * nodes)
            + ops.sum(ops.square(stress) * ops.expand_dims(graphs, 1))
        )

    def construct(self, head, graphs, nodes, *batch):
        slices = self.potential.head_slices(head)
        return self.gradient(slices, self.potential.head_scales(head), (graphs, nodes), *batch)


def potential_of(version, output, monkeypatch, native):
    monkeypatch.setattr(cells, "available", lambda *_: native)
    potential = small_potential(version=version, output=output, repulsion=version == "v3")
    # Numbers that float32 holds, too: MindSpore copies float64 parameters through float32.
    state = {
        k: np.asarray(v, np.float32) if np.asarray(v).dtype.kind == "f" else v
        for k, v in potential.state().items()
    }
    potential.load_state(state)
    assert potential.trunk.native == native
    return potential


@needs_compiler
@pytest.mark.parametrize(("version", "output"), CASES)
def test_operators_agree_with_the_plain_network_to_double_precision(version, output, monkeypatch):
    batch = batch_of(structures())
    graphs = ms.Tensor(batch.graph_mask, ms.float64)
    nodes = ms.Tensor(np.asarray(batch.node_mask)[:, None], ms.float64)
    found = {}
    for native in (True, False):
        potential = potential_of(version, output, monkeypatch, native)
        gradient = LossGradient(potential)(ms.Tensor(0, ms.int32), graphs, nodes, *inputs(batch, ms.float64))
        found[native] = [g.asnumpy() for g in gradient], Predictor(potential).predict(batch, 0)
    names = [p.name for p in potential.trunk_parameters()]
    for name, ours, plain in zip(names, found[True][0], found[False][0], strict=True):
        np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-9 * max(1.0, abs(plain).max()), err_msg=name)
    assert max(abs(g).max() for g in found[False][0]) > 1e-3
    for name in ("energy", "forces", "stress"):
        mask = batch.graph_mask if name != "forces" else batch.node_mask
        np.testing.assert_allclose(
            found[True][1][name][mask > 0], found[False][1][name][mask > 0], atol=1e-10
        )


@needs_compiler
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_forces_are_the_same_bits_whatever_hidden_layers_were_kept(version, monkeypatch):
    batch, found = batch_of(structures()), {}
    # Bytes for one more number per edge; networks have 10 hidden numbers and 8 outputs, others take these.
    each, others = SHAPE.n_edges * 8, 11 * 8 + 6 * small_config(version=version).n_edge_inputs
    rooms = {
        "none": 0.0,
        "half of two networks": (others + 2.1 * 18) * each,
        "all of one": (others + 64.1) * each,
    }
    for name, room in (*rooms.items(), ("all", 1e12)):
        monkeypatch.setattr(predict, "room", lambda room=room: room)
        potential = potential_of(version, "conservative", monkeypatch, True)
        found[name] = Predictor(potential).predict(batch, 0)
        networks = [potential.trunk.packed_edges, *(layer.packed_edges for layer in potential.trunk.layers)]
        levels = [(n.half_rows >= SHAPE.n_edges, n.all_rows >= SHAPE.n_edges) for n in networks]
        assert levels == LEVELS[name]
    mask = batch.node_mask > 0
    for name in rooms:
        np.testing.assert_array_equal(found[name]["forces"][mask], found["all"]["forces"][mask])
        np.testing.assert_array_equal(found[name]["energy"], found["all"]["energy"])
    assert abs(found["all"]["forces"][mask]).max() > 1e-3


@needs_compiler
def test_padding_is_not_computed_and_changes_no_bit(monkeypatch):
    potential = potential_of("v3", "conservative", monkeypatch, True)
    predictor, atoms = Predictor(potential), structures()
    edges = int((batch_of(atoms).senders < SHAPE.n_atoms - 1).sum())
    few, many = (
        predictor.predict(batch_of(atoms, Shape(SHAPE.n_atoms, n, SHAPE.n_graphs)), 0)
        for n in (edges + 1, edges + 500)
    )
    count = sum(len(a) for a in atoms)
    np.testing.assert_array_equal(few["forces"][:count], many["forces"][:count])
    assert np.isfinite(many["forces"]).all()


@needs_compiler
def test_replaced_weights_are_used_by_the_next_prediction(monkeypatch):
    batch = batch_of(structures(), dtype=np.float32)
    first, second = (small_potential(dtype=ms.float32, seed=seed) for seed in (1, 2))
    predictor = Predictor(first)
    before = predictor.predict(batch, 0)["forces"]
    expected = Predictor(second).predict(batch, 0)["forces"]
    first.load_state(second.state())
    np.testing.assert_array_equal(predictor.predict(batch, 0)["forces"], expected)
    assert abs(before - expected).max() > 1e-3


@needs_compiler
def test_a_prediction_after_training_steps_uses_the_averaged_weights_of_now():
    """The step moves the weights inside a compiled graph, where nothing in Python sees it."""
    frames = [from_atoms(a, forces=np.ones((len(a), 3)), info=a.info) for a in structures()]
    batch = batch_of(frames, dtype=np.float32)
    potential, average = (small_potential(dtype=ms.float32) for _ in range(2))
    step, predictor = TrainStep(potential, average, TrainConfig()), Predictor(average)
    before = predictor.predict(batch, 0)["forces"]
    ones = ms.Tensor(np.ones(3), ms.float32)
    numbers = ms.Tensor(
        [0.01, 0.9, 0.99, 0.9, 0.99, 0.5, 0.5], ms.float32
    )  # the average moves by half each time
    step(ms.Tensor(0, ms.int32), numbers, ones, ones, *tensors(batch))
    predictor.refresh()  # as every validation does
    fresh = small_potential(dtype=ms.float32)
    fresh.load_state(average.state())
    found, expected = predictor.predict(batch, 0)["forces"], Predictor(fresh).predict(batch, 0)["forces"]
    np.testing.assert_array_equal(found, expected)
    assert abs(found - before).max() > 1e-4


@pytest.mark.parametrize("given", ["much", "-1", "inf", "nan"])
def test_an_amount_of_memory_that_is_none_is_refused(given, monkeypatch):
    monkeypatch.setenv("LAMKIT_MEMORY_GB", given)
    with pytest.raises(UserError, match="LAMKIT_MEMORY_GB"):
        predict.room()


@needs_compiler
def test_a_large_crystal_whose_edges_are_taken_in_chunks_has_the_forces_of_the_plain_network(monkeypatch):
    graph = make_graph(from_atoms(rattled(bulk("Cu", cubic=True) * (7, 7, 7), size=0.1)), 4.0, 120)
    assert len(graph.senders) > 16384
    batch = collate([graph], Shape(1373, len(graph.senders) + 1, 2), np.zeros(119), np.float64)
    native, plain = (
        Predictor(potential_of("v3", "conservative", monkeypatch, on)).predict(batch, 0)["forces"]
        for on in (True, False)
    )
    np.testing.assert_allclose(native, plain, rtol=0, atol=1e-9)


@needs_compiler
def test_two_runs_give_the_same_bits():
    batch = batch_of(structures(), SHAPE, np.float32)
    potential = small_potential(dtype=ms.float32)
    predictor = Predictor(potential)
    first, second = (predictor.predict(batch, 0)["forces"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_without_a_compiler_the_reason_is_said_and_the_plain_network_is_used(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("logging.Logger.propagate", True, raising=False)
    build.library.cache_clear()
    found = build.library("v3", "float32")
    build.library.cache_clear()
    assert found.path is None
    assert "apt-get install g++" in found.reason


@needs_compiler
def test_a_compiler_that_fails_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("LAMKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "--no-such-flag"))
    build.library.cache_clear()
    found = build.library("v3", "float32")
    build.library.cache_clear()
    assert found.path is None
    assert "no-such-flag" in found.reason
    assert not list((tmp_path / "cache").iterdir())
