"""Compositions and the sites that share them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ase.io import read

from lamkit.crystal import disorder
from lamkit.errors import UserError

CIF = """data_test
_cell_length_a 4.0
_cell_length_b 4.0
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P m -3 m'
_symmetry_Int_Tables_number 221
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Ba1 Ba 0 0 0 0.5
Na1 Na 0 0 0 0.25
Bi1 Bi 0 0 0 0.25
Ti1 Ti 0.5 0.5 0.5 1.0
O1 O 0.5 0.5 0 0.9583
"""


@pytest.fixture
def parent():
    return disorder.number_parent(read(io.StringIO(CIF), format="cif"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ba4Na2Bi2", {"Ba": 4, "Na": 2, "Bi": 2}),
        ("Ti0.875Zr0.125", {"Ti": 0.875, "Zr": 0.125}),
        ("O", {"O": 1}),
        ("O11X", {"O": 11, "X": 1}),
    ],
)
def test_compositions_are_formulas(text, expected):
    assert disorder.composition(text) == expected


@pytest.mark.parametrize("text", ["", "ba4", "Ba4-Na2", "Qq2", "Ba0", "Ba4 Na2"])
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(UserError, match="composition"):
        disorder.composition(text)


def test_partial_occupancies_of_a_cif_become_pools_with_vacancies(parent):
    found = disorder.find_pools(parent.repeat(2), {}, {}, {})
    assert sorted(sorted(counts) for _, counts in found) == [
        [("Ba", 4), ("Bi", 2), ("Na", 2)],
        [("O", 23), ("X", 1)],
    ]


def test_what_is_said_goes_before_the_occupancies(parent):
    found = disorder.find_pools(parent.repeat(2), {"Ba": "Ba7Na", "O": "O"}, {}, {})
    assert [counts for _, counts in found] == [(("Ba", 7), ("Na", 1)), (("O", 24),)]


def test_vacancies_and_substitutions_of_one_element_share_its_sites(parent):
    found = disorder.find_pools(parent.repeat(2), {"Ba": "Ba", "O": "O"}, {"Ti": 1}, {"Ti:Zr": 2})
    assert found[-1][1] == (("Ti", 5), ("X", 1), ("Zr", 2))


def test_sites_can_be_named_by_the_atoms_of_the_cell_that_was_read(parent):
    big = parent.repeat((2, 1, 1))
    where = disorder.chosen(big, "2-3")
    assert big.arrays[disorder.PARENT][where].tolist() == [2, 3, 2, 3]


def test_what_does_not_come_out_even_names_a_size_that_does():
    with pytest.raises(UserError, match=r"6 sites cannot be shared .* that 4 divides"):
        disorder.whole_numbers({"Ba": 0.75, "Na": 0.25}, 6, "site Ba")


def test_rounded_occupancies_are_taken_as_meant():
    assert disorder.whole_numbers({"Li": 0.333, "X": 0.667}, 12, "site") == (("Li", 4), ("X", 8))


@pytest.mark.parametrize(
    ("sites", "vacancies", "substitutions", "message"),
    [
        ({"A": "Ba4Na4"}, {}, {}, "site A: no such element"),
        ({"99": "Ba"}, {}, {}, "has the atoms 0 to"),
        ({"Ba": "Ba"}, {"Ba": 1}, {}, "named twice"),
        ({}, {"Ti": 9}, {}, "9 atoms to be changed, the cell has 8"),
        ({}, {}, {"Ti": 1}, "expected OLD:NEW"),
    ],
)
def test_what_cannot_be_meant_is_refused(parent, sites, vacancies, substitutions, message):
    with pytest.raises(UserError, match=message):
        disorder.find_pools(parent.repeat(2), sites, vacancies, substitutions)


def test_vacant_sites_are_left_out_and_others_get_their_species(parent):
    sites = np.array([0, 1])
    made = disorder.occupy(parent, sites, {0: "X", 1: "Zr"})
    assert len(made) == len(parent) - 1
    assert "Zr" in made.get_chemical_symbols()
    assert disorder.PARENT not in made.arrays
