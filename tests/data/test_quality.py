"""Checks of frames and data sets: what is found, with what action, and how the head's YAML sets it."""

from dataclasses import replace

import numpy as np
import pytest
from frames import frames, kept, random_frame, read_all

from lamkit import config
from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.facts import DatasetFacts
from lamkit.data.frame import from_voigt, make_frame, to_voigt, volume
from lamkit.data.heads import HeadConfig, LevelOfTheory
from lamkit.data.quality import (
    CHECKS,
    DUPLICATE,
    DUPLICATE_ELSEWHERE,
    Checks,
    Duplicates,
    Rules,
    examine,
    fingerprint,
    rejected,
    survey,
)
from lamkit.data.quality.labels import ALL_ELECTRON
from lamkit.data.quality.outliers import outlying, robust_residuals
from lamkit.data.quality.work import factors
from lamkit.errors import UserError

GOOD = random_frame(0)
GOOD = replace(GOOD, forces=GOOD.forces - GOOD.forces.mean(axis=0))


def first_fault(frame):
    """Why a frame is rejected by the default rules."""
    return rejected(examine(frame)[1])


def with_info(**info):
    return replace(GOOD, info=info)


def verdicts(frame, rules=None):
    return {f.check: (f.action, f.reason) for f in examine(frame, rules or Rules())[1]}


def test_a_sound_frame_passes():
    assert all(first_fault(f) is None for f in frames(5))
    assert verdicts(GOOD) == {}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"energy": np.nan}, "NaN or infinite energy"),
        ({"forces": GOOD.forces * np.inf}, "NaN or infinite forces"),
        ({"positions": GOOD.positions * np.nan}, "NaN or infinite positions"),
        ({"energy": None}, "no energy"),
        ({"forces": None}, "no forces"),
        ({"forces": GOOD.forces[:2]}, "forces of the wrong shape"),
        ({"numbers": np.array([0, 1, 1, 1])}, "no element"),
        ({"numbers": np.array([119, 1, 1, 1])}, "no element"),
        ({"energy": 0.0, "forces": 0 * GOOD.forces}, "energy and all forces are zero"),
        ({"positions": np.array([[0.0], [0.05], [3], [5]]) * np.ones(3)}, "closer than 0.4 of"),
        ({"cell": np.ones((3, 3))}, "less than"),
        ({"cell": np.diag([7.5, 7.5, 1e20])}, "cell larger than 100000 A"),
        ({"cell": np.array([[9e4, 0, 0], [9e4, 0.01, 0], [0, 0, 9.0]])}, "cell lower than 0.1 A"),
        ({"cell": np.diag([7.5, 7.5, 0])}, "periodic axis without a lattice vector"),
        ({"stress": np.full(6, 3e5)}, "stress above 60 eV/A^3; kB, GPa or bar?"),
        ({"energy": 711.3 * 4}, "energy above +100 eV/atom"),
        ({"forces": 1e4 * np.ones((4, 3))}, "force above 1000 eV/A"),
        ({"energy": 23.06 * float(ALL_ELECTRON[GOOD.numbers].sum())}, "is it in kcal/mol?"),
        ({"energy": 96.49 * float(ALL_ELECTRON[GOOD.numbers].sum())}, "is it in kJ/mol?"),
        ({"info": {"labels_from": "machine learning"}}, "machine-learned force field"),
        ({"info": {"icharg": 11}}, "not self-consistent (ICHARG = 11)"),
        ({"info": {"ialgo": 3}}, "not self-consistent (ALGO = Eigenval)"),
        ({"info": {"scf": "electronic steps did not converge"}}, "did not converge"),
    ],
)
def test_what_cannot_be_right_is_named(change, reason):
    assert reason in first_fault(replace(GOOD, **change))


@pytest.mark.parametrize(
    ("change", "check", "reason"),
    [
        ({"stress": np.full(6, 2.0)}, "stress", "stress above 1 eV/A^3; kB, GPa or bar?"),
        (
            {"forces": 60 * np.array([[1, 0, 0], [-1, 0, 0], [0, 0, 0], [0, 0, 0]])},
            "forces",
            "force above 50",
        ),
        ({"forces": np.ones((4, 3))}, "net_force", "net force above 0.1 eV/A per atom"),
        ({"stress": None}, "missing_stress", "no stress; masked in the loss"),
        ({"energy": 50.0 * 4}, "energy", "energy above +10 eV/atom"),
        ({"info": {"charge": 1.0}}, "charge", "cell with a charge of +1"),
        ({"info": {"fixed_atoms": 8.0}}, "fixed_atoms", "their raw DFT forces are kept"),
        ({"info": {"core_hole": 1.0}}, "core_hole", "core-level run"),
        ({"info": {"doubt": "two runs"}}, "doubt", "two runs"),
        (
            {"info": {"asked_metagga": "R2SCAN", "functional": "PBE"}},
            "functional",
            "did not run; functional is PBE",
        ),
    ],
)
def test_what_is_only_odd_is_kept_with_a_flag(change, check, reason):
    found = verdicts(replace(GOOD, **change))
    assert found[check][0] == "flag"
    assert reason in found[check][1]
    assert first_fault(replace(GOOD, **change)) is None


def test_masked_stress_and_left_handed_cells_are_right():
    assert first_fault(replace(GOOD, stress=np.array([0.1, 0, 0, np.nan, 0, 0]))) is None
    assert first_fault(replace(GOOD, cell=GOOD.cell[[1, 0, 2]])) is None


def test_the_stress_of_isif_1_is_masked_and_nothing_else():
    frame, findings = examine(with_info(isif=1))
    assert frame.stress is None
    assert np.array_equal(frame.forces, GOOD.forces)
    assert [f.action for f in findings if f.check == "isif1"] == ["mask"]
    kept_whole, _ = examine(with_info(isif=1), Rules(checks=Checks(isif1="flag")))
    assert kept_whole.stress is not None


def test_an_atom_too_close_to_its_own_image_is_seen():
    cell = np.diag([0.8, 3, 3])
    assert "closer" in first_fault(make_frame([22], [[0, 0, 0]], cell, energy=-7, forces=[[0, 0, 0]]))


LEVEL = LevelOfTheory(method="DFT", functional="PBE", hubbard_u={"Fe": 5.3, "O": 0.0})


@pytest.mark.parametrize(
    ("level", "info", "reason"),
    [
        ({}, {"functional": "PBE"}, None),
        ({"functional": "R2-SCAN"}, {"functional": "r2SCAN"}, None),
        ({}, {"functional": "SCAN"}, "functional is SCAN; the head's is PBE"),
        (
            {"functional": "r2SCAN"},
            {"functional": "PBE", "asked_metagga": "R2SCAN"},
            "as METAGGA = R2SCAN did not run",
        ),
        ({}, {"hubbard_u": "Fe 5.3"}, None),
        ({}, {"hubbard_u": "Fe 4"}, "U is Fe 4 eV; the head's is Fe 5.3 eV"),
        ({}, {"hubbard_u": ""}, "U is none; the head's is Fe 5.3 eV"),
        ({"hubbard_u": None}, {"hubbard_u": "Fe 5.3"}, "U is Fe 5.3 eV; the head's is none"),
        ({"hubbard_u": None}, {"hubbard_u": "Mn 3.9"}, None),  # no Mn in the frame
        ({"hubbard_u": "as in the Materials Project"}, {"hubbard_u": "Fe 5.3"}, None),
        ({}, {"dispersion": "D3(BJ)"}, "dispersion correction is D3(BJ); the head's is none"),
        ({"dispersion": "D3(BJ)"}, {"dispersion": ""}, "dispersion correction is none; the head's is D3(BJ)"),
        ({"dispersion": "D3(BJ)"}, {"dispersion": "D3(BJ)"}, None),
        ({}, {}, None),  # a format that does not say how it was computed
    ],
)
def test_the_level_of_theory_has_to_be_the_heads(level, info, reason):
    frame = replace(with_info(**info), numbers=np.array([26, 8, 8, 8]), energy=-30.0)
    rules = Rules(level=LEVEL.model_copy(update=level))
    found = rejected(examine(frame, rules)[1])
    assert found is None if reason is None else reason in found


def test_each_check_can_be_set_in_the_yaml_of_a_head(tmp_path):
    """A bare ``off`` is false in YAML; limits given in part keep the other default."""
    (tmp_path / "h.yaml").write_text(
        "name: h\nlevel_of_theory: {method: DFT, functional: PBE}\n"
        "checks:\n  scf: flag\n  empty: off\n  forces: {reject: 20}\n  contact: off\n"
    )
    checks = config.load(HeadConfig, tmp_path / "h.yaml").checks
    assert (checks.scf, checks.empty, checks.forces.flag, checks.forces.reject) == ("flag", "off", 50.0, 20.0)
    assert checks.contact.flag is None
    rules = Rules(checks=checks)
    empty = replace(GOOD, energy=0.0, forces=0 * GOOD.forces, stress=None)
    assert rejected(examine(empty, rules)[1]) is None
    assert verdicts(with_info(scf="no"), rules)["scf"] == ("flag", "no")
    strong = replace(GOOD, forces=np.array([[30.0, 0, 0], [-30, 0, 0], [0, 0, 0], [0, 0, 0]]))
    assert "force above 20 eV/A" in rejected(examine(strong, rules)[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  conact: off\n", "did you mean 'contact'"),
        ("  forces: {rejct: 5}\n", "did you mean 'reject'"),
        ("  scf: drop\n", "'reject', 'flag' or 'off'"),
    ],
)
def test_a_mistyped_check_is_named_with_its_line(tmp_path, text, message):
    head = "name: h\nlevel_of_theory: {method: DFT, functional: PBE}\nchecks:\n"
    (tmp_path / "h.yaml").write_text(head + text)
    with pytest.raises(UserError, match=r"h\.yaml:4") as error:
        config.load(HeadConfig, tmp_path / "h.yaml")
    assert message.lower() in str(error.value).lower()


def test_every_optional_check_can_be_switched_off():
    """With all settings off only what no array can hold is left."""
    names = Checks.model_fields
    none = Checks.model_validate(dict.fromkeys(names, "off"))
    odd = make_frame(
        [26, 26], [[0, 0, 0], [0, 0, 0.1]], 9 * np.eye(3), energy=1e4, forces=[[1e5, 0, 0], [0, 0, 0]],
        info={"scf": "no", "icharg": 12, "labels_from": "machine learning", "isif": 1, "charge": 2.0},
        stress=np.full(6, 1e4),
    )  # fmt: skip
    assert examine(odd, Rules(checks=none))[1] == []
    assert set(names) - set(CHECKS) == {"duplicate", "energy_outlier", "work", "scales"}


def test_a_frame_that_comes_again_is_a_duplicate():
    seen = Duplicates()
    assert [seen(f) for f in frames(3)] == [False] * 3
    assert seen(replace(frames(1)[0], positions=frames(1)[0].positions + 1e-12))
    assert not seen(replace(GOOD, energy=GOOD.energy + 0.01))


def test_frames_with_equal_labels_are_told_apart_by_their_structure():
    seen = Duplicates()
    same = {
        "energy": -1.0,
        "forces": np.zeros((4, 3)),
        "numbers": np.array([8, 8, 8, 8]),
        "cell": 7.5 * np.eye(3),
    }
    assert not any(seen(replace(f, **same)) for f in frames(200))
    molecules = [
        replace(f, **same | {"pbc": np.zeros(3, bool), "cell": np.zeros((3, 3))}) for f in frames(200)
    ]
    assert not any(seen(f) for f in molecules)


def test_order_origin_and_orientation_make_no_new_frame():
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    order = [2, 0, 3, 1]
    shifted = (GOOD.positions + 0.37)[order] @ turn
    twin = replace(
        GOOD,
        numbers=GOOD.numbers[order],
        positions=shifted,
        cell=GOOD.cell @ turn,
        forces=GOOD.forces[order] @ turn,
    )
    for a, b in ((GOOD, twin), tuple(replace(f, pbc=np.zeros(3, bool)) for f in (GOOD, twin))):
        seen = Duplicates()
        assert not seen.add(fingerprint(a))
        assert seen.add(fingerprint(b))


def test_one_run_given_as_outcar_and_as_vasprun_is_counted_once(shared):
    folder = shared / "data/vasp"
    seen = Duplicates()
    for name, fmt, expected in (
        ("OUTCAR.h2o.md.10", "vasp/outcar", False),
        ("vasprun.h2o.md.10.xml", "vasp/xml", True),
    ):
        assert [seen(f) for f in kept(read_all(fmt, folder / name))] == [expected] * 10


def test_duplicates_are_found_across_data_sets(tmp_path):
    data = write_dataset(frames(4), tmp_path / "d", DatasetFacts())
    seen = Duplicates()
    seen.remember(data)
    new = random_frame(99)
    reasons = [seen.reason(fingerprint(f)) for f in (frames(4)[2], new, new)]
    assert reasons == [DUPLICATE_ELSEWHERE, None, DUPLICATE]


def test_the_all_electron_energy_of_atoms_is_that_of_the_tables():
    """Hartree-Fock totals: C -37.69, O -74.81, Si -288.85, Fe -1262.4 Hartree."""
    for z, hartree in ((6, -37.69), (8, -74.81), (14, -288.85), (26, -1262.44)):
        assert ALL_ELECTRON[z] / 27.2114 == pytest.approx(hartree, rel=0.015)


def test_molecules_in_kcal_are_refused_with_the_cure(shared):
    path = shared / "data/md17_ethanol_PBE_TS_kcal/ethanol_reduced_100.xyz"
    assert "kcal/mol? (--units)" in first_fault(kept(read_all("extxyz", path))[0])
    assert first_fault(kept(read_all("extxyz", path, units="kcal/mol"))[0]) is None


def test_one_wrong_energy_among_many_stands_out():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 6, (300, 3)) + np.array([1, 0, 0])
    energies = counts @ np.array([-3.0, -7.0, -1.0]) + counts.sum(axis=1) * rng.normal(0, 0.05, 300)
    energies[[7, 100]] += counts[[7, 100]].sum(axis=1) * np.array([2.0, -30.0])
    sigma = outlying(
        robust_residuals(
            lambda: [(slice(0, 150), counts[:150]), (slice(150, 300), counts[150:])], energies, 3
        )
    )
    assert np.flatnonzero(sigma > 10).tolist() == [7, 100]


def _crystal(scale, shift=0.0, *, k=2.0, b=0.7, seed=0):
    """Two springs with known energy, forces and stress: E = b V0 ln²(V/V0)/2 + k |u|²/2."""
    cell = 4.0 * scale * np.eye(3)
    u = np.random.default_rng(seed).normal(size=3) * shift
    strain = 3 * np.log(scale)
    pressure = b * 64.0 * strain / np.linalg.det(cell)
    forces = np.array([-k * u, k * u])
    positions = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]) @ cell + np.array([u, [0, 0, 0]])
    return make_frame(
        [14, 14], positions, cell, energy=-10 + 0.5 * k * (u @ u) + 0.5 * b * 64.0 * strain**2, forces=forces,
        stress=to_voigt(pressure * np.eye(3)), step=int(1000 * scale), group="eos",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1.0, None),
        (-1.0, "sign"),
        (1602.18, "unit is kB"),
        (-1602176.6, "sign is the other way round and the unit is bar"),
        (160.218, "unit is GPa"),
    ],
)
def test_sign_and_unit_of_the_stress_follow_from_energy_and_volume(tmp_path, factor, words):
    series = [_crystal(s) for s in np.linspace(0.97, 1.03, 13)]
    given = [replace(f, stress=f.stress * factor) for f in series]
    [found] = [f for f in factors(given) if f.kind == "stress"]
    assert found.value * factor == pytest.approx(1.0, abs=0.02)
    data = write_dataset(given, tmp_path / "d", DatasetFacts())
    reasons = [f.reason for f in survey(data) if f.check == "work"]
    assert (reasons == []) if words is None else words in reasons[0]


def test_sign_of_the_forces_follows_from_energy_and_motion(tmp_path):
    series = [replace(_crystal(1.0, 0.02 * n, seed=3), step=n) for n in range(12)]
    assert [f.kind for f in factors(series)] == ["forces"]
    assert factors(series)[0].value == pytest.approx(1.0, abs=1e-6)
    wrong = [replace(f, forces=-f.forces) for f in series]
    data = write_dataset(wrong, tmp_path / "d", DatasetFacts())
    [found] = [f for f in survey(data) if f.check == "work"]
    assert "forces contradict the energies" in found.reason
    assert "sign" in found.reason
    assert len(found.frames) == 12


def test_frames_in_no_order_prove_nothing(tmp_path):
    """Energies of unrelated frames differ at random: that speaks neither for nor against the forces."""
    rng = np.random.default_rng(5)
    series = [replace(_crystal(1.0, 0.02, seed=n), step=n) for n in range(40)]
    shuffled = [replace(f, energy=f.energy + rng.normal(0.0, 0.5)) for f in series]
    assert factors(shuffled) == []
    assert (
        factors([replace(f, positions=f.positions + rng.normal(0, 2.0, (len(f), 3))) for f in series]) == []
    )


def test_real_trajectories_obey_work_and_energy(shared):
    """Forces of an MD run, stress of a relaxation under 700 kB, each to a few percent."""
    for name, fmt, kind in (
        ("vasprun.md.xml.gz", "vasp/xml", "forces"),
        ("OUTCAR.h2o.md.10", "vasp/outcar", "forces"),
        ("npt_common__OUTCAR", "vasp/outcar", "forces"),
        ("dpgen_Li_pstress700__OUTCAR", "vasp/outcar", "stress"),
    ):
        [found] = factors(kept(read_all(fmt, shared / "data/vasp" / name)))
        assert found.kind == kind
        assert found.value == pytest.approx(1.0, abs=0.05)


def test_the_bar_of_snap_files_is_found_out(shared, tmp_path):
    """Trap A2: stress in bar, compression positive, taken for eV/Å³ by every reader."""
    path = shared / "data/ta_snap_xyz/Volume_BCC.xyz"
    wrong = kept(read_all("extxyz", path))
    [found] = [f for f in factors(wrong) if f.kind == "stress"]
    assert found.reason().endswith("the sign is the other way round and the unit is bar")
    right = kept(read_all("extxyz", path, stress_unit="bar", stress_sign="compression"))
    [found] = [f for f in factors(right) if f.kind == "stress"]
    assert found.reason() is None
    assert "stress above 60" in first_fault(wrong[0])


def test_a_survey_names_outliers_and_units(tmp_path):
    good = [replace(f, energy=-7.0 * len(f)) for f in frames(30)]
    good[4] = replace(good[4], energy=good[4].energy + 40.0)
    kilobar = [replace(f, stress=f.stress * 1602.18) for f in good]
    data = write_dataset(kilobar, tmp_path / "d", DatasetFacts())
    found = {f.check: f for f in survey(data)}
    assert "kB, GPa or bar" in found["scales"].reason
    marked = open_dataset(tmp_path / "d").frame(found["energy_outlier"].frames[0])
    assert (marked.step, len(found["energy_outlier"].frames)) == (4, 1)
    limits = Checks.model_validate({"energy_outlier": {"reject": 20}})
    assert [f.action for f in survey(data, limits) if f.check == "energy_outlier"] == ["reject"]
    assert (
        survey(data, Checks.model_validate({"energy_outlier": "off", "work": "off", "scales": "off"})) == []
    )


def test_strain_work_is_the_trace_of_stress_times_volume():
    frame = _crystal(1.01)
    assert (from_voigt(frame.stress) * np.eye(3)).sum() * volume(frame) == pytest.approx(
        3 * 0.7 * 64 * 3 * np.log(1.01)
    )
