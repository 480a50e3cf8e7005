import math

import numpy as np

from lamkit.train.records import LearningCurve, MetricsFile


def lines(path):
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def test_lcurve_has_deepmds_columns(tmp_path):
    curve = LearningCurve(tmp_path / "lcurve.out", [("a", True), ("b", False)])
    curve.write(5, {"a": (1, 2, 3)}, {"b": (4, 5, 6)}, 1e-3)
    header = (tmp_path / "lcurve.out").read_text().splitlines()[0].split()[1:]
    assert header == [
        "step", "rmse_val_a", "rmse_trn_a", "rmse_e_val_a", "rmse_e_trn_a", "rmse_f_val_a", "rmse_f_trn_a",
        "rmse_trn_b", "rmse_e_trn_b", "rmse_f_trn_b", "lr",
    ]  # fmt: skip
    values = np.loadtxt(tmp_path / "lcurve.out")
    assert values[0] == 5
    assert math.isnan(values[2])
    np.testing.assert_allclose(values[[1, 3, 5, 7, 8, 9, 10]], [1, 2, 3, 4, 5, 6, 1e-3])


def test_terms_that_few_losses_have_get_columns_of_the_validation(tmp_path):
    extra = ["atom_energy", "hessian"]
    curve = LearningCurve(tmp_path / "lcurve.out", [("a", True), ("b", False)], extra=extra)
    curve.write(5, {"a": (1, 2, 3, 7, 8)}, {"a": (4, 5, 6), "b": (4, 5, 6)}, 1e-3)
    curve.write(6, {}, {}, 1e-3)
    header = (tmp_path / "lcurve.out").read_text().splitlines()[0].split()[1:]
    values = dict(zip(header, np.loadtxt(tmp_path / "lcurve.out").T, strict=True))
    assert (values["rmse_ae_val_a"][0], values["rmse_h_val_a"][0]) == (7, 8)
    assert (values["rmse_f_trn_b"][0], values["lr"][0]) == (6, 1e-3)
    assert np.isnan(values["rmse_h_val_a"][1])
    errors = dict.fromkeys(("energy_mae", "energy_rmse", "forces_mae", "forces_rmse", "stress_mae"), 0.001)
    metrics = MetricsFile(tmp_path / "metrics.csv", extra=extra)
    metrics.write(5, "a", "valid", {**errors, "hessian_rmse": 0.5}, 9.0)
    MetricsFile(tmp_path / "metrics.csv", extra=extra, keep_until=5)
    names, row = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    found = dict(zip(names, row, strict=True))
    assert (found["hessian_rmse_meV_A2"], found["atom_energies_rmse_meV"], found["seconds"]) == (
        "500",
        "",
        "9.0",
    )


def test_resuming_drops_the_lines_after_the_checkpoint_and_a_torn_one(tmp_path):
    path = tmp_path / "lcurve.out"
    curve = LearningCurve(path, [("a", True)])
    for step in (10, 20, 30):
        curve.write(step, {}, {}, 1e-3)
    path.write_text(path.read_text() + "   4")
    LearningCurve(path, [("a", True)], keep_until=20)
    assert [int(line.split()[0]) for line in lines(path)] == [10, 20]


def test_metrics_are_in_mev(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.csv")
    errors = {
        "energy_mae": 0.5,
        "energy_rmse": 1.0,
        "forces_mae": 0.01,
        "forces_rmse": 0.02,
        "stress_mae": None,
    }
    metrics.write(7, "a", "valid", errors, 1.0)
    metrics.write(9, "a", "valid", errors, 2.0)
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1] == "7,a,valid,500,1000,10,20,,1.0"
    MetricsFile(tmp_path / "metrics.csv", keep_until=7)
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2
