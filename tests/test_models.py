"""The checkpoints that come with LAMKit know the levels of theory that their heads are named after."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest

from lamkit import presets
from lamkit.cli import main

LEVELS = ("gfn2_molecules", "wb97x_molecules", "pbe_molecules")
TEST = slice(
    5, None, 20
)  # a few frames of each; wB97X and PBE have been trained on, GFN2-xTB of these runs has not


@pytest.mark.parametrize("level", LEVELS)
def test_the_base_model_predicts_molecules_without_any_training(level, tmp_path, capsys):
    sample = presets.examples() / "data" / f"{level}.extxyz"
    frames = ase.io.read(sample, TEST)
    ase.io.write(tmp_path / "few.extxyz", frames)
    zero = np.sqrt(np.mean(np.concatenate([a.get_forces().ravel() for a in frames]) ** 2))
    assert main(["data", "convert", str(tmp_path / "few.extxyz"), "--out", str(tmp_path / "few"), "-q"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "examples/base", f"--data={level}={tmp_path / 'few'}", "--json"]) == 0
    errors = json.loads(capsys.readouterr().out)[level]
    assert errors["forces_rmse"] < 0.25 * zero
    assert errors["energy_mae"] < 0.05
