"""Every third-party data set: its frames, units and signs, or the reason why it is refused.

Energies and stresses of the table are those printed in the files, times the factors written here (of mlearn, the ASE
database and DeePMD's arrays: as read once, where other tests check unit and sign); forces as read once.
"""

import bz2
import json

import numpy as np
import pytest
from frames import kept, read_all

from lamkit.cli import main
from lamkit.data.formats import ReadOptions, recognise
from lamkit.data.frame import SYMBOLS, from_voigt, volume

KBAR = 1602.1766208  # kbar in one eV/Å³
KCAL = 0.04336410390059322  # eV in one kcal/mol
BAR = {"stress_unit": "bar", "stress_sign": "compression"}

# path, format, options, frames, then of the first frame: energy (eV), largest force component (eV/Å), stress xx
# (eV/Å³; None where there is none), periodic axes, atoms.
SETS = [
    ("3bpa_wB97X/train_300K.xyz", "extxyz", {}, 500, -17660.461737861464, 2.666044, None, "FFF", 27),
    ("alexandria_pbe/alexandria-random-1k.xyz", "extxyz", {}, 1000, -17.52450881, 0.0, -0.0011608826, "TTT", 4),
    ("carbon_GAP17_LDA/carbon_reduced_100.xyz", "extxyz", {}, 100, -632.106478, 1.84408021, -0.59372779, "TTT", 4),
    ("deepmd_water", "deepmd/npy", {}, 320, -29943.90625, 2.978708, None, "TTT", 192),
    ("dpgen_MAPbI3_SCAN/sys.000", "deepmd/npy", {}, 733, -206.121231, 3.464883, -0.02203784, "TTT", 48),
    ("gpumd_PbTe_nep/train.xyz", "extxyz", {}, 25, -937.191, 2.199493, None, "TTT", 250),
    ("jarvis_optB88vdW/id_prop.json", "jarvis", {}, 50, -29.31309578, 0.06121232, -2.88305236 / KBAR, "TTT", 10),
    ("md17_ethanol_PBE_TS_kcal/ethanol_reduced_100.xyz", "extxyz", {"units": "kcal/mol"}, 100,
     -97079.92222178938 * KCAL, 1.765169, None, "FFF", 9),
    ("mlearn/Li/training.json", "mlearn", {}, 241, -98.304107, 0.485422, -0.00126581, "TTT", 53),
    ("mlearn/Mo/training.json", "mlearn", {}, 194, -569.561778, 1.547914, -0.0318135, "TTT", 53),
    ("mlearn/Si/training.json", "mlearn", {}, 214, None, None, None, "TTT", None),
    ("mlearn/Cu/test.json", "mlearn", {}, 31, -426.346939, 2.09602, -0.0185336, "TTT", 107),
    ("mlearn/Ni/test.json", "mlearn", {}, 31, -604.944655, 3.087314, -0.02736009, "TTT", 107),
    ("mptrj/mptrj-random-1k.xyz", "extxyz", {}, 1000, -28.75765745, 0.070525, 0.00089268, "TTT", 9),
    ("mptrj/10_thin_mp_traj_systems.db", "ase/db", {}, 11, -208.0919485, 0.082687, 0.00012106, "TTT", 30),
    ("mptrj/MPtrj_excerpt_allkeys.json", "mptrj", {}, 11, -208.0919485, 0.082687, 0.00012106, "TTT", 30),
    ("mptrj/MPtrj_excerpt_EFS.json", "mptrj", {}, 200, -28.75765745, 0.070525, 0.00089268, "TTT", 9),
    ("nopbc_MN15/C3H3O4", "deepmd/npy", {}, 485, -11319.5, 27.524733, None, "FFF", 10),
    ("sevennet_hfo2/hfo2.extxyz", "extxyz", {}, 2, -347.81221934, 0.151222, -0.04641964502, "TTT", 12),
    ("water_revPBE0-D3/high_level_water.xyz", "extxyz", {}, 10, -30011.49340274, 8.703391, None, "TTT", 192),
    ("ta_snap_xyz/Volume_BCC.xyz", "extxyz", BAR, 21, -16.763625, 0.0, 315811.75e-3 / KBAR, "TTT", 2),
    ("ta_snap_xyz/Elastic_BCC.xyz", "extxyz", BAR, 100, -23.689367, 0.00044, -4063.55e-3 / KBAR, "TTT", 2),
    ("ta_snap_xyz/Liquid.xyz", "extxyz", BAR, 3, -1105.601723, 7.499735, -41522.36e-3 / KBAR, "TTT", 100),
    ("ta_snap_xyz/GSF_110.xyz", "extxyz", BAR, 22, -279.068761, 0.861147, 2699.74e-3 / KBAR, "TTT", 24),
    ("ta_snap_xyz/Displaced_A15.xyz", "extxyz", BAR, 9, -754.220443, 1.705193, -23963.03e-3 / KBAR, "TTT", 64),
    ("ta_snap_xyz/Displaced_BCC.xyz", "extxyz", BAR, 9, -631.019667, 3.614177, -48457.11e-3 / KBAR, "TTT", 54),
]  # fmt: skip


@pytest.mark.parametrize("row", SETS, ids=[row[0] for row in SETS])
def test_a_set_is_recognised_and_its_labels_are_the_printed_ones(shared, row):
    path, fmt, options, n_frames, energy, force, stress, pbc, n_atoms = row
    assert recognise(shared / "data" / path).name == fmt
    frames = kept(read_all(fmt, shared / "data" / path, **options))
    first = frames[0]
    assert len(frames) == n_frames
    assert all(f.energy is not None and f.forces.shape == (len(f), 3) for f in frames)
    assert "".join("FT"[int(axis)] for axis in first.pbc) == pbc
    if energy is None:
        return
    assert len(first) == n_atoms
    assert first.energy == pytest.approx(energy, rel=1e-7)
    assert np.abs(first.forces).max() == pytest.approx(force, abs=2e-6)
    assert (first.stress is None) == (stress is None)
    if stress is not None:
        assert first.stress[0] == pytest.approx(stress, rel=1e-6, abs=6e-9)


REFUSED = [
    ("alexandria_lmdb", "pickled objects, which can run any code", "without forces"),
    ("m3gnet_format", "energies without forces", "pickled"),
    ("pfd_c_Si", "no energy and no forces", "pickled"),
    ("pfd_BNBZTO", "21 x a structure without labels", "pickled"),
    ("ta_snap_xyz/Volume_BCC.xyz", "--stress-unit", "pickled"),
    ("md17_ethanol_PBE_TS_kcal", "--units", "pickled"),
]


@pytest.mark.parametrize(("path", "reason", "not_said"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_set_that_cannot_serve_as_it_is_is_refused_with_the_right_reason(
    shared, tmp_path, capsys, path, reason, not_said
):
    assert main(["data", "convert", str(shared / "data" / path), "--out", str(tmp_path / "d")]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert not_said not in said
    assert not (tmp_path / "d").exists()


def test_every_folder_of_the_shared_data_is_in_one_of_the_tables(shared):
    known = {row[0].split("/")[0] for row in (*SETS, *REFUSED)} | {"vasp"}  # VASP has a table of its own
    assert {path.name for path in (shared / "data").iterdir() if path.is_dir()} == known


@pytest.mark.parametrize(("jid", "mode"), [("15608", 5), ("15608", 3), ("15609", 5)])
def test_stress_of_jarvis_over_strain_is_the_curvature_of_its_energy(shared, jid, mode):
    """The evidence for kilobar and VASP's sign: one elastic constant, from energies and from stresses.

    A cell sheared by ±γ: E = V C γ² / 2 and σ = C γ, both against the cell without strain.
    """
    frames = kept(read_all("jarvis", shared / "data/jarvis_optB88vdW/id_prop.json"))
    records = [frame for frame in frames if frame.group == jid]
    rest = min(records, key=lambda f: f.energy)
    sheared = []
    for frame in records:
        gradient = np.linalg.solve(rest.cell, frame.cell) - np.eye(3)
        strain = (gradient + gradient.T)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        if abs(strain[mode]) > 0.01 and np.abs(np.delete(strain, mode)).max() < 1e-4:
            sheared.append((strain[mode], frame.energy - rest.energy, frame.stress[mode]))
    plus, minus = sorted(sheared, reverse=True)
    from_energy = (plus[1] + minus[1]) / (volume(rest) * plus[0] ** 2)
    from_stress = (plus[2] - minus[2]) / (plus[0] - minus[0])
    assert from_stress == pytest.approx(from_energy, rel=0.03)


def test_alexandria_json_gives_the_labels_of_its_extended_xyz(shared, tmp_path):
    """The published layout with the published values: structures of pymatgen, kilobar with VASP's sign."""
    originals = kept(read_all("extxyz", shared / "data/alexandria_pbe/alexandria-random-1k.xyz"))[:20]
    content = {}
    for frame in originals:
        sites = [
            {"species": [{"element": SYMBOLS[z], "occu": 1}], "abc": list(abc)}
            for z, abc in zip(frame.numbers, np.linalg.solve(frame.cell.T, frame.positions.T).T, strict=True)
        ]
        step = {
            "structure": {"@class": "Structure", "lattice": {"matrix": frame.cell.tolist()}, "sites": sites},
            "energy": frame.energy,
            "forces": frame.forces.tolist(),
            "stress": (-KBAR * from_voigt(frame.stress)).tolist(),
        }
        content[frame.group] = [{"steps": [step, {**step, "forces": [[0.0], [1.0, 2.0]]}]}]
    path = tmp_path / "alexandria_000.json.bz2"
    path.write_bytes(bz2.compress(json.dumps(content).encode()))
    assert recognise(path).name == "alexandria"
    things = read_all("alexandria", path)
    assert len(things) == 40
    assert len(kept(things)) == 20
    for frame, first in zip(kept(things), originals, strict=True):
        assert (frame.energy, frame.group) == (first.energy, first.group)
        assert np.allclose(frame.stress, first.stress, rtol=1e-9, atol=1e-15)
        assert np.allclose(frame.positions, first.positions, atol=1e-9)


@pytest.mark.parametrize(
    ("key", "offset"),
    [("uncorrected_total_energy", 0.0), ("corrected_total_energy", -12.366), ("energy_per_atom", -12.366)],
)
def test_the_energy_of_mptrj_is_the_one_that_is_named(shared, key, offset):
    path = shared / "data/mptrj/MPtrj_excerpt_allkeys.json"
    frame = kept(read_all("mptrj", path, energy_key=key))[0]
    assert frame.energy == pytest.approx(-208.0919485 + offset, abs=5e-4)
    assert frame.info["corrected_total_energy"] == pytest.approx(-208.0919485 - 12.366, abs=5e-4)


def test_a_head_names_the_energy_and_a_flag_goes_before(shared, tmp_path, monkeypatch, capsys):
    from lamkit.data.dataset import open_dataset

    monkeypatch.chdir(tmp_path)
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads/mp_corrected.yaml").write_text(
        "name: mp_corrected\nlevel_of_theory: {method: DFT, functional: PBE}\n"
        "source: {format: mptrj, reading: {energy_key: corrected_total_energy}}\n"
    )
    words = [
        "data",
        "convert",
        str(shared / "data/mptrj/MPtrj_excerpt_allkeys.json"),
        "--head",
        "mp_corrected",
        "-q",
    ]
    assert main([*words, "--out", "a"]) == 0
    assert main([*words, "--out", "b", "--energy-key", "uncorrected_total_energy"]) == 0
    assert main([*words, "--out", "c", "--energy-key", "ef_per_atom"]) == 2
    assert "no energy to train on" in capsys.readouterr().err
    first, second = (open_dataset(tmp_path / name).energies for name in "ab")
    assert np.allclose(sorted(first - second)[0], -12.366, atol=1e-3)


def test_options_that_a_format_has_no_use_for_are_refused_as_flags_and_passed_over_from_a_head(
    shared, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heads").mkdir()
    (tmp_path / "heads/odd.yaml").write_text(
        "name: odd\nlevel_of_theory: {method: DFT, functional: PBE}\nsource: {reading: {stress_unit: bar}}\n"
    )
    path = str(shared / "data/mptrj/MPtrj_excerpt_allkeys.json")
    assert main(["data", "convert", path, "--head", "odd", "--out", "a", "-q"]) == 0
    assert main(["data", "convert", path, "--stress-unit", "bar", "--out", "b"]) == 2
    assert "leave out --stress-unit" in capsys.readouterr().err


def test_options_of_the_default_reading_are_none():
    assert ReadOptions().given == set()
    assert ReadOptions(units="eV").given == {"units"}
