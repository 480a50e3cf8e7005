"""VASP: inputs from a POSCAR, an INCAR and a library of POTCARs."""

from __future__ import annotations

import gzip
import io

import ase.io
import numpy as np
import pytest
from ase import Atoms

from lamkit.data.frame import from_atoms
from lamkit.dft.vasp import Ldau, Vasp, read_incar
from lamkit.errors import UserError

INCAR = "PREC=N ; ENCUT = 500 # eV\nKSPACING=0.2\nkgamma = .FALSE.\nNSW=0\nGGA = PS ! PBEsol\n"


@pytest.fixture
def frame():
    """Elements in turns, so that the order has to change."""
    positions = [(0, 0, 0), (2, 2, 2), (0.1, 2, 2), (2, 2, 0)]
    return from_atoms(Atoms("OTiOBa", positions=positions, cell=[4, 4, 4.2], pbc=True))


@pytest.fixture
def library(tmp_path):
    folder = tmp_path / "potcars"
    (folder / "O").mkdir(parents=True)
    (folder / "O/POTCAR").write_text("oxygen\n")
    (folder / "POTCAR.Ti.gz").write_bytes(gzip.compress(b"titanium\n"))
    (folder / "POTCAR_Ba_sv").write_text("barium\n")
    return folder


@pytest.fixture
def vasp(tmp_path, library):
    (tmp_path / "INCAR").write_text(INCAR)
    return Vasp(incar=str(tmp_path / "INCAR"), potcars=str(library), potentials={"Ba": "Ba_sv"})


def test_poscar_and_potcar_have_the_same_order(vasp, frame):
    files = vasp.inputs(frame)
    assert files["POTCAR"] == b"oxygen\ntitanium\nbarium\n"
    read = ase.io.read(io.StringIO(files["POSCAR"].decode()), format="vasp")
    assert read.get_chemical_symbols() == ["O", "O", "Ti", "Ba"]
    np.testing.assert_allclose(read.positions, frame.positions[vasp.order(frame)], atol=1e-12)
    np.testing.assert_allclose(read.cell.array, frame.cell, atol=1e-12)


def test_the_incar_is_kept_but_for_what_is_set(vasp, frame):
    assert read_incar(vasp.incar) == {
        "PREC": "N", "ENCUT": "500", "KSPACING": "0.2", "KGAMMA": ".FALSE.", "NSW": "0", "GGA": "PS",
    }  # fmt: skip
    finer = vasp.model_copy(update={"kspacing": 0.15})
    assert "KSPACING = 0.15\nKGAMMA = .TRUE.\n" in finer.inputs(frame)["INCAR"].decode()
    mesh = vasp.model_copy(update={"kpoints": [3, 3, 2]})
    files = mesh.inputs(frame)
    assert files["KPOINTS"].decode().split() == ["mesh", "0", "Gamma", "3", "3", "2"]
    assert "KSPACING" not in files["INCAR"].decode()


def test_what_goes_by_species_follows_the_order_of_the_frame(vasp, frame):
    program = vasp.model_copy(update={"magmoms": {"Ti": 1.0}, "ldau": {"Ti": Ldau(l=2, u=4.0)}})
    text = program.inputs(frame)["INCAR"].decode()
    assert "MAGMOM = 2*0 1*1 1*0\n" in text
    assert "LDAUL = -1 2 -1\nLDAUU = 0 4 0\nLDAUJ = 0 0 0\n" in text


@pytest.mark.parametrize(
    ("incar", "message"),
    [
        ("NSW = 10\nKSPACING=0.2", "NSW = 10; a label is a single point"),
        ("MAGMOM = 2*1\nKSPACING=0.2", "vasp.magmoms"),
        ("ENCUT = 400", "no k-points"),
    ],
)
def test_an_incar_that_gives_no_label_is_refused(vasp, tmp_path, incar, message):
    (tmp_path / "INCAR").write_text(incar)
    with pytest.raises(UserError, match=message):
        vasp.check()


def test_a_missing_potcar_is_named_with_what_there_is(vasp, frame):
    with pytest.raises(UserError, match=r"no POTCAR of Ba .*POTCAR_Ba_sv"):
        vasp.model_copy(update={"potentials": {}}).inputs(frame)


def test_missing_files_are_named(vasp, frame, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        vasp.model_copy(update={"potcars": str(tmp_path / "nowhere")}).inputs(frame)
    with pytest.raises(UserError, match="cannot be read"):
        vasp.model_copy(update={"incar": str(tmp_path / "nowhere")}).check()


def test_a_molecule_is_refused(vasp):
    with pytest.raises(UserError, match="three periodic axes"):
        vasp.inputs(from_atoms(Atoms("O2", positions=[(0, 0, 0), (1.2, 0, 0)])))


def test_the_incar_of_the_known_example_is_a_single_point(shared, library):
    program = Vasp(incar=str(shared / "data/pfd_BNBZTO/INCAR.fp"), potcars=str(library))
    program.check()
    text = program.incar_text([("O", 24), ("Ba", 4)])
    assert "GGA = PS\n" in text
    assert "KSPACING = 0.200000\nKGAMMA = .FALSE.\n" in text
