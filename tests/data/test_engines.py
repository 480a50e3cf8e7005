"""Programs read through dpdata, CP2K and pw.x: units, signs, and what must not become a label."""

import gzip
import itertools
from pathlib import Path

import engine_outputs as outputs
import numpy as np
import pytest
from frames import kept

from lamkit.data.formats import Dropped, ReadOptions, Remark, get_format, recognise
from lamkit.data.formats.any_dpdata import names
from lamkit.data.frame import volume
from lamkit.errors import UserError
from lamkit.files import unpack

REAL = Path(__file__).parent / "outputs"


def read(path, **options):
    """Everything that the recognised reader yields."""
    return list(recognise(path).read(path, str(path), ReadOptions(**options)))


MOLECULES = {
    "gaussian/log": outputs.gaussian_log,
    "gaussian/fchk": outputs.gaussian_fchk,
    "orca/spout": outputs.orca,
    "psi4/out": outputs.psi4,
    "sqm/out": outputs.sqm,
    "dftbplus": outputs.dftbplus,
}
CRYSTALS = {
    "openmx/md": (outputs.openmx, False),
    "n2p2": (outputs.n2p2, False),
    "siesta/output": (outputs.siesta, True),
    "fhi_aims/md": (outputs.fhi_aims, False),
    "abacus/scf": (outputs.abacus, True),
    "pwmat/movement": (outputs.pwmat, True),
}


@pytest.mark.parametrize("fmt", MOLECULES)
def test_molecules_keep_their_labels_in_ev_and_angstrom(tmp_path, fmt):
    frame = outputs.molecule()
    path = MOLECULES[fmt](tmp_path, frame)
    assert recognise(path).name == fmt
    same(kept(read(path))[0], frame, stress=False)


@pytest.mark.parametrize("fmt", CRYSTALS)
def test_crystals_keep_their_labels_and_the_sign_of_the_stress(tmp_path, fmt):
    write, has_stress = CRYSTALS[fmt]
    frame = outputs.crystal()
    path = write(tmp_path, frame)
    assert recognise(path).name == fmt
    same(kept(read(path))[0], frame, stress=has_stress)


def same(frame, expected, *, stress):
    """Equal up to the digits that are printed and the values of the constants of nature."""
    order = [
        list(frame.numbers).index(z) + list(expected.numbers[:i]).count(z)
        for i, z in enumerate(expected.numbers)
    ]
    assert frame.energy == pytest.approx(expected.energy, rel=1e-7, abs=2e-4)
    assert list(frame.numbers[order]) == list(expected.numbers)
    assert np.allclose(frame.forces[order], expected.forces, atol=2e-6)
    assert np.array_equal(frame.pbc, expected.pbc)
    assert np.allclose(frame.cell, expected.cell, atol=1e-5)
    assert np.allclose(frame.positions[order], expected.positions, atol=1e-4)
    if stress:
        assert np.allclose(frame.stress, expected.stress, rtol=2e-4, atol=1e-6)
    else:
        assert frame.stress is None


def test_amber_gives_elements_and_says_that_it_is_a_force_field(tmp_path):
    frame = outputs.molecule()
    path = outputs.amber(tmp_path, frame)
    things = read(path)
    found = kept(things)[0]
    assert list(found.numbers) == [8, 1, 1]
    assert found.energy == pytest.approx(frame.energy, rel=1e-7)
    assert np.allclose(found.forces, frame.forces, atol=1e-6)
    assert any("force field" in t.text for t in things if isinstance(t, Remark))
    (tmp_path / "job.nc").unlink()
    with pytest.raises(UserError, match=r"needs job\.nc beside it"):
        read(path)


def test_every_labelled_format_of_dpdata_has_a_reader_under_its_name():
    """dpdata's own register is the list; what is read by LAMKit itself answers to the same names."""
    assert len(names()) > 40
    for name in names():
        assert get_format(name).read is not None
    for name in ("cp2k/output", "qe/pw/scf", "quip/gap/xyz", "abacus/lcao/md", "deepmd/hdf5/mixed"):
        assert name in names()


@pytest.mark.parametrize(
    ("write", "options", "words"),
    [
        (outputs.gaussian_log, {"extra": " E2 = -0.2D+00 EUMP2 = -0.76D+02\n"}, "another energy"),
        (outputs.orca, {"extra": "CARTESIAN GRADIENT\n"}, "2 gradients"),
        (outputs.orca, {"extra": "SCF NOT CONVERGED AFTER 125 CYCLES\n"}, "did not converge"),
        (outputs.dftbplus, {"mode": "S"}, "periodic"),
        (outputs.dftbplus, {"driver": "ConjugateGradient {}"}, "atoms were moved"),
    ],
)
def test_labels_that_do_not_belong_together_are_refused(tmp_path, write, options, words):
    path = write(tmp_path, outputs.molecule(), **options)
    with pytest.raises(UserError, match=words):
        read(path)


def test_a_relaxation_of_fhi_aims_is_refused(tmp_path):
    extra = "  Geometry optimization: Attempting to predict improved coordinates.\n"
    with pytest.raises(UserError, match="relaxation"):
        read(outputs.fhi_aims(tmp_path, outputs.crystal(), extra=extra))


def test_steps_that_did_not_converge_are_counted(tmp_path):
    things = read(outputs.openmx(tmp_path, outputs.crystal(), converged=(1, 0, 1)))
    assert (len(kept(things)), dropped(things)) == (2, 1)
    things = read(outputs.abacus(tmp_path, outputs.crystal(), energy=False))
    assert (len(kept(things)), dropped(things)) == (0, 1)


def dropped(things):
    return sum(t.count for t in things if isinstance(t, Dropped))


def test_several_steps_of_siesta_are_all_read(tmp_path):
    things = read(outputs.siesta(tmp_path, outputs.crystal(), steps=3))
    assert len(kept(things)) == 3
    assert np.allclose(kept(things)[2].stress, outputs.crystal().stress, atol=1e-6)


def test_the_log_of_another_run_is_not_read_twice(tmp_path):
    log = outputs.abacus(tmp_path, outputs.crystal())
    other = outputs.write(tmp_path / "OUT.old/running_scf.log", log.read_text())
    with pytest.raises(UserError, match=r"whose output is in OUT\.job"):
        read(other)
    folder = list(get_format("abacus/scf").read(tmp_path, str(tmp_path), ReadOptions()))
    assert len(kept(folder)) == 1


def test_n2p2_takes_other_units_and_frames_of_any_size(tmp_path):
    frame = outputs.crystal()
    path = outputs.n2p2(tmp_path, frame, length=1.0, energy=1.0)
    path.write_text(path.read_text() + "begin\natom 0 0 0 Si 0 0 0 0 0\nenergy -1\nend\n")
    things = kept(read(path, units="eV", length_unit="A"))
    same(things[0], frame, stress=False)
    assert len(things[1]) == 1
    path.write_text(path.read_text() + "begin\natom 0 0 zero Si 0 0 0 0 0\nend\n")
    with pytest.raises(UserError, match=r"input\.data:\d+: frame 2"):
        read(path)


def unpacked(tmp_path, name, target):
    path = tmp_path / target
    path.write_bytes(gzip.decompress((REAL / name).read_bytes()))
    return path


@pytest.mark.parametrize(("run", "n_kept", "n_dropped"), [("md", 4, 0), ("opt", 4, 0), ("unconverged", 2, 2)])
def test_cp2k_runs_are_read_step_by_step(tmp_path, run, n_kept, n_dropped):
    log = unpacked(tmp_path, f"cp2k_{run}.log.gz", "run.log")
    (tmp_path / "h2-pos-1.xyz").write_bytes((REAL / f"cp2k_{run}.pos.xyz").read_bytes())
    things = read(log)
    assert (len(kept(things)), dropped(things)) == (n_kept, n_dropped)
    frames = kept(things)
    assert all(list(f.numbers) == [1, 1] for f in frames)  # one of them is of the kind H1
    assert np.allclose(frames[0].cell, np.diag([4.0, 4.2, 4.4]))
    energies = [f.energy for f in frames]
    assert len(set(energies)) == n_kept
    assert recognise(tmp_path / "h2-pos-1.xyz") is None
    if run == "md":
        assert frames[0].energy == pytest.approx(-1.146444919629527 * 27.21138602)
        assert frames[0].stress[0] == pytest.approx(
            5.10361818935 / 160.21766208
        )  # printed as a pressure, GPa
        assert energies[0] != energies[1]


def test_forces_of_cp2k_are_the_slope_of_its_energies(tmp_path):
    """Between two steps of the MD the energy falls by the work of the mean force."""
    log = unpacked(tmp_path, "cp2k_md.log.gz", "run.log")
    (tmp_path / "h2-pos-1.xyz").write_bytes((REAL / "cp2k_md.pos.xyz").read_bytes())
    frames = kept(read(log))
    for a, b in itertools.pairwise(frames):
        work = -(0.5 * (a.forces + b.forces) * (b.positions - a.positions)).sum()
        assert b.energy - a.energy == pytest.approx(work, rel=0.2)


def test_cp2k_without_its_trajectory_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"positions are in h2-pos-1\.xyz"):
        read(unpacked(tmp_path, "cp2k_md.log.gz", "run.log"))


def test_each_step_of_a_pw_relaxation_has_its_own_labels(tmp_path):
    """dpdata would join the last energy with the first forces and positions."""
    frames = kept(read(unpacked(tmp_path, "qe_relax.out.gz", "relax.out")))
    single = kept(read(unpacked(tmp_path, "qe_scf.out.gz", "scf.out")))[0]
    assert [round(f.energy / 13.605693, 4) for f in frames] == [-1.9149, -2.0832, -2.0885]
    assert frames[0].energy == single.energy
    assert np.array_equal(frames[0].forces, single.forces)
    assert len({float(np.abs(f.forces).max()) for f in frames}) == 3
    assert single.stress[:3].mean() * 1602.1766208 == pytest.approx(
        80.34, abs=0.01
    )  # the output: P= -80.34 kbar


def test_an_unconverged_pw_run_gives_no_frame_but_a_count(tmp_path):
    things = read(unpacked(tmp_path, "qe_unconverged.out.gz", "scf.out"))
    assert (len(kept(things)), dropped(things)) == (0, 1)


def test_cp_runs_find_their_input_and_carry_stress(tmp_path):
    unpack(REAL / "qe_cp.tar.gz", tmp_path / "out")
    (tmp_path / "out/cp.in").rename(tmp_path / "cp.in")
    frames = kept(read(tmp_path / "out/h2cp.evp"))
    assert len(frames) == 4
    assert frames[0].energy == pytest.approx(0.09635308 * 27.21138602)
    assert frames[0].stress[:3].mean() * 160.21766208 == pytest.approx(
        -41.25358, abs=1e-3
    )  # the .evp: +41.25 GPa
    assert volume(frames[0]) == pytest.approx(343.0 * 0.529177210903**3)
    (tmp_path / "cp.in").unlink()
    with pytest.raises(UserError, match="needs its input"):
        read(tmp_path / "out/h2cp.evp")


def test_psi4_before_its_version_1_4_is_read(tmp_path):
    frame = kept(read(unpacked(tmp_path, "psi4.out.gz", "out.dat")))[0]
    assert frame.energy == pytest.approx(-74.9648438194782614 * 27.21138602)
    assert frame.forces[0, 0] == pytest.approx(-0.037815029619 * 51.42206707)
    assert abs(frame.forces.sum()) < 1e-6
