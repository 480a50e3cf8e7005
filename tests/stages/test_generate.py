"""Structures to be labelled: occupations, defects, strains and displacements, as a user asks for them."""

from __future__ import annotations

import csv

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from lamkit.cli import main
from lamkit.data.dataset import open_dataset
from lamkit.errors import UserError
from lamkit.stages import generate

SITES = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]


@pytest.fixture
def cubic(tmp_path):
    path = tmp_path / "cubic.vasp"
    ase.io.write(path, Atoms("BaTiO3", scaled_positions=SITES, cell=[4.0] * 3, pbc=True))
    return path


def test_all_arrangements_with_copies_that_stay_together(cubic, tmp_path):
    options = generate.Options(
        structures=[str(cubic)],
        supercell=[2, 2, 2],
        sites={"Ba": "Ba4Na2Bi2", "Ti": "Ti7Zr"},
        perturb={"n": 2, "distance": 0.1},
        keep=True,
    )
    result = generate.run(options, tmp_path / "out")
    assert result["n_structures"] == 16
    assert result["occupations"][0] | {"source": ""} == {
        "source": "", "distinct": 16, "total": 3360, "made": 16, "sampled": False, "operations": 384,
    }  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "out/table.csv").open()))
    assert sum(int(row["multiplicity"]) for row in rows) == 3360
    data = open_dataset(result["data"])
    assert len(data) == result["n_frames"] == 48
    assert len(set(data.groups.tolist())) == 16
    assert all(data.frame(i).energy is None for i in range(3))
    images = ase.io.read(tmp_path / "out/structures.extxyz", ":")
    assert {a.get_chemical_formula() for a in images} == {"Ba4Bi2Na2O24Ti7Zr"}
    ideal, copy = images[0], images[1]
    assert ideal.info["group"] == copy.info["group"]
    assert not np.allclose(ideal.positions, copy.positions)


def test_the_same_seed_makes_the_same_structures(cubic, tmp_path):
    def positions(name: str, seed: int) -> np.ndarray:
        options = generate.Options(structures=[str(cubic)], perturb={"n": 3}, seed=seed)
        result = generate.run(options, tmp_path / name)
        return np.array([a.positions for a in ase.io.read(result["files"], ":")])

    np.testing.assert_array_equal(positions("a", 1), positions("b", 1))
    assert not np.allclose(positions("c", 2), positions("a2", 1))


def test_no_two_are_the_same_crystal_in_a_cell_that_is_less_symmetric_than_the_crystal(tmp_path):
    """In a 4x2x1 cell stripes along x and along y both fit: one crystal, by a turn that does not keep the cell."""
    ase.io.write(tmp_path / "cube.vasp", Atoms("Po", cell=[3.0] * 3, pbc=True))
    options = generate.Options(
        structures=[str(tmp_path / "cube.vasp")], supercell=[4, 2, 1], sites={"Po": "PoTe"}
    )
    result = generate.run(options, tmp_path / "out")
    images = ase.io.read(result["files"], ":")
    rows = [int(row["multiplicity"]) for row in csv.DictReader((tmp_path / "out/table.csv").open())]
    assert sum(rows) == 70
    prints = {crystal_print(atoms) for atoms in images}
    assert len(prints) == len(images)


def crystal_print(atoms: Atoms) -> tuple:
    """What each atom has around it up to four lattice constants, the same for the same crystal."""
    from ase.neighborlist import neighbor_list

    i, j, d = neighbor_list("ijd", atoms, 12.1)
    around: list[list[tuple[int, float]]] = [[] for _ in atoms]
    for a, b, distance in zip(i, j, d.round(3), strict=True):
        around[a].append((int(atoms.numbers[b]), float(distance)))
    return tuple(sorted((int(z), tuple(sorted(n))) for z, n in zip(atoms.numbers, around, strict=True)))


def test_too_many_arrangements_are_drawn_at_random(cubic, tmp_path):
    options = generate.Options(
        structures=[str(cubic)],
        supercell=[3, 3, 2],
        sites={"Ba": "Ba9Na9"},
        occupations={"max": 100, "n_random": 7},
    )
    result = generate.run(options, tmp_path / "out")
    count = result["occupations"][0]
    assert count["sampled"]
    assert count["made"] == result["n_frames"] == 7
    assert count["distinct"] > 100


def test_strains_vacancies_and_poscars_by_the_command_line(cubic, tmp_path, capsys):
    out = tmp_path / "out"
    code = main(
        ["generate", "--vacancy", "O=1", "--substitute", "Ti:Zr=1", "--strain=-0.02,0.02", "--poscar",
         "--out", str(out), "-q", "--supercell", "2", "2", "2", str(cubic)]
    )  # fmt: skip
    assert code == 0
    files = sorted((out / "poscar").iterdir())
    assert len(files) == 2 * 3  # oxygen next to Zr, and in two other shells
    first, second = (ase.io.read(f, format="vasp") for f in files[:2])
    assert first.get_chemical_formula() == "Ba8O23Ti7Zr"
    assert second.get_volume() / first.get_volume() == pytest.approx((1.02 / 0.98) ** 3)


def test_structures_whose_atoms_come_too_close_are_left_out_and_counted(cubic, tmp_path):
    options = generate.Options(structures=[str(cubic)], strain={"amplitudes": [-0.45, 0.0]})
    result = generate.run(options, tmp_path / "out")
    assert result["n_frames"] == 1
    assert sum(result["dropped"].values()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--site", "Ba"], "expected NAME=VALUE"),
        (["--site", "Ba=Ba4Na2Bi2"], "take a supercell with a number of sites that 4 divides"),
        (["--site", "Sr=Ba"], "Known: Ba, O, Ti"),
        (["--vacancy", "O=two"], "expected a whole number"),
        (["--strain=9"], "2 %"),
        (["--strain=-0.45"], "no structure keeps to the limits"),
        (["--set", "perturb.distanse=1"], "Did you mean 'distance'"),
    ],
)
def test_what_is_mistyped_is_one_clear_message(cubic, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    assert main(["generate", str(cubic), *arguments, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_second_run_does_not_write_over_the_first(tmp_path):
    ase.io.write(tmp_path / "cu.xyz", bulk("Cu"))
    options = generate.Options(structures=[str(tmp_path / "cu.xyz")])
    generate.run(options, tmp_path / "out")
    with pytest.raises(UserError, match="another --out"):
        generate.run(options, tmp_path / "out")
