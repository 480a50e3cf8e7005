"""What people do with a calculator in ASE, done with the sample model: relaxation, elasticity, phonons, NVE."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms, units
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.phonons import Phonons

from lamkit import presets
from lamkit.calculator import LamCalculator
from lamkit.data.frame import VOIGT_COLUMNS, VOIGT_ROWS

STRAIN = 2e-3


@pytest.fixture(scope="module")
def calculator() -> LamCalculator:
    return LamCalculator(presets.examples() / "model", "pbe_oxides", dtype="float64")


@pytest.fixture(scope="module")
def crystal(calculator) -> Atoms:
    """Cubic BaZrO3 at the model's own lattice constant."""
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    atoms = Atoms("BaZrO3", scaled_positions=places, cell=[4.2] * 3, pbc=True)
    atoms.calc = calculator
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-6, steps=100)
    return atoms


def strained(crystal: Atoms, component: int, size: float) -> Atoms:
    """A copy under one Voigt strain (engineering shear)."""
    strain = np.zeros((3, 3))
    i, j = VOIGT_ROWS[component], VOIGT_COLUMNS[component]
    strain[i, j] += 0.5 * size
    strain[j, i] += 0.5 * size
    atoms = crystal.copy()
    atoms.set_cell(crystal.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    atoms.calc = crystal.calc
    return atoms


def elastic_constants(crystal: Atoms) -> np.ndarray:
    """Clamped-ion constants by differences of the stress, [6, 6] GPa."""
    rows = [
        (strained(crystal, k, STRAIN).get_stress() - strained(crystal, k, -STRAIN).get_stress())
        / (2 * STRAIN)
        for k in range(6)
    ]
    return np.array(rows) / units.GPa


def test_relaxation_with_the_cell_ends_without_force_and_stress(crystal):
    assert np.abs(crystal.get_forces()).max() < 1e-6
    assert np.abs(crystal.get_stress() / units.GPa).max() < 1e-4
    lengths = crystal.cell.lengths()
    np.testing.assert_allclose(lengths, lengths[0], atol=1e-6)
    assert 4.0 < lengths[0] < 4.4  # PBE: 4.24 Å


def test_elastic_constants_are_those_of_a_stable_cubic_crystal(crystal):
    constants = elastic_constants(crystal)
    np.testing.assert_allclose(constants, constants.T, atol=0.5)
    c11, c12, c44 = constants[0, 0], constants[0, 1], constants[3, 3]
    assert c11 > abs(c12)
    assert c11 + 2 * c12 > 0
    assert c44 > 0
    expected = np.zeros((6, 6))
    expected[:3, :3] = c12
    np.fill_diagonal(expected, [c11] * 3 + [c44] * 3)
    np.testing.assert_allclose(constants, expected, atol=0.5)


@pytest.mark.parametrize("component", [0, 3])
def test_elastic_constants_from_stress_and_from_energy_agree(crystal, component):
    energies = [strained(crystal, component, s).get_potential_energy() for s in (STRAIN, 0.0, -STRAIN)]
    curvature = (energies[0] - 2 * energies[1] + energies[2]) / STRAIN**2 / crystal.get_volume() / units.GPa
    assert elastic_constants(crystal)[component, component] == pytest.approx(curvature, rel=5e-3, abs=0.5)


def test_phonons_have_three_acoustic_branches_that_end_at_zero(crystal, tmp_path):
    phonons = Phonons(crystal, crystal.calc, supercell=(1, 1, 1), delta=0.002, name=str(tmp_path / "phonons"))
    phonons.run()
    phonons.read(symmetrize=0, acoustic=False)
    constants = phonons.get_force_constant()[0]
    np.testing.assert_allclose(constants, constants.T, atol=3e-4)  # eV/Å²; of about 5
    blocks = constants.reshape(5, 3, 5, 3)
    np.testing.assert_allclose(blocks.sum(axis=2), 0, atol=1e-6)
    omega = np.sort(np.abs(phonons.band_structure([[0, 0, 0]])[0])) * 1e3
    assert (omega[:3] < 0.1).all()  # meV
    assert (omega[3:] > 1.0).all()
    np.testing.assert_allclose(np.diff(omega[3:].reshape(-1, 3), axis=1), 0, atol=0.1)  # cubic: threefold


@pytest.mark.slow
def test_energy_drifts_by_less_than_1e_minus_5_ev_per_atom_and_picosecond(repo):
    sys.path.insert(0, str(repo / "benchmarks"))
    try:
        import nve
    finally:
        sys.path.pop(0)
    from argparse import Namespace

    import ase.io

    atoms = ase.io.read(presets.examples() / "data" / "pbe_oxides.extxyz", 0) * (2, 2, 2)
    atoms.calc = None
    sample = LamCalculator(presets.examples() / "model", "pbe_oxides")
    options = Namespace(temperature=300.0, timestep=1.0, ps=2.0, equilibrate=0.5, dtype="float32")
    row = nve.measure(atoms, sample, options)
    assert row["stopped"] is None
    assert abs(row["drift_eV_atom_ps"]) < 1e-5 + 2 * row["error_eV_atom_ps"]
    assert row["error_eV_atom_ps"] < 2e-5
    assert row["fluctuation_eV_atom"] < 5e-4
    assert row["searches"] < 400
