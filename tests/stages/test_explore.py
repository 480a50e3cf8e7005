"""Exploration with EMT, and with calculators that misbehave on purpose."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from lamkit.data.dataset import open_dataset
from lamkit.data.frame import from_atoms
from lamkit.data.selection import Limits, closest_pair
from lamkit.errors import Interrupted, UserError
from lamkit.stages import explore, trajectory
from lamkit.stages.dynamics import Dynamics
from lamkit.stages.perturb import Perturb, perturbed
from lamkit.stages.trajectory import run_trajectory

EMT_NAME = "ase.calculators.emt:EMT"


@pytest.fixture
def starts(tmp_path) -> Path:
    path = tmp_path / "starts.xyz"
    alloy = bulk("Cu", cubic=True)
    alloy.symbols[0] = "Al"
    ase.io.write(path, [bulk("Cu", cubic=True), alloy])
    return path


def options(path: Path, **more) -> explore.Options:
    given = {"starts": [str(path)], "calculator": EMT_NAME, "temperatures": [300.0, 600.0], "n_starts": 2}
    return explore.Options(**{**given, "dynamics": {"steps": 30, "save_every": 10}, **more})


class Exploding(Calculator):
    """Free flight, then after some calls a force that pushes outwards: energy without end."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, calls: int, last: float) -> None:
        super().__init__()
        self.calls, self.last, self.n = calls, last, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)) -> None:
        super().calculate(atoms, properties, system_changes)
        self.n += 1
        scale = 0.0 if self.n < self.calls else self.last
        self.results = {"energy": 0.0, "forces": scale * (self.atoms.positions - self.atoms.positions[0])}


def cluster() -> Atoms:
    return Atoms("Cu4", positions=2.5 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]))


def test_md_visits_new_structures_and_labels_them(starts, tmp_path):
    result = explore.run(options(starts, perturb={"n": 2}), tmp_path / "out")
    data = open_dataset(result["data"])
    assert len(data) == result["n_frames"] == 2 * 2 * 3 + 2 * 2
    assert result["n_trajectories"] == 4
    names = {data.group_names[g] for g in data.groups}
    assert {n for n in names if n.startswith("md")} == {
        f"md-{i:03d}-{t}K" for i in (0, 1) for t in (300, 600)
    }
    assert np.isfinite(data.energies).sum() == 12  # perturbed copies come without labels
    places = {data.frame(i).positions.round(9).tobytes() for i in range(len(data))}
    assert len(places) == len(data)


def test_frames_keep_what_was_true_when_they_were_taken():
    found = run_trajectory(bulk("Cu", cubic=True), EMT(), Dynamics(steps=30), temperature=600, seed=0).frames
    for frame in found:
        atoms = Atoms(numbers=frame.numbers, positions=frame.positions, cell=frame.cell, pbc=True)
        atoms.calc = EMT()
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-10)
        assert frame.energy == pytest.approx(atoms.get_potential_energy(force_consistent=True))


def test_same_seed_same_trajectory():
    runs = [
        run_trajectory(bulk("Cu", cubic=True), EMT(), Dynamics(steps=20), temperature=300, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert (runs[0].frames[-1].positions == runs[1].frames[-1].positions).all()
    assert (runs[0].frames[-1].positions != runs[2].frames[-1].positions).any()


@pytest.mark.parametrize(
    ("last", "reason"), [(1e5, "force of"), (np.nan, "not finite"), (2.0, "temperature")]
)
def test_exploding_trajectory_is_stopped_and_its_kept_part_is_sane(last, reason):
    dynamics = Dynamics(steps=400, save_every=5, timestep=2.0)
    result = run_trajectory(cluster(), Exploding(30, last), dynamics, temperature=100, seed=0)
    assert reason in result.stopped
    assert 0 < len(result.frames) <= result.steps // 5
    for frame in result.frames:
        assert np.isfinite(frame.positions).all()
        assert np.linalg.norm(frame.forces, axis=1).max() < dynamics.limits.max_force
    assert result.steps < 400


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("no more"), "no more"),
        (RuntimeError("SCF did not converge"), "RuntimeError: SCF did not converge"),
        (OSError("disk is full"), "OSError: disk is full"),
        (ValueError(), "ValueError: no reason given"),
    ],
)
def test_calculator_that_fails_on_the_way_ends_the_trajectory_only(error, words):
    class Failing(EMT):
        n = 0

        def calculate(self, *args, **kwargs):
            Failing.n += 1
            if Failing.n > 12:
                raise error
            super().calculate(*args, **kwargs)

    result = run_trajectory(
        bulk("Cu", cubic=True), Failing(), Dynamics(steps=50, save_every=5), temperature=300, seed=0
    )
    assert result.stopped == f"calculator failed: {words}"
    assert len(result.frames) == 2


@pytest.mark.parametrize(
    "error", [UserError("Fe: not trained on"), NotImplementedError("No potential for Fe")]
)
def test_a_start_that_the_calculator_refuses_is_an_error(error):
    class Refusing(EMT):
        def calculate(self, *args, **kwargs):
            raise error

    with pytest.raises(UserError, match=r"for Fe|Fe: not"):
        run_trajectory(bulk("Cu"), Refusing(), Dynamics(), temperature=300, seed=0)


def test_resume_does_not_redo_finished_trajectories(starts, tmp_path, monkeypatch):
    whole = explore.run(options(starts), tmp_path / "whole")
    done = []
    original = explore.new_trajectory

    def stops_in_the_third(*args, **kwargs):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(kwargs["labels"]["group"])
        return original(*args, **kwargs)

    monkeypatch.setattr(explore, "new_trajectory", stops_in_the_third)
    with pytest.raises(Interrupted, match="--resume"):
        explore.run(options(starts), tmp_path / "out")
    redone = []
    monkeypatch.setattr(
        explore, "new_trajectory", lambda *a, **k: redone.append(k["labels"]["group"]) or original(*a, **k)
    )
    result = explore.run(options(starts, resume=True), tmp_path / "out")
    assert len(done) == len(redone) == 2
    assert not set(done) & set(redone)
    ours, theirs = open_dataset(result["data"]), open_dataset(whole["data"])
    for i in range(len(theirs)):
        assert (ours.frame(i).positions == theirs.frame(i).positions).all()
    again = explore.run(options(starts, resume=True), tmp_path / "out")
    assert again == result
    assert len(redone) == 2


def test_a_trajectory_that_was_stopped_under_way_goes_on(starts, tmp_path, monkeypatch):
    monkeypatch.setattr(trajectory, "SAVE_SECONDS", 0.0)
    given = {"n_starts": 1, "temperatures": [[300.0, 900.0]]}
    whole = explore.run(options(starts, **given), tmp_path / "whole")
    advance, steps = trajectory.lockstep.advance_all, []

    def stops_at_step_17(walks, engine):
        if len(steps) == 17:
            raise KeyboardInterrupt
        steps.append(walks[0].step)
        advance(walks, engine)

    monkeypatch.setattr(trajectory.lockstep, "advance_all", stops_at_step_17)
    with pytest.raises(Interrupted):
        explore.run(options(starts, **given), tmp_path / "out")
    steps.clear()
    monkeypatch.setattr(
        trajectory.lockstep, "advance_all", lambda w, e: steps.append(w[0].step) or advance(w, e)
    )
    result = explore.run(options(starts, resume=True, **given), tmp_path / "out")
    assert steps == list(range(17, 30))
    ours, theirs = open_dataset(result["data"]), open_dataset(whole["data"])
    assert len(ours) == len(theirs) == 3
    for i in range(3):  # EMT's own neighbour list remembers where it was made: the last bits differ
        np.testing.assert_allclose(ours.frame(i).positions, theirs.frame(i).positions, rtol=0, atol=1e-9)


def test_a_schedule_goes_through_its_temperatures():
    dynamics = Dynamics(steps=101, save_every=25, friction=1.0)
    found = run_trajectory(bulk("Cu", cubic=True), EMT(), dynamics, temperature=[300, 900, 500], seed=0)
    assert [f.info["temperature"] for f in found.frames] == pytest.approx([588, 888, 708, 508])


def test_pressures_compress_and_need_a_barostat(starts, tmp_path):
    npt = {"ensemble": "npt", "steps": 60, "save_every": 20, "barostat_time": 100.0, "timestep": 2.0}
    given = {"n_starts": 1, "temperatures": [300.0], "min_atoms": 8}
    result = explore.run(
        options(starts, dynamics=npt, pressures=[0.0, [0.0, 40.0]], **given), tmp_path / "out"
    )
    data = open_dataset(result["data"])
    frames = [data.frame(i) for i in range(len(data))]
    last = {f.group: abs(np.linalg.det(f.cell)) for f in frames if f.step == 60}
    assert last["md-000-300K-0-40GPa"] < 0.99 * last["md-000-300K-0GPa"]
    with pytest.raises(UserError, match="need dynamics"):
        explore.run(options(starts, pressures=[1.0], **given), tmp_path / "nvt")


def test_copies_have_all_atoms_displaced_and_the_cell_strained_as_much_as_asked():
    start = from_atoms(bulk("Cu", cubic=True) * 3)
    found = perturbed([start], Perturb(n=20, rattle=0.05, strain=0.04), 0, Limits())
    assert len(found) == 20
    moved, strains = [], []
    for frame in found:
        strain = np.linalg.solve(start.cell, frame.cell) - np.eye(3)
        strains.append(strain)
        moved.append(frame.positions - start.positions @ (np.eye(3) + strain))
    np.testing.assert_allclose(strains, np.swapaxes(strains, 1, 2), atol=1e-12)
    assert 0.03 < np.abs(strains).max() <= 0.04
    assert np.std(moved) == pytest.approx(0.05, rel=0.05)
    assert np.abs(moved).max(axis=(0, 2)).min() > 0.05


def test_squeezed_pairs_and_dimers_reach_short_distances():
    start = from_atoms(bulk("Cu", cubic=True) * 2)
    limits = Limits(min_distance=0.6)
    found = perturbed([start], Perturb(squeezed=4, dimers=5, closest=0.65), 0, limits)
    squeezed, pairs = found[:4], found[4:]
    for frame in squeezed:
        moved = np.abs(frame.positions - start.positions).max(axis=1) > 1e-9
        assert moved.sum() == 2
        assert 0.65 <= closest_pair(frame)[0] < 1.0
    assert len(pairs) == 5
    assert closest_pair(pairs[0])[0] == pytest.approx(0.65)
    assert not pairs[0].pbc.any()


def test_another_run_is_never_overwritten_or_continued(starts, tmp_path):
    explore.run(options(starts), tmp_path / "out")
    with pytest.raises(UserError, match="--resume"):
        explore.run(options(starts), tmp_path / "out")
    with pytest.raises(UserError, match=r"other options \(seed\)"):
        explore.run(options(starts, seed=5, resume=True), tmp_path / "out")


def test_small_cells_are_repeated(starts, tmp_path):
    result = explore.run(options(starts, min_atoms=8, n_starts=1, temperatures=[300]), tmp_path / "out")
    assert open_dataset(result["data"]).n_atoms.tolist() == [8, 8, 8]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calculator": None}, "give either"),
        ({"calculator": "emt"}, "expected MODULE:FUNCTION"),
        ({"calculator": "no_such_module:EMT"}, "cannot be imported"),
        ({"calculator": "ase.calculators.emt:EMTT"}, "Did you mean 'EMT'"),
        ({"calculator": "math:sqrt"}, "called without arguments"),
        ({"calculator": "time:time"}, "not an ASE calculator"),
        ({"starts": ["nowhere.xyz"]}, "nowhere.xyz: no such file"),
    ],
)
def test_wrong_options_are_explained(starts, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        explore.run(options(starts, **changes), tmp_path / "out")


def test_a_file_that_is_no_structure_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("nothing here")
    with pytest.raises(UserError, match=r"notes\.txt"):
        explore.run(options(path), tmp_path / "out")


def test_a_run_without_a_single_sane_frame_says_why(starts, tmp_path):
    tight = {"steps": 30, "limits": {"max_force": 1e-6}}
    with pytest.raises(UserError, match="no trajectory left a sane frame"):
        explore.run(options(starts, dynamics=tight), tmp_path / "out")


@pytest.mark.parametrize(
    ("steps", "first"), [(4, 10), (20, 30), (29, 30)], ids=["short", "all equilibration", "just not"]
)
def test_trajectories_that_would_keep_no_frame_are_refused_before_they_run(steps, first):
    dynamics = {"steps": steps, "save_every": 10, "equilibrate": 0 if steps == 4 else 20}
    with pytest.raises(ValueError, match=rf"{steps} steps keep no frame, the first is due at step {first}"):
        explore.Options(starts=["x"], dynamics=dynamics)
