"""The public weights themselves, where the user has them: LAMKIT_ORB_FILES names the folder.

Energies are those of the upstream project's own regression tests, in single precision.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule

from lamkit.cli import main
from lamkit.train import checkpoint

ENERGY = 2e-3  # eV; upstream states four digits and its own machines differ in the last
VALUES = {
    "orb-v2": 25_213_610,
    "orb-d3-v2": 25_213_610,
    "orb-mptraj-only-v2": 25_213_610,
    "orb-d3-sm-v2": 17_328_800,
    "orb-d3-xs-v2": 9_443_990,
    "orb-v3-direct": 25_644_552,
    "orb-v3-conservative": 25_510_652,
    "orb-v3-direct-omol": 25_906_300,
    "orb-v3-conservative-omol": 25_839_740,
    "separate-d3-3layer": 17_244_676,
    "separate-d4-3layer": 17_244_676,
    "separate-d3-5layer": 25_644_552,
    "separate-d4-5layer": 25_644_552,
}
# Energies (eV) of four copper atoms at a = 3.58 Å, the same rattled; and the mean of the diagonal stress (eV/Å³).
COPPER = {
    "orb-v2-20241011": (-16.3510, -11.975013, -0.0341),
    "orb-v3-direct-inf-omat-20250404": (-14.9910, -10.578044, -0.0254),
    "orb-v3-conservative-inf-omat-20250404": (-14.9525, -10.517223, -0.02533),
}


@pytest.fixture(scope="module")
def folder() -> Path:
    named = os.environ.get("LAMKIT_ORB_FILES")
    if not named:
        pytest.skip("the public weight files are not here: LAMKIT_ORB_FILES names no folder")
    return Path(named)


def imported(folder: Path, name: str, out: Path):
    path = folder / f"{name}.ckpt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    assert main(["import", str(path), "--out", str(out), "-q"]) == 0
    return checkpoint.read(out)


def test_every_file_has_the_published_number_of_values(folder, tmp_path):
    from lamkit.model.public.load import load

    found = [(path, load(path)) for path in sorted(folder.glob("*.ckpt"))]
    assert found, f"no .ckpt in {folder}"
    for path, model in found:
        kind = max(
            (n for n in VALUES if model.known and model.known.name.startswith(n)), key=len, default=None
        )
        assert kind, f"{path.name} is not named as a public file"
        assert sum(a.size for a in model.arrays.values()) == VALUES[kind], path.name
        assert not model.missing
        assert not model.extra


@pytest.mark.parametrize("name", COPPER)
def test_copper_has_the_published_energy_and_stress(folder, tmp_path, name):
    from lamkit.calculator import LamCalculator

    imported(folder, name, tmp_path / "model")
    perfect = bulk("Cu", "fcc", a=3.58, cubic=True)
    rattled = perfect.copy()
    rattled.rattle(0.5, seed=42)
    first, second = LamCalculator(tmp_path / "model").predict([perfect, rattled])
    energy, energy_rattled, stress = COPPER[name]
    assert first["energy"] == pytest.approx(energy, abs=ENERGY)
    assert second["energy"] == pytest.approx(energy_rattled, abs=ENERGY)
    assert first["stress"][:3].mean() == pytest.approx(stress, abs=3e-4)


def test_a_benzene_cation_has_the_published_energy_and_force(folder, tmp_path):
    from lamkit.calculator import LamCalculator

    imported(folder, "orb-v3-conservative-omol-20250820", tmp_path / "model")
    perfect = molecule("C6H6")
    perfect.info |= {"charge": 1, "spin": 0}
    rattled = perfect.copy()
    rattled.rattle(0.5, seed=42)
    first, second = LamCalculator(tmp_path / "model").predict([perfect, rattled])
    assert first["energy"] == pytest.approx(-6316.6646, abs=ENERGY)
    np.testing.assert_allclose(first["forces"][0], [0.14257583, -0.2070809, 0.01658938], atol=1e-3)
    assert second["energy"] == pytest.approx(-6280.376465, abs=5e-3)
