"""Energies of atoms and products with the Hessian as targets: the loss against differences, in double precision."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from small import CUTOFF, SHAPE, Predictor, batch_of, ms, rattled, small_config, small_potential

from lamkit.data.batch import collate, make_graph
from lamkit.data.curvature import STEP, directions, product
from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.frame import from_atoms
from lamkit.errors import UserError
from lamkit.metrics import ErrorSums
from lamkit.model.build import build
from lamkit.model.config import DeepPotConfig, Surroundings
from lamkit.train import start, validate
from lamkit.train.config import LossConfig, TrainConfig
from lamkit.train.objective import Objective

KNOWN = Surroundings(
    elements=["Na", "Cl"], sel=[56, 56], slots=90, deviations=[(0.11, 0.07), (0.13, 0.08)], min_distance=0.9
)
CONFIG = DeepPotConfig(
    version="deeppot-se",
    cutoff=CUTOFF,
    smooth_from=1.0,
    embedding=[4, 8],
    axis=3,
    fitting=[6],
    surroundings=KNOWN,
)
LOSS = LossConfig(
    kind="mse", units="physical", energy=0.3, forces=0.5, stress=0.0, atom_energy=0.7, hessian=0.9
)
REFERENCE = np.linspace(-3.0, 3.0, 119)


def crystal(seed: int) -> Atoms:
    """No pair comes near the cutoff, where a step would let it in or out."""
    return rattled(bulk("NaCl", "rocksalt", a=4.8), seed, 0.03).repeat((2, 1, 1))


def labelled_batch():
    """Two crystals, one of which has all labels: random numbers, as no network gives them."""
    rng = np.random.default_rng(0)
    frames = []
    for seed in (1, 2):
        atoms = crystal(seed)
        n = len(atoms)
        extra = {}
        if seed == 1:
            own = directions(from_atoms(atoms), 2)
            extra = {
                "atom_energies": rng.normal(size=n),
                "hessian": np.stack([own, rng.normal(size=own.shape)], axis=1),
            }
        frames.append(from_atoms(atoms, energy=rng.normal(), forces=rng.normal(size=(n, 3)), **extra))
    graphs = [make_graph(f, CUTOFF, None, np.float64) for f in frames]
    return collate(graphs, SHAPE, REFERENCE, np.float64, direction=1), frames


class Gradient(ms.nn.Cell):
    """Loss with its terms, and the gradient by embeddings and by the slices of the head."""

    def __init__(self, potential, loss: LossConfig = LOSS) -> None:
        super().__init__()
        self.objective = Objective(potential, loss)
        self.weights = ms.Tensor([getattr(loss, name) for name in self.objective.loss.names], ms.float64)
        self.trunk = ms.ParameterTuple(potential.trunk_parameters())
        self.gradient = ms.ops.value_and_grad(self.objective, 0, self.trunk, has_aux=True)
        self.units = ms.Tensor(np.ones(3), ms.float64)

    def construct(self, head, *batch):
        slices = self.objective.potential.head_slices(head)
        return self.gradient(slices, head, self.weights, self.units, *batch)


class Products(ms.nn.Cell):
    """The network's Hessian times the directions of a batch."""

    def __init__(self, objective) -> None:
        super().__init__(auto_prefix=False)
        self.objective = objective

    def construct(self, head, along, *batch):
        potential = self.objective.potential
        return self.objective.products(potential.head_slices(head), potential.head_scales(head), along, batch)


HEAD = ms.Tensor(0, ms.int32)


@pytest.fixture(scope="module")
def potential():
    made = build(CONFIG, ["one"], 3, ms.float64)
    made.set_scale("one", "energy", 0.3, 1.7)
    # Of structures that differ, so that the energy is smooth on the scale of the step.
    made.calibrate(batch_of([rattled(bulk("NaCl", "rocksalt", a=4.8), k, 0.3) for k in range(6)]))
    return made


@pytest.fixture(scope="module")
def predictor(potential):
    return Predictor(potential)


@pytest.fixture(scope="module")
def cell(potential):
    return Gradient(potential)


@pytest.fixture(scope="module")
def products(cell):
    return Products(cell.objective)


def test_energies_of_atoms_add_up_to_the_energy(predictor):
    out = predictor.predict(batch_of([crystal(1), crystal(2)]), 0)
    n = len(crystal(1))
    for k in range(2):
        own = out["atom_energies"][k * n : (k + 1) * n]
        assert np.ptp(own) > 1e-3
        assert own.sum() == pytest.approx(n * out["energy"][k], rel=1e-13)


def test_products_are_differences_of_forces(potential, predictor, products):
    batch, (frame, _) = labelled_batch()
    found = products(HEAD, ms.Tensor(batch.directions), *potential.inputs(batch)).asnumpy()
    v = frame.hessian[1, 0]
    n = len(frame)

    def at(h: float) -> np.ndarray:
        atoms = crystal(1)
        atoms.positions += h * v
        return predictor.predict(batch_of([atoms]), 0)["forces"][:n]

    assert abs(found[:n]).max() > 1e-3
    np.testing.assert_allclose(found[:n], product(at(STEP), at(-STEP)), atol=1e-11)
    exact = (8 * (at(-1e-3) - at(1e-3)) - (at(-2e-3) - at(2e-3))) / 12e-3
    np.testing.assert_allclose(found[:n], exact, atol=3e-3 * abs(exact).max())  # what the step leaves out
    assert not found[n:].any()  # no direction, no product


def test_terms_are_mean_squares_where_labels_exist(potential, predictor, cell, products):
    batch, frames = labelled_batch()
    (_, *outputs), _ = cell(HEAD, *cell.objective.tensors(batch))
    own = predictor.predict(batch, 0)
    n = len(frames[0])
    error = own["atom_energies"][:n] - (frames[0].atom_energies - REFERENCE[frames[0].numbers])
    assert outputs[6].asnumpy() == pytest.approx(np.mean(error**2), rel=1e-12)
    found = products(HEAD, ms.Tensor(batch.directions), *potential.inputs(batch)).asnumpy()
    error = found[:n] - frames[0].hessian[1, 1]
    assert outputs[7].asnumpy() == pytest.approx(np.mean(error**2), rel=1e-12)
    # Validation finds the same, of the frame that has labels.
    sums = ErrorSums()
    validate.add_batch(sums, batch, {**own, "hessian": validate.products(predictor, batch, 0)})
    assert sums.result()["atom_energies_rmse"] ** 2 == pytest.approx(outputs[6].asnumpy(), rel=1e-12)
    assert sums.result()["hessian_rmse"] ** 2 == pytest.approx(outputs[7].asnumpy(), rel=1e-9)


def test_gradient_of_the_loss_is_its_slope_by_every_weight(potential, cell):
    """Along a random direction within each array: AD against differences of fourth order."""
    tensors = cell.objective.tensors(labelled_batch()[0])
    outputs, (of_slices, of_trunk) = cell(HEAD, *tensors)
    terms = [t.asnumpy() for t in outputs[4:]]
    assert outputs[0].asnumpy() == pytest.approx(
        sum(w * t for w, t in zip(cell.weights.asnumpy(), terms, strict=True))
    )
    rng = np.random.default_rng(5)
    step = 1e-4
    pairs = [
        *zip(potential.head_parameters(), of_slices, strict=True),
        *zip(cell.trunk, of_trunk, strict=True),
    ]
    for parameter, gradient in pairs:
        start = parameter.asnumpy().copy()
        along = rng.normal(size=start.shape)
        values = []
        for k in (2, 1, -1, -2):
            parameter.set_data(ms.Tensor(start + k * step * along))
            values.append(float(cell(HEAD, *tensors)[0][0].asnumpy()))
        parameter.set_data(ms.Tensor(start))
        slope = (8 * (values[1] - values[2]) - (values[0] - values[3])) / (12 * step)
        slice_ = along[0] if gradient.shape != along.shape else along
        assert float((gradient.asnumpy() * slice_).sum()) == pytest.approx(slope, rel=1e-7, abs=1e-9), (
            parameter.name
        )


@pytest.mark.parametrize(
    ("trunk", "loss", "message"),
    [
        (small_config(), {"atom_energy": 1.0}, "no atom has one of its own"),
        (small_config(output="direct"), {"hessian": 1.0}, "for conservative models"),
        (CONFIG, {"hessian": 1.0}, "no training frame has such labels.*hessian: 1"),
        (CONFIG, {"atom_energy": 1.0}, "no training frame has such labels.*atom_energies: true"),
    ],
)
def test_terms_that_model_or_data_do_not_have_are_refused(tmp_path, trunk, loss, message):
    write_dataset([from_atoms(crystal(1), energy=1.0)], tmp_path / "data")
    data = open_dataset(tmp_path / "data")
    task = SimpleNamespace(train=data.subset(np.arange(len(data))))
    run = SimpleNamespace(config=TrainConfig(loss=loss), trunk=trunk, tasks=[task])
    with pytest.raises(UserError, match=message):
        start.refuse_unfit(run)


def test_losses_of_the_public_models_have_no_extra_terms():
    with pytest.raises(ValueError, match="take huber, mae or mse"):
        LossConfig(kind="orb-huber", hessian=1.0)


@pytest.mark.slow
def test_an_orb_learns_products_by_the_same_slope():
    potential = small_potential(heads=("one",))
    loss = LossConfig(
        kind="mse", units="physical", energy=0.3, forces=0.5, stress=0.0, confidence=0.0, hessian=0.9
    )
    cell = Gradient(potential, loss)
    tensors = cell.objective.tensors(labelled_batch()[0])
    _, (_, of_trunk) = cell(HEAD, *tensors)
    parameter = cell.trunk[0]
    start_, along = parameter.asnumpy().copy(), np.random.default_rng(6).normal(size=parameter.shape)
    values = []
    for k in (2, 1, -1, -2):
        parameter.set_data(ms.Tensor(start_ + k * 1e-4 * along))
        values.append(float(cell(HEAD, *tensors)[0][0].asnumpy()))
    slope = (8 * (values[1] - values[2]) - (values[0] - values[3])) / 12e-4
    assert abs(slope) > 1e-6
    assert float((of_trunk[0].asnumpy() * along).sum()) == pytest.approx(slope, rel=1e-4)
