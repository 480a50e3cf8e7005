import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from frames import random_frame

from lamkit.data.frame import formula, from_atoms, from_voigt, numbers_of, to_atoms, to_voigt, volume
from lamkit.errors import UserError


def test_forces_on_fixed_atoms_are_not_set_to_zero():
    atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    raw = atoms.get_forces(apply_constraint=False)
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=raw)
    atoms.set_constraint(FixAtoms([0, 1]))
    assert np.array_equal(from_atoms(atoms).forces, raw)


def test_the_free_energy_is_preferred_because_the_forces_belong_to_it():
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, free_energy=-1.2)
    assert from_atoms(atoms).energy == -1.2


def test_a_frame_survives_the_way_to_ase_and_back():
    frame = random_frame(3)
    again = from_atoms(to_atoms(frame))
    assert np.array_equal(frame.positions, again.positions)
    assert again.energy == frame.energy
    assert np.array_equal(again.stress, frame.stress)


def test_a_cell_without_any_periodic_axis_is_left_out():
    frame = from_atoms(Atoms("CO", [[0, 0, 0], [0, 0, 1.1]], cell=[50, 50, 50], pbc=False))
    assert not frame.cell.any()
    assert volume(frame) == 0


def test_voigt_order_is_that_of_ase():
    tensor = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    assert to_voigt(tensor).tolist() == [1, 2, 3, 4, 5, 6]
    assert np.array_equal(from_voigt(to_voigt(tensor)), tensor)


def test_the_formula_is_reduced():
    assert formula(random_frame(0, numbers=np.array([8, 1, 1, 8]), n_atoms=4)) == "HO"


def test_a_symbol_that_is_no_element_is_refused_with_a_suggestion():
    with pytest.raises(UserError, match="'Z' is no element"):
        numbers_of(["O", "Z"])
