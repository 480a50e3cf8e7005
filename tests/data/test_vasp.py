"""Every VASP file at hand: what is kept, what is dropped and why, and labels against the raw text."""

import gzip
import itertools
import re
from collections import defaultdict

import numpy as np
import pytest
from frames import kept, read_all

from lamkit.data.formats import Dropped, Remark, recognise
from lamkit.data.frame import Frame, from_voigt, volume
from lamkit.data.quality import examine, rejected, theory
from lamkit.errors import UserError

KBAR = 1602.1766208  # kbar in one eV/Å³
SCF = "did not converge"
XML_SCF = "vasprun.xml does not say whether the last one converged"
ICHARG = "not self-consistent (ICHARG = 11)"
ML = "labels of a machine-learned force field"
CUT = "file ends in the middle of an ionic step"

# file: frames kept, their labels (E energy, F forces, S stress), {reason: steps dropped}
EXPECTED = {
    "27998_vasprun.xml": (1, "EF", {}),
    "6362_OUTCAR": (2, "EFS", {CUT: [2]}),
    "OUTCAR.Al": (1, "EFS", {}),
    "OUTCAR.CL.gz": (79, "EFS", {}),
    "OUTCAR.Ge.vdw": (1, "EFS", {}),
    "OUTCAR.NiO_SOC.gz": (1, "EFS", {}),
    "OUTCAR.ch4.1step": (0, "", {SCF: [0]}),
    "OUTCAR.ch4.ml": (4, "EFS", {ML: list(range(10))}),
    "OUTCAR.ch4.unconverged": (1, "EFS", {SCF: [0, 1]}),
    "OUTCAR.electrostaticerror.gz": (16, "EF", {"ionic step without a cell": [11, 12, 16], CUT: [19]}),
    "OUTCAR.etest1.gz": (8, "EFS", {}),
    "OUTCAR.h2o.md.10": (10, "EFS", {}),
    "OUTCAR.vasp.6.2.0.gz": (4, "EFS", {}),
    "Ti-O-Ti-v6__OUTCAR": (1, "EFS", {}),
    "Ti-O-Ti-v6__vasprun.xml": (1, "EFS", {}),
    "Ti-aimd-nwrite0__OUTCAR": (2, "EFS", {"ionic step without forces": list(range(1, 9))}),
    "Ti-aimd-nwrite0__vasprun.xml": (10, "EFS", {}),
    "born_effective_charge__OUTCAR": (1, "EFS", {}),
    "born_effective_charge__vasprun.xml": (1, "EFS", {}),
    "dpgen_Li_pstress700__OUTCAR": (10, "EFS", {}),
    "dpgen_post_fp_task0__OUTCAR": (1, "EFS", {}),
    "elec-unconverged__OUTCAR": (0, "", {SCF: [0]}),
    "elec-unconverged__vasprun.xml": (0, "", {SCF: [0]}),
    "fe_monomer__OUTCAR": (0, "", {"energy above +100 eV/atom": [0]}),
    "fe_monomer__vasprun.xml.gz": (0, "", {"energy above +100 eV/atom": [0]}),
    "gpumd_diamond_relax__OUTCAR": (3, "EFS", {}),
    "io__OUTCAR.gz": (3, "EFS", {}),
    "io__vasprun.xml.gz": (3, "EFS", {}),
    "ionic-relax-magmom-carry-on_calc-000__OUTCAR": (4, "EFS", {SCF: [0]}),
    "ionic-relax-magmom-carry-on_calc-000__vasprun.xml": (3, "EFS", {XML_SCF: [0, 3]}),
    "isif1__OUTCAR": (1, "EF", {}),
    "isif1__vasprun.xml": (1, "EF", {}),
    "large_sigma__OUTCAR_fail_sigma_check.gz": (3, "EFS", {}),
    "npt_common__OUTCAR": (10, "EFS", {}),
    "npt_nvt__OUTCAR": (10, "EF", {}),
    "outcar.longit__OUTCAR": (1, "EFS", {}),
    "relax-not-converged__vasprun.xml": (19, "EFS", {}),  # its ions did not come to rest; each step is good
    "relax-truncated__vasprun.xml": (18, "EFS", {CUT: [18]}),
    "scan_relaxation__OUTCAR": (1, "EFS", {}),
    "scan_relaxation__vasprun.xml.gz": (1, "EFS", {}),
    "test_bands_wc__OUTCAR": (0, "", {ICHARG: [0]}),
    "test_bands_wc__vasprun.xml": (0, "", {ICHARG: [0]}),
    "vasprun.Ge.vdw.xml": (1, "EFS", {}),
    "vasprun.bad.xml.gz": (1, "EFS", {}),
    "vasprun.charged.xml.gz": (5, "EFS", {}),
    "vasprun.etest1.xml.gz": (8, "EFS", {}),
    "vasprun.h2o.md.10.xml": (10, "EFS", {}),
    "vasprun.h2o.md.conv.xml": (2, "EFS", {SCF: [0]}),
    "vasprun.h2o.md.duplicate.xml": (3, "EFS", {}),
    "vasprun.h2o.md.novirial.xml": (3, "EF", {}),
    "vasprun.h2o.md.tribox.xml": (3, "EFS", {}),
    "vasprun.hse06.xml.gz": (0, "", {SCF: [0]}),
    "vasprun.magmom_ldau.xml.gz": (3, "EFS", {}),
    "vasprun.md.xml.gz": (10, "EFS", {}),
    "vasprun.ml_md.xml.gz": (20, "EF", {ML: list(range(80))}),
    "vasprun.r2scan.xml.gz": (1, "EFS", {}),
    "vasprun.rscan.xml.gz": (1, "EFS", {}),
    "vasprun.sc_overflow.xml.gz": (28, "EFS", {"did not fit its column": [0]}),
    "vasprun.scan.xml.gz": (1, "EFS", {}),
    "vasprun.unconverged.xml.gz": (0, "", {SCF: [0, 1, 2, 3, 4]}),
    "vasprun.uniform.xml.gz": (0, "", {ICHARG: [0]}),
    "vasprun.xe.xml.gz": (7, "EFS", {}),
}
REFUSED = {
    "neb__vasprun.xml": r"XML is broken \(mismatched tag: line 536.*use the OUTCAR of each image",
    "unfinished__OUTCAR": "no finished ionic step",
    "unfinished__vasprun.xml": r"no finished ionic step in it: it is cut off \(no element found: line 680",
    "vasprun.BSE.xml.gz": r"not a ground-state run \(ALGO = BSE\)",
    "vasprun.GW0.xml.gz": r"not a ground-state run \(ALGO = GW0\)",
    "vasprun.wrong_sp.xml.gz": "'Z' is no element of the periodic table, and its pseudopotential",
}


def text_of(path):
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode(errors="replace")


def judged(path):
    """Frames that are kept, and {reason: steps} of the others."""
    frames, dropped = [], defaultdict(list)
    for thing in read_all(recognise(path).name, path):
        if isinstance(thing, Dropped):
            dropped[thing.reason].append(thing.step)
        elif isinstance(thing, Frame):
            frame, findings = examine(thing)
            reason = rejected(findings)
            if reason is None:
                frames.append(frame)
            else:
                dropped[reason].append(frame.step)
    return frames, dropped


def flags(path):
    """Flags and remarks of all frames of a file."""
    things = read_all(recognise(path).name, path)
    said = {t.text for t in things if isinstance(t, Remark)}
    return said | {f.reason for t in kept(things) for f in examine(t)[1] if f.action != "reject"}


def test_the_table_names_every_file_there_is(shared):
    assert {p.name for p in (shared / "data/vasp").iterdir()} == EXPECTED.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_every_frame_is_kept_or_dropped_for_the_right_reason(shared, name):
    n_kept, labels, reasons = EXPECTED[name]
    frames, dropped = judged(shared / "data/vasp" / name)
    assert len(frames) == n_kept
    assert len(dropped) == len(reasons), dropped
    for words, steps in reasons.items():
        assert [s for reason, s in dropped.items() if words in reason] == [steps]
    for frame in frames:
        letters = zip("EFS", (frame.energy, frame.forces, frame.stress), strict=True)
        assert "".join(letter for letter, value in letters if value is not None) == labels


@pytest.mark.parametrize("name", REFUSED)
def test_files_without_a_frame_are_refused_with_the_reason(shared, name):
    path = shared / "data/vasp" / name
    with pytest.raises(UserError, match=rf"(?s){re.escape(name)}.*{REFUSED[name]}"):
        read_all(recognise(path).name, path)


@pytest.mark.parametrize("name", [n for n, (k, _, _) in EXPECTED.items() if k and "OUTCAR" in n])
def test_labels_of_an_outcar_are_the_numbers_in_its_text(shared, name):
    """Energies by step; forces and stress by what no rotation changes, where each step has a table."""
    text = text_of(shared / "data/vasp" / name)
    energies = re.findall(r"free  energy   TOTEN  =\s+(-?\d+\.\d+) eV", text)
    tables = re.findall(r"TOTAL-FORCE \(eV/Angst\)(?! \(ML\)).*?\n -+\n(.*?)\n -+\n", text, re.S)
    kilobar = re.findall(r"(?<!ML )FORCE on cell =-STRESS.*?in kB((?:\s*-?\d+\.\d{5}){6})", text, re.S)
    for frame in judged(shared / "data/vasp" / name)[0]:
        assert frame.energy == float(energies[frame.step])
        if len(tables) == len(energies):
            rows = np.array([[float(x) for x in row.split()[:6]] for row in tables[frame.step].split("\n")])
            assert len(rows) == len(frame)
            norms = np.linalg.norm(rows[:, 3:], axis=1)
            assert np.allclose(np.linalg.norm(frame.forces, axis=1), norms, atol=1e-9)
        if len(kilobar) == len(energies) and frame.stress is not None:
            six = np.array([float(x) for x in re.findall(r"-?\d+\.\d{5}", kilobar[frame.step])])
            assert frame.stress[:3].sum() == pytest.approx(-six[:3].sum() / KBAR, rel=1e-9, abs=1e-9)
            square = (six[:3] ** 2).sum() + 2 * (six[3:] ** 2).sum()
            assert (from_voigt(frame.stress) ** 2).sum() == pytest.approx(square / KBAR**2, rel=1e-7)


@pytest.mark.parametrize("name", [n for n, (k, _, _) in EXPECTED.items() if k and "vasprun" in n])
def test_labels_of_a_vasprun_are_the_numbers_in_its_text(shared, name):
    parts = text_of(shared / "data/vasp" / name).split("<calculation>")[1:]
    for frame in judged(shared / "data/vasp" / name)[0]:
        after = re.sub(r"(?s)<scstep>.*?</scstep>", "", parts[frame.step].split("</calculation>")[0])
        assert frame.energy == float(re.findall(r'"e_fr_energy">\s*(-?\d+\.\d+)', after)[-1])
        blocks = {
            n: _numbers(rows) for n, rows in re.findall(r'(?s)<varray name="(\w+)" >(.*?)</varray>', after)
        }
        norms = np.linalg.norm(blocks["forces"], axis=1)
        assert np.allclose(np.linalg.norm(frame.forces, axis=1), norms, atol=1e-9)
        assert volume(frame) == pytest.approx(abs(np.linalg.det(blocks["basis"])), rel=1e-9)
        if frame.stress is not None:
            assert frame.stress[:3].sum() == pytest.approx(
                -np.trace(blocks["stress"]) / KBAR, rel=1e-9, abs=1e-8
            )


def _numbers(rows):
    return np.array([[float(x) for x in row.split()] for row in re.findall(r"<v>(.*?)</v>", rows)])


@pytest.mark.parametrize(
    ("outcar", "xml"),
    [
        ("OUTCAR.h2o.md.10", "vasprun.h2o.md.10.xml"),
        ("OUTCAR.Ge.vdw", "vasprun.Ge.vdw.xml"),
        ("OUTCAR.etest1.gz", "vasprun.etest1.xml.gz"),
        *(
            (f"{run}__OUTCAR{gz}", f"{run}__vasprun.xml{gz or more}")
            for run, gz, more in (
                ("Ti-aimd-nwrite0", "", ""),
                ("Ti-O-Ti-v6", "", ""),
                ("ionic-relax-magmom-carry-on_calc-000", "", ""),
                ("elec-unconverged", "", ""),
                ("born_effective_charge", "", ""),
                ("test_bands_wc", "", ""),
                ("isif1", "", ""),
                ("fe_monomer", "", ".gz"),
                ("scan_relaxation", "", ".gz"),
                ("io", ".gz", ""),
            )
        ),
    ],
)
def test_both_files_of_a_run_give_the_same_labels_to_print_precision(shared, outcar, xml):
    """Decimals: energy 8 in both; forces 6 and 8; stress 5 and 8 (kB); positions 5 (Å) and 8 (fractional)."""
    one, two = (
        {f.step: f for f in kept(read_all(fmt, shared / "data/vasp" / name))}
        for fmt, name in (("vasp/outcar", outcar), ("vasp/xml", xml))
    )
    assert one.keys() <= two.keys()
    for step, a in one.items():
        b = two[step]
        assert a.energy == b.energy
        assert np.array_equal(a.numbers, b.numbers)
        assert np.allclose(a.forces, b.forces, atol=6e-7, rtol=0)
        assert np.allclose(a.stress * KBAR, b.stress * KBAR, atol=1e-5, rtol=0)
        assert np.allclose(a.positions, b.positions, atol=9e-6, rtol=0)
        assert np.allclose(a.cell, b.cell, atol=1e-8, rtol=0)
        for name in ("functional", "hubbard_u", "dispersion", "icharg", "isif", "charge"):
            assert a.info.get(name) == b.info.get(name)


def test_convergence_is_looked_up_in_the_outcar_beside(shared, tmp_path):
    """Trap C4: of two steps with NELM electronic steps, VASP 6 says in OUTCAR that one converged."""
    run = "ionic-relax-magmom-carry-on_calc-000"
    for name in ("OUTCAR", "vasprun.xml"):
        (tmp_path / name).write_bytes((shared / f"data/vasp/{run}__{name}").read_bytes())
    frames, dropped = judged(tmp_path / "vasprun.xml")
    assert [f.step for f in frames] == [1, 2, 3, 4]
    assert list(dropped.values()) == [[0]]


def test_what_is_odd_but_kept_is_said(shared):
    folder = shared / "data/vasp"
    for name, words in {
        "27998_vasprun.xml": "some atoms were held fixed; their raw DFT forces are kept",
        "6362_OUTCAR": "run did not come to its end",
        "gpumd_diamond_relax__OUTCAR": "run did not come to its end",
        "OUTCAR.CL.gz": "core-level run",
        "vasprun.charged.xml.gz": "cell with a charge of -1",
        "isif1__OUTCAR": "with ISIF = 1 only the pressure is computed",
        "npt_nvt__OUTCAR": "no stress; masked in the loss",
        "OUTCAR.electrostaticerror.gz": "two runs wrote into this file",
        "outcar.longit__OUTCAR": "atoms per type cut off in the file",
        "vasprun.scan.xml.gz": "does not say whether it ran, OUTCAR does",
    }.items():
        assert any(words in text for text in flags(folder / name)), name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("27998_vasprun.xml", {"functional": "RPBE"}),
        ("born_effective_charge__OUTCAR", {"functional": "PBEsol"}),
        ("OUTCAR.ch4.ml", {"functional": "PW91"}),
        ("OUTCAR.etest1.gz", {"functional": "vdW-DF"}),
        ("OUTCAR.NiO_SOC.gz", {"functional": "PBE", "hubbard_u": "Ni 5"}),
        ("vasprun.magmom_ldau.xml.gz", {"functional": "PBE", "hubbard_u": "Fe 5.3"}),
        ("gpumd_diamond_relax__OUTCAR", {"functional": "PBE", "dispersion": "MBD"}),
        ("vasprun.bad.xml.gz", {"functional": "HSE06"}),
        ("scan_relaxation__OUTCAR", {"functional": "r2SCAN", "code": "VASP 6.1.1"}),
        ("vasprun.rscan.xml.gz", {"functional": "rSCAN"}),
        ("../sevennet_hfo2/OUTCAR_1", {"functional": "SCAN", "code": "VASP 6.3.2"}),
        ("../sevennet_hfo2/OUTCAR_9", {"functional": "SCAN", "code": "VASP 5.4.4"}),
    ],
)
def test_the_level_of_theory_is_what_ran(shared, name, expected):
    path = shared / "data/vasp" / name
    found = theory(kept(read_all(recognise(path).name, path))[0])
    assert {k: v for k, v in found.items() if k in expected or k != "code"} == expected


def test_counts_that_vasp_cuts_off_are_found_again(shared):
    """Trap D11: the title of the POSCAR confirms those that it still shows."""
    frame = kept(read_all("vasp/outcar", shared / "data/vasp/outcar.longit__OUTCAR"))[0]
    from collections import Counter

    from lamkit.data.frame import SYMBOLS

    counts = Counter(SYMBOLS[z] for z in frame.numbers)
    title = {"Cr": 3, "Mn": 5, "Fe": 3, "Co": 1, "Ni": 4, "Cu": 4, "Zn": 2, "Y": 5, "Zr": 4, "Nb": 5}
    assert counts == title | {"Mo": 2, "Rh": 1, "Pd": 1, "W": 3, "Ir": 3, "Pt": 2}


def test_labels_of_the_machine_learned_force_field_can_be_asked_for(shared):
    """Trap A4: with their stress; of the ten, the two before it was trained are empty."""
    from lamkit.data.quality import Checks, Rules

    frames = kept(read_all("vasp/outcar", shared / "data/vasp/OUTCAR.ch4.ml"))
    rules = Rules(checks=Checks(machine_learned="off"))
    reasons = [rejected(examine(f, rules)[1]) for f in frames]
    assert len(frames) == 14
    assert sorted(filter(None, reasons)) == ["energy and all forces are zero"] * 2
    assert all(f.stress is not None for f in frames)


def _small_outcar(lattice="10.0 0.0 0.0\n 0.0 10.0 0.0\n 0.0 0.0 10.0", stress="1.0 2.0 3.0 0.1 0.2 0.3"):
    """Text of one ionic step of H2 in the grammar of VASP 5."""
    return (
        " vasp.5.4.4.18Apr17\n TITEL  = PAW_PBE H 15Jun2001\n   LEXCH  = PE\n NELM   =     60;\n"
        "   ions per type =   2\n--- Iteration      1(   5)  ---\n"
        "  FORCE on cell =-STRESS in cart. coord.  units (eV):\n" + "\n" * 13 + f"  in kB  {stress}\n"
        " VOLUME and BASIS-vectors are now :\n ---\n  volume of cell :  1000.0\n"
        f"      direct lattice vectors    reciprocal lattice vectors\n {lattice}\n"
        " POSITION         TOTAL-FORCE (eV/Angst)\n ----\n"
        "  5.00000 5.00000 5.00000   0.000000 0.000000 -1.500000\n"
        "  5.00000 5.00000 5.80000   0.000000 0.000000 1.500000\n ----\n"
        "  free  energy   TOTEN  =        -6.50000000 eV\n General timing\n"
    )


def _one(tmp_path, text):
    (tmp_path / "OUTCAR").write_text(text)
    return read_all("vasp/outcar", tmp_path / "OUTCAR")


def test_a_left_handed_cell_keeps_the_sign_of_its_stress(tmp_path):
    """dpdata stops at such a cell; all vectors turned round span the same lattice."""
    right = kept(_one(tmp_path, _small_outcar()))[0]
    left = kept(_one(tmp_path, _small_outcar("0.0 10.0 0.0\n 10.0 0.0 0.0\n 0.0 0.0 10.0")))[0]
    assert right.stress[0] == pytest.approx(-1.0 / KBAR)
    assert np.linalg.det(left.cell) > 0
    assert left.stress[:3].sum() == pytest.approx(right.stress[:3].sum())
    assert np.linalg.norm(left.forces) == pytest.approx(np.linalg.norm(right.forces))


@pytest.mark.parametrize(
    ("version", "words", "n", "reason"),
    [
        ("5.4.4", "aborting loop because EDIFF is reached", 60, "NELM reached"),  # trap C5: it says so anyway
        ("6.3.0", "aborting loop because EDIFF is reached", 60, None),
        ("6.3.0", "aborting loop EDIFF was not reached (unconverged)", 60, "NELM reached"),
        ("6.3.0", "aborting loop EDIFF was not reached (unconverged)", 30, "stopped before"),
        ("5.4.4", "hard stop encountered!  aborting job ...", 30, "stopped before"),
        ("5.4.4", "", 59, None),
    ],
)
def test_convergence_follows_the_rule_of_the_version(tmp_path, version, words, n, reason):
    text = _small_outcar().replace("vasp.5.4.4", f"vasp.{version}")
    text = text.replace(
        "Iteration      1(   5)  ---\n", f"Iteration      1({n:4d})  ---\n----- {words} -----\n"
    )
    said = rejected(examine(kept(_one(tmp_path, text))[0])[1])
    assert said is None if reason is None else reason in said


def test_numbers_that_ran_together_are_parted(tmp_path):
    """Trap D6, with a positive number after a negative one too."""
    frame = kept(
        _one(tmp_path, _small_outcar(stress="-12353.08821-12353.0882162213.36307 0.00000 0.00000 0.00000"))
    )[0]
    assert frame.stress[:3] * KBAR == pytest.approx([12353.08821, 12353.08821, -62213.36307], rel=1e-8)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("-1.500000\n", "*********\n", "did not fit its column"),
        ("5.00000 5.80000", "5.0x000 5.80000", "cannot be read"),
        ("TOTEN  =        -6.50000000", "TOTEN  =  ****************", "did not fit its column"),
        (" VOLUME and BASIS-vectors are now", " VOLUME", "without a cell"),
        ("0.0 0.0 10.0", "0.0 10.0 0.0", "cell without volume"),
    ],
)
def test_a_damaged_step_costs_itself_and_no_other(tmp_path, old, new, reason):
    good = _small_outcar()
    head, body = good.split("--- Iteration", 1)
    body = "--- Iteration" + body.replace(" General timing\n", "")
    assert old in body
    things = _one(tmp_path, head + body + body.replace(old, new) + body)
    assert [f.step for f in kept(things)] == [0, 2]
    assert [(reason in t.reason, t.step) for t in things if isinstance(t, Dropped)] == [(True, 1)]


def test_pseudo_atoms_are_refused(tmp_path):
    with pytest.raises(UserError, match="names no element"):
        _one(tmp_path, _small_outcar().replace("PAW_PBE H 15Jun2001", "PAW_PBE Qq 15Jun2001"))


def test_a_meta_gga_that_vasp_5_does_not_know_did_not_run(shared, tmp_path):
    """Trap A6: the energy is then that of PBE."""
    text = text_of(shared / "data/vasp/vasprun.r2scan.xml.gz").replace(">6.1.1", ">5.4.4")
    (tmp_path / "vasprun.xml").write_text(text)
    frame = kept(read_all("vasp/xml", tmp_path / "vasprun.xml"))[0]
    assert frame.info["functional"] == "PBE"
    assert "METAGGA = R2SCAN was asked for and did not run" in examine(frame)[1][0].reason


def test_a_long_run_is_read_in_pieces(tmp_path, monkeypatch):
    """The batches in which dpdata reads change nothing, neither values nor order."""
    from lamkit.data.formats.vasp import reader

    head, body = _small_outcar().split("--- Iteration", 1)
    steps = [("--- Iteration" + body).replace("-6.50000000", f"-6.{k:08d}") for k in range(7)]
    monkeypatch.setattr(reader, "BATCH_ATOMS", 4)
    frames = kept(_one(tmp_path, head + "".join(steps)))
    assert [f.energy for f in frames] == [float(f"-6.{k:08d}") for k in range(7)]
    assert [b.step - a.step for a, b in itertools.pairwise(frames)] == [1] * 6
