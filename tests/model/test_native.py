"""The C++ operators are the plain network: outputs, forces, and the gradient of a loss of both."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from ase.build import bulk

from lamkit.data.batch import Shape, collate, make_graph
from lamkit.data.frame import from_atoms
from lamkit.model.native import build
from tests.model.small import SHAPE, batch_of, ms, rattled, small_potential, structures

from lamkit.model.inference import Predictor  # isort: skip
from lamkit.model.native import cells  # isort: skip
from lamkit.model.potential import inputs  # isort: skip

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
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
def test_forces_are_the_same_where_hidden_layers_are_not_kept(version, monkeypatch):
    batch = batch_of(structures())
    found = []
    for kept in (2**26, 0):
        monkeypatch.setattr("lamkit.model.layers.KEPT", kept)
        found.append(Predictor(potential_of(version, "conservative", monkeypatch, True)).predict(batch, 0))
    mask = batch.node_mask > 0
    np.testing.assert_allclose(found[1]["forces"][mask], found[0]["forces"][mask], rtol=0, atol=1e-13)
    assert abs(found[0]["forces"][mask]).max() > 1e-3


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
