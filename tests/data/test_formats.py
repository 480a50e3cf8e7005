"""Readers against real files: energies, forces, and above all the sign and order of the stress."""

import gzip
import json

import numpy as np
import pytest
from frames import kept, read_all

from lamkit.data.formats import FORMATS, Remark, get_format, recognise
from lamkit.data.frame import from_voigt, volume
from lamkit.errors import UserError

KBAR = 1602.1766208  # kbar in one eV/Å³
GPA = 160.21766208


def invariants(stress):
    return np.sort(np.linalg.eigvalsh(from_voigt(stress)))


def test_vasp_and_extxyz_of_one_calculation_agree(shared):
    """dpdata turns the cell to lower triangular, so only invariants can be compared."""
    folder = shared / "data/sevennet_hfo2"
    outcar = kept(read_all("vasp/outcar", folder / "OUTCAR_9"))[0]
    extxyz = kept(read_all("extxyz", folder / "hfo2.extxyz"))[0]
    assert outcar.energy == extxyz.energy == -347.81221934
    assert np.allclose(invariants(outcar.stress), invariants(extxyz.stress), atol=1e-6)
    assert outcar.stress[:3].sum() < 0  # compressed; the virial is +17.9 eV
    norms = [np.sort(np.linalg.norm(f.forces, axis=1)) for f in (outcar, extxyz)]
    assert np.allclose(*norms, atol=1e-5)
    assert volume(outcar) == pytest.approx(volume(extxyz), rel=1e-6)


def test_the_energy_of_vasp_is_the_free_energy(shared):
    frame = kept(read_all("vasp/outcar", shared / "data/vasp/dpgen_post_fp_task0__OUTCAR"))[0]
    assert frame.energy == pytest.approx(-1.90811235)  # sigma -> 0 would be -1.66088


def test_an_external_pressure_enters_neither_energy_nor_stress_twice(shared):
    frame = kept(read_all("vasp/outcar", shared / "data/vasp/dpgen_Li_pstress700__OUTCAR"))[-1]
    assert -frame.stress[:3].mean() * KBAR == pytest.approx(700, abs=10)
    assert frame.energy < 0  # the enthalpy would be +90 eV


def test_stress_that_vasp_did_not_compute_is_absent_and_not_zero(shared):
    for name, fmt in (("npt_nvt__OUTCAR", "vasp/outcar"), ("vasprun.ml_md.xml.gz", "vasp/xml")):
        assert all(f.stress is None for f in kept(read_all(fmt, shared / "data/vasp" / name)))


def test_forces_on_fixed_atoms_are_the_raw_ones(shared):
    frame = kept(read_all("vasp/xml", shared / "data/vasp/27998_vasprun.xml"))[0]
    assert (np.abs(frame.forces).max(axis=1) > 0).all()


def test_mptrj_json_and_xyz_give_the_same_labels(shared):
    """The two were published apart: VASP's kilobar and sign in one, ASE's in the other."""
    json_frames = kept(read_all("mptrj", shared / "data/mptrj/MPtrj_excerpt_EFS.json"))
    xyz = {f.energy: f for f in kept(read_all("extxyz", shared / "data/mptrj/mptrj-random-1k.xyz"))}
    assert len(json_frames) == 200
    for frame in json_frames:
        other = xyz[frame.energy]
        assert np.allclose(frame.stress, other.stress, rtol=0, atol=1e-10)
        assert np.array_equal(frame.forces, other.forces)
        assert np.allclose(frame.positions, other.positions, atol=1e-8)
        assert frame.group == other.group


def test_mptrj_json_and_ase_database_give_the_same_labels(shared):
    json_frames = kept(read_all("mptrj", shared / "data/mptrj/MPtrj_excerpt_allkeys.json"))
    rows = {f.energy: f for f in kept(read_all("ase/db", shared / "data/mptrj/10_thin_mp_traj_systems.db"))}
    assert len(json_frames) == len(rows) == 11
    for frame in json_frames:
        other = rows[frame.energy]
        assert np.allclose(frame.stress, other.stress, rtol=0, atol=1e-9)
        assert np.allclose(frame.forces, other.forces)
        assert frame.group == other.group
    assert json_frames[0].energy == pytest.approx(-208.0919485)  # uncorrected, not -220.458


@pytest.mark.parametrize(("element", "literature"), [("Mo", 277), ("Si", 94), ("Li", 15)])
def test_mlearn_pressure_gives_the_bulk_modulus(shared, element, literature):
    """Crystals stretched along one axis: the slope of the pressure by the logarithm of the volume."""
    frames = kept(read_all("mlearn", shared / f"data/mlearn/{element}/training.json"))
    axial = [f for f in frames if "mode" in f.group and _shear(f).max() < 1e-6]
    volumes = np.array([volume(f) / len(f) for f in axial])
    pressure = np.array([-f.stress[:3].mean() for f in axial])
    slope = np.polyfit(np.log(volumes / volumes.mean()), pressure, 3)[-2]
    assert -slope * GPA == pytest.approx(literature, rel=0.1)


def _shear(frame):
    """Engineering shear yz, xz, xy of a cubic cell, without sign."""
    strain = frame.cell / abs(np.linalg.det(frame.cell)) ** (1 / 3)
    return np.abs((strain + strain.T)[[1, 0, 0], [2, 2, 1]])


@pytest.mark.parametrize(("element", "c44"), [("Mo", 107), ("Si", 100)])
def test_mlearn_shear_stress_follows_the_shear_of_the_cell(shared, element, c44):
    """A cubic crystal sheared in yz has shear stress in yz only, of the sign of the strain, and it is C44."""
    frames = kept(read_all("mlearn", shared / f"data/mlearn/{element}/training.json"))
    n_checked = 0
    for frame in frames:
        if "Elastic" not in frame.group:
            continue
        strain = frame.cell / abs(np.linalg.det(frame.cell)) ** (1 / 3)
        strain = strain + strain.T
        shear = strain[[1, 0, 0], [2, 2, 1]]
        k = int(np.argmax(np.abs(shear)))
        if abs(shear[k]) < 0.01:
            continue
        assert int(np.argmax(np.abs(frame.stress[3:]))) == k
        assert frame.stress[3 + k] / shear[k] * GPA == pytest.approx(c44, rel=0.05)
        n_checked += 1
    assert n_checked > 20


def test_mlearn_shear_is_masked_where_its_order_is_not_known(shared):
    things = read_all("mlearn", shared / "data/mlearn/Li/test.json")
    masked = [f for f in kept(things) if np.isnan(f.stress).any()]
    assert len(masked) == 3
    assert all("Surface" in f.group or "Elastic" in f.group for f in masked)
    assert all(np.isnan(f.stress).tolist() == [False] * 3 + [True] * 3 for f in masked)
    assert sum(isinstance(t, Remark) for t in things) == 3


def test_mlearn_snapshots_of_one_run_are_one_group(shared):
    groups = {f.group for f in kept(read_all("mlearn", shared / "data/mlearn/Mo/training.json"))}
    assert "Mo AIMD-NVT: AIMD NVT simulation at 300 K" in groups
    assert len(groups) < 30


def test_the_virial_of_carbon_is_the_derivative_of_its_energy(shared):
    """Graphite with the layers far apart: dE/dA by the area equals the in-plane part of the stress."""
    frames = kept(read_all("extxyz", shared / "data/carbon_GAP17_LDA/carbon_reduced_100.xyz"))
    area = np.array([np.linalg.norm(np.cross(*f.cell[:2])) for f in frames])
    energy = np.array([f.energy for f in frames])
    slope = np.polyval(np.polyder(np.polyfit(area - area.mean(), energy, 3)), area - area.mean())
    work = np.array([volume(f) * f.stress[:2].mean() for f in frames])
    gradient, _ = np.polyfit(slope * area, work, 1)
    assert gradient == pytest.approx(1.0, abs=0.05)
    assert all(f.forces is not None for f in frames)


def test_stress_in_bar_of_the_other_sign_is_the_derivative_of_the_energy(shared):
    frames = kept(
        read_all(
            "extxyz", shared / "data/ta_snap_xyz/Volume_BCC.xyz", stress_unit="bar", stress_sign="compression"
        )
    )
    assert all(f.pbc.all() for f in frames)  # 'Lattice = ' with blanks is a cell, not a 100 Å box
    frames = sorted(frames, key=volume)
    volumes, energies = np.array([volume(f) for f in frames]), np.array([f.energy for f in frames])
    derivative = np.gradient(energies, volumes)[1:-1]
    pressure = np.array([f.stress[:3].mean() for f in frames])[1:-1]
    assert np.allclose(derivative, pressure, rtol=0.05, atol=0.02)


def test_kilocalories_become_electronvolts(shared):
    frame = kept(
        read_all("extxyz", shared / "data/md17_ethanol_PBE_TS_kcal/ethanol_reduced_100.xyz", units="kcal/mol")
    )[0]
    assert frame.energy == pytest.approx(-97079.92222178938 * 0.0433641039, rel=1e-7)
    assert np.abs(frame.forces).max() < 10
    assert not frame.pbc.any()


def test_molecules_in_a_box_without_periodicity_have_no_cell(shared):
    frame = kept(read_all("extxyz", shared / "data/3bpa_wB97X/train_300K.xyz"))[0]
    assert frame.energy == pytest.approx(-17660.461737861464)
    assert not frame.cell.any()


@pytest.mark.parametrize(
    "header",
    [
        'energy=-3.5 stress="0.1 0 0 0 0.2 0 0 0 0.3"',
        'Energy=-3.5 stress="0.1 0.2 0.3 0 0 0"',
        'REF_energy=-3.5 energy=9 REF_stress="0.1 0 0 0 0.2 0 0 0 0.3" stress="9 0 0 0 9 0 0 0 9"',
        'energy=-3.4 free_energy=-3.5 virial="-6.4 0 0 0 -12.8 0 0 0 -19.2"',
        'energy=-3.5 virials="-6.4 0 0 0 -12.8 0 0 0 -19.2"',
    ],
)
def test_labels_are_found_under_their_usual_names(tmp_path, header):
    (tmp_path / "a.xyz").write_text(
        f'1\nLattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3:force:R:3 {header}\nCu 0 0 0 0.1 0.2 0.3\n'
    )
    frame = read_all("extxyz", tmp_path / "a.xyz")[0]
    assert frame.energy == -3.5
    assert np.allclose(frame.stress, [0.1, 0.2, 0.3, 0, 0, 0])
    assert np.allclose(frame.forces, [[0.1, 0.2, 0.3]])


def test_a_key_that_is_asked_for_and_absent_is_an_error_with_what_there_is(tmp_path):
    (tmp_path / "a.xyz").write_text("1\nenergy=-1\nCu 0 0 0\n")
    with pytest.raises(UserError, match=r"frame 0: no 'E_dft'; it has energy"):
        read_all("extxyz", tmp_path / "a.xyz", energy_key="E_dft")


def test_frames_before_the_break_of_a_truncated_xyz_are_given(tmp_path):
    whole = "2\nenergy=-1\nCu 0 0 0\nCu 0 0 3\n"
    (tmp_path / "a.xyz").write_text(whole * 3 + "2\nenergy=-1\nCu 0 0 0\n")
    reader = get_format("extxyz").read(tmp_path / "a.xyz", "a.xyz", _options())
    assert [next(reader).step for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match=r"a\.xyz: frame 3"):
        next(reader)


def _options():
    from lamkit.data.formats import ReadOptions

    return ReadOptions()


def test_deepmd_folders_are_read_with_dpdatas_virials(shared):
    import dpdata

    folder = shared / "data/dpgen_MAPbI3_SCAN/sys.000"
    system = dpdata.LabeledSystem(str(folder), fmt="deepmd/npy")
    frames = kept(read_all("deepmd/npy", folder))
    assert len(frames) == len(system) == 733
    for k in (0, 400, 732):
        virial = -volume(frames[k]) * from_voigt(frames[k].stress)
        assert np.allclose(virial, system["virials"][k], atol=1e-4)
        assert np.allclose(frames[k].forces, system["forces"][k])
        assert frames[k].energy == pytest.approx(float(system["energies"][k]))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("sevennet_hfo2/OUTCAR_3", "vasp/outcar"),
        ("vasp/io__vasprun.xml.gz", "vasp/xml"),
        ("mptrj/MPtrj_excerpt_EFS.json", "mptrj"),
        ("mlearn/Li/test.json", "mlearn"),
        ("mptrj/10_thin_mp_traj_systems.db", "ase/db"),
        ("gpumd_PbTe_nep/train.xyz", "extxyz"),
        ("deepmd_water", "deepmd/npy"),
    ],
)
def test_formats_are_recognised_by_their_content(shared, path, name):
    assert recognise(shared / "data" / path) is FORMATS[name]


@pytest.mark.parametrize("path", ["alexandria_lmdb/data_000.lmdb", "m3gnet_format/Li-O.json"])
def test_files_that_cannot_serve_are_refused_with_the_reason(shared, path):
    with pytest.raises(UserError, match=r"pickled|without forces"):
        recognise(shared / "data" / path)


def test_an_unknown_format_is_answered_with_what_there_is():
    with pytest.raises(UserError, match=r"Did you mean 'vasp/outcar'\?"):
        get_format("vasp/outcarr")


def test_any_format_of_dpdata_can_be_named(shared):
    frames = kept(read_all("vasp/outcar", shared / "data/sevennet_hfo2/OUTCAR_5"))
    through = kept(list(get_format("outcar").read(shared / "data/sevennet_hfo2/OUTCAR_5", "x", _options())))
    assert frames[0].energy == through[0].energy
    assert get_format("abacus/scf").title == "ABACUS"


def test_a_broken_json_says_where(tmp_path):
    (tmp_path / "a.json").write_text('{"mp-1": {"a": {"structure": ')
    with pytest.raises(UserError, match="truncated"):
        read_all("mptrj", tmp_path / "a.json")


def test_a_truncated_gzip_says_so(tmp_path):
    (tmp_path / "OUTCAR.gz").write_bytes(gzip.compress(json.dumps([1] * 9999).encode())[:50])
    with pytest.raises(UserError, match="decompressed"):
        read_all("vasp/outcar", tmp_path / "OUTCAR.gz")
