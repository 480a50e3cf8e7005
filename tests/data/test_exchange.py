"""Data sets for other programs: what dpdata, ASE and DeePMD-kit itself read of them."""

import json
import os
import subprocess
from pathlib import Path

import dpdata
import numpy as np
import pytest
from frames import frames, kept, random_frame, read_all

from lamkit.cli import main
from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.exchange import NO_LABELS, PARTLY_KNOWN, PARTLY_PERIODIC, TWO_KINDS, export
from lamkit.data.frame import from_voigt, volume
from lamkit.errors import UserError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Crystals with and without stress, with part of it, a molecule and a slab."""
    partly = np.array([0.01, 0.02, 0.03, np.nan, np.nan, np.nan])
    mixed = [
        *frames(6),
        *[random_frame(i, n_atoms=7, stress=None) for i in range(10, 13)],
        random_frame(20, stress=partly),
        random_frame(21, n_atoms=3, pbc=False, stress=None),
        random_frame(22, pbc=[True, True, False], stress=None),
        random_frame(23, n_atoms=5, energy=None, forces=None, stress=None),
    ]
    return write_dataset(mixed, tmp_path_factory.mktemp("data") / "d")


@pytest.mark.parametrize(("kind", "fmt"), [("extxyz", "extxyz"), ("ase-db", "ase/db")])
def test_what_is_exported_is_read_back_with_labels_and_groups(tmp_path, dataset, kind, fmt):
    result = export(dataset, kind, tmp_path / "out.db")
    assert result["remarks"] == {PARTLY_KNOWN: 1}
    again = kept(read_all(fmt, tmp_path / "out.db"))
    assert len(again) == len(dataset) == result["written"] == 13
    for i, frame in enumerate(again):
        first = dataset.frame(i)
        assert (frame.energy, frame.group) == (first.energy, first.group)
        assert np.array_equal(frame.numbers, first.numbers)
        assert np.allclose(frame.positions, first.positions, atol=1e-8)
        assert np.array_equal(frame.pbc, first.pbc)
        assert (frame.forces is None) == (first.forces is None)
        assert frame.forces is None or np.allclose(frame.forces, first.forces, atol=1e-8)
        whole = first.stress is not None and not np.isnan(first.stress).any()
        assert (frame.stress is not None) == whole
        assert not whole or np.allclose(frame.stress, first.stress, atol=1e-12)


def test_deepmd_folders_are_read_by_dpdata_with_the_same_labels(tmp_path, dataset):
    result = export(dataset, "deepmd", tmp_path / "out")
    assert result["remarks"] == {PARTLY_KNOWN: 1, PARTLY_PERIODIC: 1, NO_LABELS: 1, TWO_KINDS: 5}
    assert not list((tmp_path / "out").rglob("frames.npy"))
    originals = [dataset.frame(i) for i in range(len(dataset))]
    assert sum(same_labels(folder, originals) for folder in (tmp_path / "out").iterdir()) == 11


def test_a_data_set_of_lamkit_is_read_by_dpdata_as_it_stands(tmp_path):
    originals = frames(6)
    write_dataset(originals, tmp_path / "d")
    assert same_labels(tmp_path / "d", originals) == 6


def same_labels(folder, originals):
    """Number of frames that dpdata reads, each being one of ``originals``, by its energy."""
    systems = dpdata.MultiSystems().load_systems_from_file(str(folder), fmt="deepmd/npy/mixed")
    by_energy = {frame.energy: frame for frame in originals}
    n = 0
    for system in systems.systems.values():
        symbols = np.array(system["atom_names"])[system["atom_types"]]
        for k, energy in enumerate(system["energies"]):
            frame = by_energy[float(energy)]
            order = np.lexsort(system["coords"][k].T)
            own = np.lexsort(frame.positions.T)
            assert np.allclose(system["coords"][k][order], frame.positions[own])
            assert np.allclose(system["forces"][k][order], frame.forces[own])
            assert list(symbols[order]) == [dpdata.periodic_table.ELEMENTS[z - 1] for z in frame.numbers[own]]
            if "virials" in system.data:
                assert np.allclose(system["virials"][k], -volume(frame) * from_voigt(frame.stress))
            n += 1
    return n


def test_export_by_command_and_its_refusals(tmp_path, dataset, capsys):
    words = ["data", "export", str(dataset.path), "--to", "extxyz"]
    assert main(words) == 2
    assert main([*words, "--out", str(tmp_path / "a.xyz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 13
    assert main([*words, "--out", str(tmp_path / "a.xyz")]) == 2
    assert "already exists" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.xyz"]
    assert main([*words[:3], "--to", "vasp", "--out", "x"]) == 2


def test_frames_that_deepmd_cannot_take_are_no_data_set(tmp_path):
    write_dataset([random_frame(1, pbc=[True, True, False], stress=None)], tmp_path / "d")
    with pytest.raises(UserError, match="no frame to write"):
        export(open_dataset(tmp_path / "d"), "deepmd", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# What DeePMD-kit's own loader gives for each system: of LAMKit's own folders and of exported ones.
LOADER = """
import glob, json, os, sys
import numpy as np
from deepmd.utils.data import DeepmdData
rows = []
for folder in sorted(os.path.dirname(p) for p in glob.glob(sys.argv[1] + "/*/type.raw")):
    names = open(folder + "/type_map.raw").read().split()
    data = DeepmdData(folder, set_prefix="set", type_map=names, sort_atoms=False)
    data.add("energy", 1, atomic=False, must=True, high_prec=True)
    data.add("force", 3, atomic=True, must=True)
    data.add("virial", 9, atomic=False, must=False, high_prec=True)
    for i in range(int(data.nframes)):
        frame = data.get_item_torch(i)
        rows.append([float(np.ravel(frame["energy"])[0]), float(np.abs(frame["force"]).sum()),
                     float(frame["find_virial"]), float(np.trace(np.reshape(frame["virial"], (3, 3)))),
                     "".join(sorted(names[t] for t in frame["atype"])), bool(data.pbc)])
print("ROWS" + json.dumps(rows))
"""


@pytest.fixture(scope="module")
def deepmd_python():
    """Interpreter of an environment with DeePMD-kit and torch; LAMKit's own has another NumPy."""
    path = os.environ.get("LAMKIT_DEEPMD_PYTHON")
    if not path:
        pytest.skip("set LAMKIT_DEEPMD_PYTHON to a Python that has deepmd-kit[torch] (checked: 3.2.0)")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("exported", [False, True])
def test_deepmd_kit_itself_reads_the_folders(tmp_path, deepmd_python, exported):
    originals = [*frames(6), random_frame(9, n_atoms=3, pbc=False, stress=None)]
    path = write_dataset(originals, tmp_path / "d").path
    if exported:
        path = Path(export(open_dataset(path), "deepmd", tmp_path / "out")["path"])
    done = subprocess.run(
        [deepmd_python, "-c", LOADER, str(path)], capture_output=True, text=True, check=True
    )
    rows = {row[0]: row[1:] for row in json.loads(done.stdout.partition("ROWS")[2])}
    assert len(rows) == 7
    for frame in originals:
        forces, has_virial, trace, symbols, periodic = rows[frame.energy]
        assert forces == pytest.approx(np.abs(frame.forces).sum(), rel=1e-6)
        assert has_virial == (frame.stress is not None)
        assert periodic == frame.pbc.all()
        if frame.stress is not None:
            assert trace == pytest.approx(-volume(frame) * frame.stress[:3].sum(), rel=1e-6)
        assert symbols == "".join(sorted(dpdata.periodic_table.ELEMENTS[z - 1] for z in frame.numbers))


@pytest.mark.slow
def test_dp_pt_train_trains_on_the_folders(tmp_path, deepmd_python):
    path = write_dataset(frames(8), tmp_path / "d").path
    descriptor = {"type": "se_atten", "sel": 20, "rcut": 4.0, "rcut_smth": 0.5, "neuron": [2, 4], "axis_neuron": 2,
                  "attn_layer": 0}  # fmt: skip
    settings = {
        "model": {"type_map": ["H", "O", "Ti"], "descriptor": descriptor, "fitting_net": {"neuron": [4, 4]}},
        "loss": {"type": "ener", "start_pref_e": 1, "limit_pref_e": 1, "start_pref_f": 1, "limit_pref_f": 1,
                 "start_pref_v": 1, "limit_pref_v": 1},
        "learning_rate": {"type": "exp", "start_lr": 0.001, "stop_lr": 1e-5, "decay_steps": 10},
        "training": {"training_data": {"systems": str(path), "batch_size": 2}, "numb_steps": 4, "disp_freq": 1,
                     "save_freq": 4, "disp_file": "lcurve.out"},
    }  # fmt: skip
    (tmp_path / "input.json").write_text(json.dumps(settings))
    code = "from deepmd.main import main; main(['--pt', 'train', 'input.json'])"
    done = subprocess.run(
        [deepmd_python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    steps = np.loadtxt(tmp_path / "lcurve.out")
    assert len(steps) >= 4
    assert np.isfinite(steps).all()
