"""The real package beside LAMKit: its files give its numbers here, our files give our numbers there.

Runs where LAMKIT_ORB_PYTHON names a Python that has torch and orb-models 0.5.5:
    LAMKIT_ORB_PYTHON=/path/to/venv/bin/python python -m pytest -m orb_models
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from test_import_export import trained
from torch_files import small_trunk

from lamkit.cli import main
from lamkit.errors import UserError
from lamkit.model.public.infer import Untold
from lamkit.model.public.load import load
from lamkit.train import checkpoint

pytestmark = pytest.mark.orb_models
PARITY = 1e-9  # eV, eV/Å: both sides in double precision
KINDS = {"v2": 20, "direct": 120, "conservative": 20, "direct-omol": 120, "conservative-omol": 120}


@pytest.fixture(scope="module")
def python() -> str:
    named = os.environ.get("LAMKIT_ORB_PYTHON")
    if not named:
        pytest.skip("no Python with torch and orb-models: LAMKIT_ORB_PYTHON is not set")
    return named


@pytest.fixture(scope="module")
def structures(tmp_path_factory) -> Path:
    """A crystal with more than twenty neighbours, a molecule, a thin cell."""
    copper, ethanol = bulk("Cu", cubic=True) * (2, 1, 1), molecule("CH3CH2OH")
    thin = bulk("NaCl", "rocksalt", a=5.6)
    found = []
    for i, atoms in enumerate((copper, ethanol, thin)):
        atoms.rattle(0.1, seed=i)
        atoms.info |= {"charge": i - 1, "spin": i}
        found.append(atoms)
    path = tmp_path_factory.mktemp("structures") / "s.extxyz"
    ase.io.write(path, found)
    return path


def orb_side(python: str, place: Path, **job) -> None:
    path = place / "job.json"
    path.write_text(json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in job.items()}))
    script = Path(__file__).with_name("orb_side.py")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [python, str(script), str(path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def assert_equal(model: Path, structures: Path, expected: Path, head=None) -> None:
    from lamkit.calculator import LamCalculator

    right = np.load(expected)
    atoms = ase.io.read(structures, ":")
    for i, found in enumerate(LamCalculator(model, head, dtype="float64").predict(atoms)):
        scale = max(1.0, abs(found["energy"]) * 1e-3)  # of references of thousands of eV, digits are lost
        assert found["energy"] == pytest.approx(float(right[f"energy{i}"].item()), rel=0, abs=PARITY * scale)
        np.testing.assert_allclose(found["forces"], right[f"forces{i}"], rtol=0, atol=PARITY)


@pytest.fixture(scope="module", params=KINDS)
def built(request, python, structures, tmp_path_factory) -> tuple[str, Path]:
    """A small model of orb-models with random weights, saved in several ways."""
    folder = tmp_path_factory.mktemp(request.param)
    job = {"do": "build", "kind": request.param, "neighbors": KINDS[request.param], "folder": folder}
    orb_side(python, folder, **job, structures=structures, out=folder / "right.npz")
    return request.param, folder


def test_a_file_of_the_package_gives_its_energies_and_forces_here(built, structures, tmp_path):
    kind, folder = built
    flags = ["--max-neighbors", str(KINDS[kind]), *(["--cutoff", "6"] if kind == "v2" else [])]
    assert main(["import", str(folder / "ordered.ckpt"), "--out", str(tmp_path / "model"), "-q", *flags]) == 0
    assert_equal(tmp_path / "model", structures, folder / "right.npz")


@pytest.mark.parametrize(
    "way", ["ordered", "plain", "parameters", "protocol4", "double", "views", "bfloat16"]
)
def test_every_way_of_saving_is_read(built, way):
    kind, folder = built
    model = load(folder / f"{way}.ckpt", Untold(6.0, KINDS[kind]))
    expected = dict(np.load(folder / "arrays.npz"))
    assert set(model.arrays) == set(expected)
    for name, array in expected.items():
        tolerance = 4e-3 * np.abs(array) if way == "bfloat16" else 0.0
        assert (np.abs(model.arrays[name] - array) <= tolerance).all(), name


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("legacy", "torch before 1.6"),
        ("nested", "not a plain dictionary"),
        ("model", "which no file of plain weights"),
    ],
)
def test_what_is_no_plain_state_dict_is_refused(built, way, reason):
    with pytest.raises(UserError, match=reason):
        load(built[1] / f"{way}.ckpt", Untold(6.0, 20))


EXPORTED = {
    "conservative": {},
    "direct": {"output": "direct"},
    "v2": {"version": "v2"},
    "v2 with pair repulsion": {"version": "v2", "repulsion": True, "gaussians": 14},
    "v2 conservative": {"version": "v2", "output": "conservative"},
    "charge and spin": {"conditioning": True, "stress": False},
    "radial functions alone": {"lmax": 0, "bessel": 6, "confidence": False, "decoder": False},
    "direct without repulsion": {
        "output": "direct",
        "repulsion": False,
        "confidence": False,
        "stress": False,
    },
}


@pytest.mark.parametrize("case", EXPORTED)
def test_a_model_of_ours_gives_its_energies_and_forces_there(
    python, structures, tmp_path, monkeypatch, capsys, case
):
    monkeypatch.chdir(tmp_path)
    made = trained(tmp_path / "model", small_trunk(max_neighbors=20, **EXPORTED[case]))
    elements = {head: ["H", "C", "O", "Na", "Cl", "Cu"] for head in made.heads}
    checkpoint.write(tmp_path / "model", replaced(made, elements))
    capsys.readouterr()
    assert main(["export", "model", "--to", "orb", "--head", "mols", "--out", "mols.ckpt", "--json"]) == 0
    code = json.loads(capsys.readouterr().out)["load_with"].replace(
        "'mols.ckpt'", repr(str(tmp_path / "mols.ckpt"))
    )
    job = {"do": "evaluate", "code": code, "structures": structures, "out": tmp_path / "right.npz"}
    orb_side(python, tmp_path, **job)
    # What the file cannot hold is the normalisers' last digits: they are single precision there.
    assert main(["import", "mols.ckpt", "--out", "again", "-q"]) == 0
    assert_equal(tmp_path / "again", structures, tmp_path / "right.npz")


def replaced(made, elements):
    from dataclasses import replace

    return replace(made, elements=elements)
