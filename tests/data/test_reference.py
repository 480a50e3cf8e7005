import numpy as np
import pytest
from frames import frames

from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.label_sums import label_sums
from lamkit.data.reference import fit_dataset_reference, fit_reference
from lamkit.errors import UserError

MICRO_EV = 1e-6
Z = np.array([1, 6, 8])
ALL_ELECTRON = np.array([-13.587222, -1029.499301, -2041.839620])


def compositions(n=200, seed=0):
    return np.random.default_rng(seed).integers(1, 20, (n, 3))


def test_all_electron_energies_keep_their_micro_electronvolts():
    counts = compositions()
    fit = fit_reference(counts, Z, counts @ ALL_ELECTRON)
    assert np.abs(fit.reference[Z] - ALL_ELECTRON).max() < MICRO_EV
    assert fit.residual_std < MICRO_EV
    assert (fit.rank, fit.n_elements, fit.null_space) == (3, 3, [])


def test_nearly_equal_compositions_still_give_exact_energies():
    counts = np.array([[1000, 500, 1], [1000, 501, 1], [1001, 500, 1], [1000, 500, 3]])
    fit = fit_reference(counts, Z, counts @ ALL_ELECTRON)
    assert np.abs(fit.reference[Z] - ALL_ELECTRON).max() < 1e-3


def test_water_alone_cannot_tell_hydrogen_from_oxygen():
    counts = np.array([[128, 64], [64, 32]])
    fit = fit_reference(counts, [1, 8], counts @ np.array([-13.6, -440.0]))
    assert fit.null_space == ["only H2O: H and O cannot be told apart"]
    assert fit.rank == 1
    assert fit.reference[1] == pytest.approx(fit.reference[8])
    assert counts @ fit.reference[[1, 8]] == pytest.approx(counts @ np.array([-13.6, -440.0]))


def test_the_prior_decides_what_the_data_leave_open():
    counts = np.array([[2, 1], [4, 2]])
    prior = np.full(119, np.nan)
    prior[[1, 8, 26]] = [-13.0, -430.0, -8.0]
    truth = counts @ np.array([-13.6, -440.0])
    fit = fit_reference(counts, [1, 8], truth, prior)
    assert counts @ fit.reference[[1, 8]] == pytest.approx(truth)
    assert abs(fit.reference[8] + 430) < 20
    assert abs(fit.reference[1] + 13) < 20
    assert fit.reference[26] == -8.0  # never seen: the prior stays


def test_a_fixed_part_of_varied_compositions_is_found():
    counts = compositions()
    counts[:, 2] = 2 * counts[:, 1]
    assert fit_reference(counts, Z, counts @ ALL_ELECTRON).null_space == [
        "always CO2: C and O cannot be told apart"
    ]


def test_frames_without_an_energy_are_left_out_of_the_fit():
    counts = compositions()
    energies = counts @ ALL_ELECTRON
    energies[::3] = np.nan
    fit = fit_reference(counts, Z, energies)
    assert np.abs(fit.reference[Z] - ALL_ELECTRON).max() < MICRO_EV
    with pytest.raises(UserError, match="no frame has an energy"):
        fit_reference(counts, Z, np.full(len(counts), np.nan))


def test_a_data_set_gives_the_same_fit_as_its_arrays(tmp_path):
    dataset = write_dataset(frames(20) + frames(10, n_atoms=7), tmp_path / "d")
    counts, numbers = dataset.compositions()
    a, b = fit_dataset_reference(dataset), fit_reference(counts, numbers, dataset.energies)
    assert np.allclose(a.reference, b.reference)
    part = dataset.subset(np.arange(5, 25))
    c = fit_reference(counts[5:25], numbers, dataset.energies[5:25])
    assert np.allclose(fit_dataset_reference(part).reference, c.reference)


def test_statistics_are_those_of_all_labels(tmp_path):
    given = frames(6) + frames(3, n_atoms=7, stress=None)
    dataset = write_dataset(given, tmp_path / "d")
    found = label_sums(dataset).statistics(np.zeros(119))
    per_atom = np.array([f.energy / len(f) for f in given])
    assert found.energy_mean == pytest.approx(per_atom.mean())
    assert found.energy_std == pytest.approx(per_atom.std())
    assert found.forces_rms == pytest.approx(
        np.sqrt(np.concatenate([f.forces.ravel() for f in given]).var()), 0.1
    )
    stresses = np.concatenate([f.stress for f in given if f.stress is not None])
    assert found.stress_rms == pytest.approx(np.sqrt((stresses**2).mean()))
    assert found.n_frames == 9


def test_3bpa_like_energies_leave_a_spread_of_milli_electronvolts(shared):
    dataset = open_dataset(shared / "data/deepmd_water")
    fit = fit_dataset_reference(dataset)
    assert abs(fit.residual_mean) < MICRO_EV
    assert 1e-3 < fit.residual_std < 1e-2
