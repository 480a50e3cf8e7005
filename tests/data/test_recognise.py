"""Recognition by content: containers, databases, pickles that are refused, files that are passed over."""

import json
import pickle
import shutil
import zipfile

import dpdata
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write
from engine_outputs import gaussian_log, molecule
from frames import frames, kept, read_all

from lamkit.cli import main
from lamkit.data.dataset import open_dataset
from lamkit.data.formats import ReadOptions, get_format, recognise
from lamkit.data.frame import to_atoms
from lamkit.errors import UserError


def read(path):
    return kept(list(recognise(path).read(path, str(path), ReadOptions())))


@pytest.fixture
def system(shared):
    """Three frames of a perovskite with virials, as dpdata has them."""
    return dpdata.LabeledSystem(str(shared / "data/dpgen_MAPbI3_SCAN/sys.000"), fmt="deepmd/npy")[:3]


@pytest.mark.parametrize(
    ("written_as", "name", "recognised"),
    [
        ("deepmd/raw", "raw", "deepmd/raw"),
        ("deepmd/hdf5", "one.hdf5", "deepmd/hdf5"),
        ("deepmd/comp", "comp", "deepmd/npy"),
        ("deepmd/npy", "npy", "deepmd/npy"),
    ],
)
def test_deepmd_in_every_dress_gives_the_same_frames(tmp_path, system, written_as, name, recognised):
    system.to(written_as, str(tmp_path / name))
    path = tmp_path / name
    assert recognise(path).name == recognised
    same_as_dpdata(read(path), system)


@pytest.mark.parametrize(
    ("written_as", "name", "recognised"),
    [
        ("deepmd/hdf5", "many.hdf5", "deepmd/hdf5"),
        ("deepmd/hdf5/mixed", "mixed.hdf5", "deepmd/hdf5/mixed"),
        ("deepmd/npy/mixed", "mixed", "deepmd/npy"),
        ("deepmd/lmdb", "x.lmdb", "deepmd/lmdb"),
    ],
)
def test_deepmd_files_with_several_systems_are_read_in_full(
    tmp_path, shared, system, written_as, name, recognised
):
    water = dpdata.LabeledSystem(str(shared / "data/vasp/OUTCAR.h2o.md.10"), fmt="vasp/outcar")
    dpdata.MultiSystems(system, water).to(written_as, str(tmp_path / name))
    assert recognise(tmp_path / name).name == recognised
    found = read(tmp_path / name)
    assert len(found) == 13
    assert len({frame.group for frame in found}) == 2
    same_as_dpdata([frame for frame in found if len(frame) == 48], system)


def same_as_dpdata(found, system):
    assert len(found) == len(system)
    by_energy = {round(float(e), 4): k for k, e in enumerate(system["energies"])}
    for frame in found:
        k = by_energy[round(frame.energy, 4)]
        volume = abs(np.linalg.det(system["cells"][k]))
        assert np.trace(system["virials"][k]) == pytest.approx(-volume * frame.stress[:3].sum(), rel=1e-4)
        assert np.abs(frame.forces).max() == pytest.approx(np.abs(system["forces"][k]).max(), rel=1e-5)


def test_an_ase_database_in_lmdb_converts_by_command(tmp_path):
    """The format of OMat24, written by its own library; the folder may be read-only."""
    aselmdb = pytest.importorskip("ase_db_backends.aselmdb")
    with aselmdb.LMDBDatabase(str(tmp_path / "data.0001.aselmdb")) as database:
        for k, frame in enumerate(frames(5)):
            database.write(to_atoms(frame), data={"sid": f"run{k // 2}", "calc_id": 1})
    assert recognise(tmp_path / "data.0001.aselmdb").name == "ase/lmdb"
    assert (
        main(["data", "convert", str(tmp_path / "data.0001.aselmdb"), "--out", str(tmp_path / "d"), "-q"])
        == 0
    )
    dataset = open_dataset(tmp_path / "d")
    assert np.allclose(np.sort(dataset.energies), np.sort([f.energy for f in frames(5)]))
    assert set(dataset.group_names) == {"run0", "run1", "run2"}
    originals = {f.energy: f for f in frames(5)}
    for i in range(5):
        frame = dataset.frame(i)
        assert np.allclose(frame.stress, originals[frame.energy].stress)
        assert np.allclose(frame.forces, originals[frame.energy].forces)


def test_a_database_is_read_page_by_page_without_losing_a_row(tmp_path, monkeypatch):
    from ase.db import connect

    from lamkit.data.formats import ase_files

    monkeypatch.setattr(ase_files, "PAGE", 3)
    with connect(tmp_path / "a.db") as database:
        for frame in frames(8):
            database.write(to_atoms(frame))
    del connect(tmp_path / "a.db")[4]
    expected = [f.energy for k, f in enumerate(frames(8)) if k != 3]
    assert [f.energy for f in read(tmp_path / "a.db")] == expected


def test_a_trajectory_of_ase_keeps_raw_forces_and_frames_of_any_size(tmp_path):
    """ASE itself gives zero for the forces on fixed atoms; dpdata wants all frames alike."""
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.8]], constraint=FixAtoms([0]))
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, free_energy=-1.5, forces=np.ones((2, 3)))
    single = Atoms("H")
    single.calc = SinglePointCalculator(single, energy=-0.5, forces=np.zeros((1, 3)))
    write(tmp_path / "md.traj", [atoms, single])
    assert recognise(tmp_path / "md.traj").name == "ase/traj"
    first, second = read(tmp_path / "md.traj")
    assert first.energy == -1.5
    assert (first.forces == 1.0).all()
    assert len(second) == 1


class Evil:
    """Would run a command when unpickled."""

    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/lamkit-was-here",)


@pytest.mark.parametrize("name", ["data.pkl", "data.db", "train.xyz"])
def test_pickles_are_refused_by_their_content_whatever_their_name(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(UserError, match=r"can run any code.*ase\.io\.write"):
        recognise(tmp_path / name)


def test_files_of_torch_are_refused_as_the_pickles_they_hold(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.pt", "w") as pack:
        pack.writestr("archive/data.pkl", pickle.dumps([1]))
    with pytest.raises(UserError, match="can run any code"):
        recognise(tmp_path / "data.pt")


def test_lmdb_with_pickles_is_looked_at_and_not_opened(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    with (
        lmdb.open(str(tmp_path / "x.aselmdb"), subdir=False) as database,
        database.begin(write=True) as transaction,
    ):
        transaction.put(b"0", pickle.dumps(Evil()))
    with pytest.raises(UserError, match="pickled objects"):
        recognise(tmp_path / "x.aselmdb")


@pytest.mark.parametrize("n_bytes", [10, 200, 5000, 40_000])
def test_a_truncated_lmdb_is_an_error_and_no_crash(shared, tmp_path, n_bytes):
    """Mapped into memory as it is, it would end the program with a bus error."""
    whole = (shared / "data/alexandria_lmdb/data_000.lmdb").read_bytes()
    path = tmp_path / "data.aselmdb"
    path.write_bytes(whole[:n_bytes])
    reader = get_format("ase/lmdb").read
    with pytest.raises(UserError, match="cut off"):
        list(reader(path, str(path), ReadOptions()))
    if n_bytes > 20:
        with pytest.raises(UserError, match="cut off"):
            recognise(path)


def test_hdf5_of_another_kind_is_refused_with_the_way_round(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "spice.hdf5", "w") as file:
        file["a/conformations"] = np.zeros((2, 3, 3))
    with pytest.raises(UserError, match=r"without a system of DeePMD.*extended XYZ"):
        recognise(tmp_path / "spice.hdf5")


def test_a_file_that_fits_two_formats_is_an_error_that_names_both(tmp_path):
    path = gaussian_log(tmp_path, molecule())
    path.write_text(path.read_text() + "\n  * O   R   C   A *\n")
    with pytest.raises(UserError, match=r"could be gaussian/log or orca/spout.*--format"):
        recognise(path)


def test_a_folder_is_searched_and_every_file_accounted_for(tmp_path, capsys):
    gaussian_log(tmp_path / "runs/a", molecule())
    write(tmp_path / "runs/b.xyz", [to_atoms(f) for f in frames(3)], format="extxyz")
    shutil.copytree(tmp_path / "runs/a", tmp_path / "runs/c")
    (tmp_path / "runs/c/job.log").write_text("Entering Gaussian System\n")
    for name in ("POSCAR", "INCAR", "notes.txt", "x-pos-1.xyz"):
        (tmp_path / "runs" / name).write_text("2\n i =   0, time = 0.0, E = -1.0\nH 0 0 0\nH 0 0 1\n")
    (tmp_path / "runs/old.pkl").write_bytes(pickle.dumps([1]))
    assert main(["data", "convert", str(tmp_path / "runs"), "--out", str(tmp_path / "d"), "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    named = {entry["path"] for entry in result["files"]} | set(result["ignored"])
    assert named == {str(p) for p in (tmp_path / "runs").rglob("*") if p.is_file()}
    errors = {entry["path"].rpartition("/")[2]: entry["error"] for entry in result["files"] if entry["error"]}
    assert set(errors) == {"job.log", "old.pkl"}
    assert "no labelled frame" in errors["job.log"]
    assert result["kept"] == 4
    for words in ("a structure without labels", "a file of VASP", "part of a CP2K run", "not a format"):
        assert words in err


def test_units_that_a_header_states_are_used_and_others_refused(tmp_path):
    header = (
        'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3:forces:R:3 energy=-10 energy_unit={} '
        'stress="0.1 0 0 0 0.2 0 0 0 0.3" stress_unit={}'
    )
    for unit, stress_unit, energy, stress in (
        ("eV", "GPa", -10.0, 0.1 / 160.21766208),
        ("Hartree", "eV/Ang^3", -272.1138602, 0.1),
    ):
        (tmp_path / "a.xyz").write_text(f"1\n{header.format(unit, stress_unit)}\nCu 0 0 0 0 0 0\n")
        frame = kept(read_all("extxyz", tmp_path / "a.xyz"))[0]
        assert frame.energy == pytest.approx(energy)
        assert frame.stress[0] == pytest.approx(stress)
    (tmp_path / "a.xyz").write_text("1\nenergy=-10 energy_unit=furlong\nCu 0 0 0\n")
    with pytest.raises(UserError, match="energy_unit=furlong: not a unit known here; name it with --units"):
        read_all("extxyz", tmp_path / "a.xyz")
