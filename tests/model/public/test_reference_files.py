"""Weight files that real torch wrote, imported: the numbers of the public package, to the last digits."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest

from lamkit.cli import main
from lamkit.model.public.names import REFERENCE, lamkit_name
from lamkit.train import checkpoint

PARITY = 1e-9  # eV, eV/Å in double precision
NAMES = [
    "orb_v2_direct_L3",
    "orb_v3_direct_L3",
    "orb_v3_conservative_L3",
    "orb_v3_conservative_omol_L3",
    "orb_v2_direct_L5",
    "orb_v3_direct_L5",
    "orb_v3_conservative_L5",
]
OLD = {f"{name}.legacy_v04_names": name for name in ("orb_v2_direct_L3", "orb_v2_direct_L5")}


@pytest.fixture(scope="module")
def reference(shared):
    folder = shared / "orb_parity"
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}")
    return folder


def facts_of(reference, name) -> dict:
    return json.loads((reference / "configs.json").read_text())["models"][name]


def imported(reference, file, name, out):
    flags = ["--max-neighbors", str(facts_of(reference, name)["max_num_neighbors"])]
    flags += ["--cutoff", "6"] if "v2" in name else []
    assert main(["import", str(reference / "weights" / f"{file}.ckpt"), "--out", str(out), "-q", *flags]) == 0
    return checkpoint.read(out)


@pytest.mark.parametrize("file", [*NAMES, *OLD])
def test_every_bit_of_a_file_of_real_torch_arrives(reference, tmp_path, file):
    name = OLD.get(file, file)
    facts, expected = facts_of(reference, name), np.load(reference / "weights" / f"{name}.npz")
    found = imported(reference, file, name, tmp_path / "model")
    assert found.trunk.latent == facts["latent_dim"]
    assert found.trunk.layers == facts["num_message_passing_steps"]
    assert found.trunk.output == facts["arch"].rsplit("-", 1)[1]
    assert np.array_equal(found.references["orb"][:118], expected[REFERENCE].ravel())
    assert set(found.weights) == {lamkit_name(n, "orb") for n in expected.files if n != REFERENCE}
    for key in expected.files:
        if key != REFERENCE:
            assert np.array_equal(found.weights[lamkit_name(key, "orb")], expected[key]), key


@pytest.mark.parametrize(
    "file", [*NAMES[:4], *(pytest.param(name, marks=pytest.mark.slow) for name in [*NAMES[4:], *OLD])]
)
def test_energies_and_forces_are_those_of_the_public_package(reference, tmp_path, file):
    from lamkit.calculator import LamCalculator

    name = OLD.get(file, file)
    imported(reference, file, name, tmp_path / "model")
    # To the public code a molecule in a box is periodic in part; LAMKit asks pbc (see the parity tests).
    structures = [
        a
        for a in ase.io.read(reference / "structures.extxyz", ":")
        if a.info["name"] != "molecule_in_box_nopbc"
    ]
    found = LamCalculator(tmp_path / "model", dtype="float64").predict(structures)
    kind = "grad_forces" if "conservative" in name else "forces"
    for atoms, result in zip(structures, found, strict=True):
        expected = np.load(reference / "reference" / f"{name}__{atoms.info['name']}.npz")
        assert result["energy"] == pytest.approx(float(expected["pred/energy"][0]), rel=0, abs=PARITY)
        np.testing.assert_allclose(result["forces"], expected[f"pred/{kind}"], rtol=0, atol=PARITY)
