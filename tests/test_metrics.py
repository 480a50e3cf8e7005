"""Error sums: definitions, masking of missing labels, streaming."""

from __future__ import annotations

import numpy as np
import pytest

from lamkit.metrics import ErrorSums

RNG = np.random.default_rng(3)


def test_energy_errors_are_per_atom():
    sums = ErrorSums()
    sums.add([2, 4], [1.0, 2.0], [0.8, 2.8])
    result = sums.result()
    assert result["energy_mae"] == pytest.approx((0.1 + 0.2) / 2)
    assert result["energy_rmse"] == pytest.approx(np.sqrt((0.01 + 0.04) / 2))
    assert (result["n_frames"], result["n_atoms"]) == (2, 6)
    assert result["forces_mae"] is None
    assert result["stress_mae"] is None


def test_force_errors_are_over_components():
    predicted, target = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
    sums = ErrorSums()
    sums.add(5, forces_pred=predicted, forces_true=target)
    result = sums.result()
    assert result["forces_mae"] == pytest.approx(np.abs(predicted - target).mean())
    assert result["forces_rmse"] == pytest.approx(np.sqrt(((predicted - target) ** 2).mean()))
    assert result["forces_max"] == pytest.approx(np.abs(predicted - target).max())
    cosine = (predicted * target).sum(1) / np.linalg.norm(predicted, axis=1) / np.linalg.norm(target, axis=1)
    assert result["forces_cosine"] == pytest.approx(cosine.mean())


def test_errors_of_rare_labels_are_told_only_where_data_have_them():
    sums = ErrorSums()
    sums.add(2, 1.0, 0.8)
    assert not {name for name in sums.result() if name.startswith(("atom_energies", "hessian"))}
    sums.add_extra("hessian", [[1.0, 2.0, 3.0], [0.0, 0.0, 7.0]], [[1.0, 0.0, 3.0], [np.nan] * 3])
    assert sums.result()["hessian_mae"] == pytest.approx(2 / 3)
    assert sums.result()["hessian_rmse"] == pytest.approx(np.sqrt(4 / 3))
    assert "atom_energies_mae" not in sums.result()


def test_a_model_of_zero_forces_has_the_rms_of_the_targets_as_error():
    target = RNG.normal(size=(7, 3))
    sums = ErrorSums()
    sums.add(7, forces_pred=np.zeros((7, 3)), forces_true=target)
    result = sums.result()
    assert result["forces_rmse"] == pytest.approx(result["forces_rms_target"])
    assert result["forces_cosine"] == 0


def test_frame_by_frame_and_batched_sums_agree():
    counts = [3, 1, 4]
    energy, forces, stress = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 8, 3)), RNG.normal(size=(2, 3, 6))
    batched, streamed = ErrorSums(), ErrorSums()
    batched.add(counts, *energy, *forces, *stress)
    start = 0
    for i, n in enumerate(counts):
        part = ErrorSums()
        f, s = forces[:, start : start + n], stress[:, i]
        part.add(n, energy[0, i], energy[1, i], f[0], f[1], s[0], s[1])
        streamed.merge(part)
        start += n
    for name, value in batched.result().items():
        assert streamed.result()[name] == pytest.approx(value), name


def test_missing_labels_are_masked_and_never_zero():
    sums = ErrorSums()
    sums.add(
        [1, 1], [1.0, 5.0], [0.0, np.nan], [[1, 0, 0], [9, 9, 9]], [[0, 0, 0], [np.nan] * 3],
        [[1.0] * 6, [2.0] * 6], [[np.nan, 0, 0, 0, 0, np.nan], [np.nan] * 6],
    )  # fmt: skip
    sums.add(1, 3.0, None, [[1, 1, 1]], None, [1.0] * 6, None)
    result = sums.result()
    assert result["energy_mae"] == 1.0
    assert result["forces_mae"] == pytest.approx(1 / 3)
    assert result["stress_mae"] == 1.0
    assert result["n_frames"] == 3
    assert result["forces_max"] == 1.0


def test_fwt_counts_structures_with_every_component_within_the_threshold():
    target = np.zeros((4, 3))
    predicted = target.copy()
    predicted[3, 2] = 0.031  # one bad component spoils the second structure
    predicted[:3] += 0.029
    sums = ErrorSums()
    sums.add([2, 2], forces_pred=predicted, forces_true=target)
    assert sums.result()["fwt_0.03"] == 0.5


def test_a_prediction_that_is_not_finite_shows_in_the_result():
    sums = ErrorSums()
    sums.add(1, np.nan, 1.0, [[np.nan, 0, 0]], [[0.0, 1, 0]])
    result = sums.result()
    assert np.isnan(result["energy_mae"])
    assert np.isnan(result["forces_mae"])
    assert np.isnan(result["forces_max"])
    assert result["fwt_0.03"] == 0.0


def test_a_wrong_shape_is_refused_with_the_numbers():
    with pytest.raises(ValueError, match=r"\(3, 2\), must have shape \(3, 3\)"):
        ErrorSums().add(3, forces_pred=np.zeros((3, 2)), forces_true=np.zeros((3, 3)))


def test_orbs_force_errors_are_averaged_structure_by_structure():
    counts, target = [1, 3], RNG.normal(size=(4, 3))
    predicted = target + np.array([[0.3], [0.1], [0.1], [0.1]])
    sums = ErrorSums()
    sums.add(counts, [1.0, 2.0], [0.5, 4.0], predicted, target, energy_reference=[0.4, 1.0])
    found = sums.orb()
    assert found["forces_mae_raw"] == pytest.approx((0.3 + 0.1) / 2)
    assert found["energy_mae_raw"] == pytest.approx((0.5 + 2.0) / 2)  # per structure, not per atom
    assert found["energy_reference_mae"] == pytest.approx((0.1 + 3.0 / 3) / 2)
    assert "stress_mae_raw" not in found
    assert set(sums.orb(conservative=True)) - set(found) == {
        f"grad-{name}" for name in found if name.startswith("forces")
    }
    assert sums.orb_legacy()["node_mae_raw"] == found["forces_mae_raw"]


def test_orbs_buckets_go_by_the_size_of_the_target_and_count_zero_where_empty():
    target = np.array([[0.05, 0, 0], [0.5, 0, 0], [3.0, 0, 0], [0.5, 0, 0]])
    sums = ErrorSums()
    sums.add([3, 1], forces_pred=target + 0.2, forces_true=target)
    found = {
        name.removeprefix("forces_mae_raw_bucket_"): v for name, v in sums.orb().items() if "bucket" in name
    }
    assert found == pytest.approx({"-inf-0.10": 0.1, "0.10-1.00": 0.2, "1.00-inf": 0.1})


def test_confidence_is_right_where_the_likeliest_class_holds_the_error():
    bins = np.array([0.0, 0.1, 0.2, 0.3])
    errors = np.array([0.05, 0.15, 0.25, 0.35])  # the last is beyond all classes
    confidence = np.eye(3)[[0, 0, 2, 2]]
    target = np.zeros((4, 3))
    sums = ErrorSums()
    sums.add_confidence(confidence, bins, target + errors[:, None], target)
    sums.add_rotation(np.array([np.eye(3), np.zeros((3, 3))]))
    assert sums.orb()["confidence_accuracy"] == 0.5
    assert sums.orb()["equigrad_loss"] == pytest.approx(np.sqrt(3) / 2)
