"""Force errors by element and by size add up to the whole."""

import numpy as np
import pytest

from lamkit.breakdown import Breakdown
from lamkit.data.frame import make_frame
from lamkit.metrics import ErrorSums
from lamkit.report.dp_test import DpErrors, block

RNG = np.random.default_rng(5)


def frame_of(numbers, scale=1.0):
    forces = scale * RNG.normal(size=(len(numbers), 3))
    return make_frame(
        numbers,
        RNG.normal(size=(len(numbers), 3)),
        4 * np.eye(3),
        energy=3.0,
        forces=forces,
        stress=RNG.normal(size=6),
    )


def test_elements_and_classes_add_up_to_the_whole():
    parts, whole = Breakdown(), ErrorSums()
    for numbers, scale in (([1, 8, 8], 0.05), ([8, 13], 5.0)):
        frame = frame_of(numbers, scale)
        predicted = frame.forces + RNG.normal(size=frame.forces.shape)
        parts.add(frame, {"forces": predicted})
        whole.add(len(frame), forces_pred=predicted, forces_true=frame.forces)
    for rows in (list(parts.by_element().values()), parts.by_force()):
        n = np.array([r["n_atoms"] for r in rows])
        assert n.sum() == 5
        assert (n @ [r["forces_mae"] for r in rows]) / 5 == pytest.approx(whole.result()["forces_mae"])
        squares = n @ [r["forces_rmse"] ** 2 for r in rows] / 5
        assert np.sqrt(squares) == pytest.approx(whole.result()["forces_rmse"])
    assert list(parts.by_element()) == ["H", "O", "Al"]
    assert parts.by_element()["O"]["n_atoms"] == 3


def test_a_force_on_an_edge_belongs_to_the_class_above():
    frame = make_frame([1], np.zeros((1, 3)), forces=[[0.1, 0, 0]])
    parts = Breakdown()
    parts.add(frame, {"forces": np.zeros((1, 3))})
    [row] = parts.by_force()
    assert (row["from"], row["to"]) == (0.1, 0.3)
    assert row["forces_cosine"] == 0
    frame = make_frame([1], np.zeros((1, 3)), forces=[[np.nan, 0, 0]])
    parts.add(frame, {"forces": np.zeros((1, 3))})
    assert len(parts.by_force()) == 1


def test_errors_are_printed_as_dp_test_prints_them():
    frame = frame_of([1, 8])
    errors = DpErrors()
    errors.add(frame, {"energy": 3.5, "forces": frame.forces - 0.25, "stress": frame.stress + 0.01})
    lines = block({"data/a": errors}).splitlines()
    assert lines[1:12] == [
        "# testing system : data/a",
        "# number of test data : 1 ",
        "Energy MAE         : 5.000000e-01 eV",
        "Energy RMSE        : 5.000000e-01 eV",
        "Energy MAE/Natoms  : 2.500000e-01 eV",
        "Energy RMSE/Natoms : 2.500000e-01 eV",
        "Force  MAE         : 2.500000e-01 eV/Å",
        "Force  RMSE        : 2.500000e-01 eV/Å",
        "Virial MAE         : 6.400000e-01 eV",  # 64 Å³ times 0.01 eV/Å³
        "Virial RMSE        : 6.400000e-01 eV",
        "Virial MAE/Natoms  : 3.200000e-01 eV",
    ]
    assert lines[13:15] == [
        "Stress MAE         : 1.000000e-02 eV/Å³",
        "Stress RMSE        : 1.000000e-02 eV/Å³",
    ]
    assert lines.count("# ----------weighted average of errors----------- ") == 1


def test_the_average_over_systems_is_weighted_by_what_they_hold():
    small, large, both = DpErrors(), DpErrors(), DpErrors()
    for errors, n, shift in ((small, 1, 1.0), (large, 3, 2.0)):
        for _ in range(n):
            frame = frame_of([1])
            errors.add(frame, {"energy": frame.energy + shift, "forces": frame.forces})
        both.merge(errors)
    assert both.result()["mae_e"] == pytest.approx((1 + 3 * 2) / 4)
    assert both.result()["rmse_e"] == pytest.approx(np.sqrt((1 + 3 * 4) / 4))
    assert both.n_frames == 4
