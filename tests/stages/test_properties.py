"""Pair distributions, displacements and guards, on matter of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from pairs import Pairs

from lamkit.data.frame import Frame, from_atoms, make_frame
from lamkit.data.selection import Limits
from lamkit.stages import deviation, distill_tables, guards, properties, student
from lamkit.stages.dynamics import Dynamics
from lamkit.stages.engine import FrameList, engine_of


def gas(n_frames: int, seed: int, n_atoms: int = 60, side: float = 14.0) -> list[Frame]:
    """Atoms at random places: every g(r) is 1."""
    rng = np.random.default_rng(seed)
    cell, numbers = side * np.eye(3), np.array([1] * (n_atoms // 2) + [8] * (n_atoms // 2))
    return [
        make_frame(numbers, rng.uniform(0, side, (n_atoms, 3)), cell, [True] * 3) for _ in range(n_frames)
    ]


def random_walk(n_frames: int, seed: int, step: float) -> list[Frame]:
    rng = np.random.default_rng(seed)
    paths = np.cumsum(rng.normal(scale=step, size=(n_frames, 50, 3)), axis=0)
    return [make_frame([3] * 50, p, 20 * np.eye(3), [True] * 3) for p in paths]


def test_pair_distribution_of_an_ideal_gas_is_one():
    curves = properties.pair_distributions([gas(40, 0), gas(40, 1)], 5.0)
    assert set(curves) == {"H-H", "H-O", "O-O"}
    for pair, curve in curves.items():
        far = curve.x > 2.0
        exact = 1.0 if pair == "H-O" else 29 / 30  # an atom is not its own neighbour
        assert curve.mean[far].mean() == pytest.approx(exact, abs=0.02)
        assert np.abs(curve.mean[far] - exact).max() < 6 * curve.error[far].max()


def test_first_shell_of_a_crystal_holds_twelve_neighbours():
    frame = from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True) * 3)
    curve = properties.pair_distributions([[frame] * 10], 3.0)["Cu-Cu"]
    density = len(frame) / np.linalg.det(frame.cell)
    inner, outer = curve.x - 0.5 * properties.BIN, curve.x + 0.5 * properties.BIN
    assert (curve.mean * density * 4 / 3 * np.pi * (outer**3 - inner**3)).sum() == pytest.approx(12)


def test_random_walkers_diffuse_as_einstein_says():
    curve = properties.displacements([random_walk(400, s, 0.1) for s in range(3)], interval=0.5)["Li"]
    assert curve.x[0] == 0.5
    exact = 3 * 0.1**2 * (curve.x / 0.5) * (1 - 1 / 50)  # of 50 atoms the centre of mass takes one's share
    np.testing.assert_allclose(curve.mean, exact, rtol=0.1)
    coefficient, error = properties.diffusion(curve)
    assert coefficient == pytest.approx(0.1**2 / (2 * 0.5), rel=0.15)
    assert 0 < error < 0.2 * coefficient


def test_samples_of_the_same_agree_and_of_another_do_not():
    same = [properties.displacements([random_walk(200, s + k, 0.1) for k in range(4)], 1.0) for s in (0, 10)]
    other = properties.displacements([random_walk(200, k, 0.13) for k in range(4)], 1.0)
    assert properties.worst(*same)["Li"] < 2.5 < properties.worst(same[0], other)["Li"]
    flat = properties.Curve(np.arange(3.0), np.ones(3), np.zeros(3))
    assert properties.deviation(flat, flat) == 0.0


def run(calculator, folder, seed, temperature=300.0):
    start = from_atoms(bulk("Cu", cubic=True) * 2)
    wanted = guards.Guards(steps=200, save_every=4)
    dynamics = guards.dynamics_for(wanted, Dynamics(timestep=4.0, friction=0.05))
    rows = guards.run_md(
        engine_of(calculator), [start, start], [temperature], dynamics, folder, seed=seed, together=1
    )
    return rows, start, dynamics, wanted


def test_a_student_that_is_the_teacher_passes_the_guards_and_another_metal_does_not(tmp_path):
    run(EMT(), tmp_path / "teacher", 1)
    rows, start, dynamics, wanted = run(EMT(), tmp_path / "same", 2)
    found = guards.compare(tmp_path / "teacher", tmp_path / "same", rows, start, dynamics, wanted)
    assert found["stable"]
    assert found["agree"]
    assert found["passed"]
    assert found["picoseconds"] == pytest.approx(0.8)
    rows, *_ = run(Pairs(), tmp_path / "other", 3)
    found = guards.compare(tmp_path / "teacher", tmp_path / "other", rows, start, dynamics, wanted)
    assert found["stable"]
    assert not found["agree"]
    assert not found["passed"]


def test_a_student_that_explodes_is_not_stable(tmp_path):
    class Exploding(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = 30.0 * self.results["forces"] + 40.0 * np.sign(self.results["forces"])

    run(EMT(), tmp_path / "teacher", 1)
    rows, start, dynamics, wanted = run(Exploding(), tmp_path / "student", 2)
    found = guards.compare(tmp_path / "teacher", tmp_path / "student", rows, start, dynamics, wanted)
    assert not found["stable"]
    assert not found["passed"]
    assert found["stopped"]


def test_nothing_passes_where_the_teachers_own_md_broke_off(tmp_path):
    class Failing(EMT):
        n = 0

        def calculate(self, *args, **kwargs):
            Failing.n += 1
            if Failing.n % 60 == 0:
                raise RuntimeError("no licence")
            super().calculate(*args, **kwargs)

    run(Failing(), tmp_path / "teacher", 1)
    rows, start, dynamics, wanted = run(EMT(), tmp_path / "student", 2)
    found = guards.compare(tmp_path / "teacher", tmp_path / "student", rows, start, dynamics, wanted)
    assert found["stable"]
    assert found["agree"] is None
    assert not found["passed"]
    assert "NOTHING TO COMPARE" in distill_tables.guards(found)


def test_guards_that_are_too_short_to_compare_are_refused():
    assert guards.Guards(steps=0).steps == 0
    with pytest.raises(ValueError, match=r"leave 8 frames .* 10 are needed"):
        guards.Guards(steps=50, save_every=5)


@pytest.mark.parametrize("n_groups", [1, 4])
def test_the_interval_of_the_force_error_resamples_trajectories_or_blocks_of_the_only_one(n_groups):
    class Student:
        def predict(self, structures):
            return [{"energy": 0.0, "forces": np.full((len(a), 3), a.positions[0, 0])} for a in structures]

    def interval(errors):
        frames = []
        for i, error in enumerate(errors):
            atoms = bulk("Cu", cubic=True)
            atoms.positions[0, 0] = error
            group = str(i * n_groups // len(errors))
            frames.append(from_atoms(atoms, energy=0.0, forces=np.zeros((4, 3)), group=group))
        found = student.errors(Student().predict, FrameList(frames))
        assert found["forces_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
        low, high = found["forces_rmse_interval"]
        assert low <= found["forces_rmse"] <= high
        return high - low

    slow = np.repeat([0.1, 0.2, 0.3, 0.4], 10)  # frames that follow each other are alike
    mixed = np.tile([0.1, 0.2, 0.3, 0.4], 10)
    assert interval(slow) > 3 * interval(mixed)


def test_the_largest_of_many_deviations_may_be_larger_than_a_single_one():
    rng, tolerance = np.random.default_rng(0), 2.0
    assert guards.allowed(tolerance, 1) == pytest.approx(tolerance)
    alone = (np.abs(rng.normal(size=20_000)) > tolerance).mean()
    largest = np.abs(rng.normal(size=(20_000, 27))).max(axis=1)
    assert (largest > guards.allowed(tolerance, 27)).mean() == pytest.approx(alone, abs=0.01)
    assert (largest > tolerance).mean() > 0.6


def test_frames_on_which_student_and_teacher_disagree_most_are_kept():
    class Student:
        def predict(self, structures):
            return [{"forces": np.full((len(a), 3), a.positions[0, 0])} for a in structures]

    frames = []
    for off in (0.1, 0.4, 0.2, 0.05, 0.3):
        atoms = bulk("Cu", cubic=True)
        atoms.positions[0, 0] = off  # the student's error, too
        frames.append(from_atoms(atoms, energy=0.0, forces=np.zeros((4, 3))))
    insane = from_atoms(bulk("Cu", cubic=True), energy=0.0, forces=np.full((4, 3), 99.0))
    source = FrameList([*frames, insane])
    deviations = deviation.force_deviations(Student(), source)
    np.testing.assert_allclose(deviations[:5], [0.1, 0.4, 0.2, 0.05, 0.3])
    kept = deviation.choose(deviations, source, 2, Limits(), 0.15)
    assert kept["indices"] == [1, 4]
    assert kept["insane"] == 1
    assert kept["accurate"] == pytest.approx(2 / 5)
    assert kept["deviation_max"] == pytest.approx(0.4)
