from dataclasses import replace

import numpy as np
import pytest
from frames import frames, random_frame

from lamkit.data.frame import make_frame
from lamkit.data.quality import Duplicates, first_fault

GOOD = random_frame(0)


def test_a_sound_frame_passes():
    assert all(first_fault(f) is None for f in frames(5))


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
        ({"positions": np.array([[0.0], [0.05], [3], [5]]) * np.ones(3)}, "closer than"),
        ({"cell": np.ones((3, 3))}, "less than"),
        ({"stress": np.full(6, 3e5)}, "wrong unit"),
        ({"energy": 711.3 * 4}, "energy above"),
    ],
)
def test_what_cannot_be_right_is_named(change, reason):
    assert reason in first_fault(replace(GOOD, **change))


def test_masked_stress_and_left_handed_cells_are_right():
    assert first_fault(replace(GOOD, stress=np.array([0.1, 0, 0, np.nan, 0, 0]))) is None
    assert first_fault(replace(GOOD, cell=GOOD.cell[[1, 0, 2]])) is None


def test_an_atom_too_close_to_its_own_image_is_seen():
    assert "closer" in first_fault(
        make_frame([22], [[0, 0, 0]], np.diag([0.8, 3, 3]), energy=-7, forces=[[0, 0, 1]])
    )


def test_a_frame_that_comes_again_is_a_duplicate():
    seen = Duplicates()
    assert [seen(f) for f in frames(3)] == [False] * 3
    assert seen(replace(GOOD, positions=GOOD.positions + 1e-12))
    assert not seen(replace(GOOD, energy=GOOD.energy + 0.01))
