"""Integrators, thermostats and barostats on a smooth pair potential."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.constraints import FixAtoms
from pairs import Pairs

from lamkit.errors import UserError
from lamkit.stages.dynamics import Dynamics, Walk, timestep_for

ENSEMBLES = {
    "nve": {"ensemble": "nve"},
    "langevin": {"ensemble": "nvt", "thermostat": "langevin"},
    "nose-hoover": {"ensemble": "nvt", "thermostat": "nose-hoover"},
    "bussi": {"ensemble": "nvt", "thermostat": "bussi"},
    "npt, isotropic": {"ensemble": "npt", "cell": "isotropic", "pressure": 1.0},
    "npt, full": {"ensemble": "npt", "cell": "full", "pressure": 1.0},
}
TEMPERATURE = 300.0


def crystal() -> Atoms:
    return bulk("Cu", a=3.55, cubic=True) * 2


def walk(choice: str, atoms: Atoms | None = None, temperature: float = TEMPERATURE, **more) -> Walk:
    times = {"thermostat_time": 50.0, "barostat_time": 200.0, "friction": 0.05, "timestep": 2.0}
    dynamics = Dynamics(**{**times, **ENSEMBLES[choice], **more})
    started = Walk(atoms or crystal(), Pairs(), dynamics, temperature=temperature, seed=3)
    started.begin()
    return started


def potential(w: Walk) -> float:
    return float(w.atoms.get_potential_energy())


def go(w: Walk, steps: int) -> None:
    for _ in range(steps):
        w.advance()
        assert w.stopped is None


@pytest.mark.parametrize("choice", ENSEMBLES)
def test_a_walk_goes_on_from_its_saved_state_to_the_last_bit(choice):
    whole = walk(choice)
    go(whole, 15)
    state = whole.state()
    notes = json.loads(json.dumps({k: v for k, v in state.items() if k != "arrays"}))
    again = walk(choice)
    again.restore({**notes, "arrays": state["arrays"]})
    for w in (whole, again):
        go(w, 15)
    assert whole.step == again.step == 30
    for name, array in whole.state()["arrays"].items():
        np.testing.assert_array_equal(array, again.state()["arrays"][name], err_msg=name)
    assert whole.conserved(potential(whole)) == again.conserved(potential(again))


@pytest.mark.parametrize("choice", ENSEMBLES)
def test_the_conserved_quantity_is_conserved_ever_better_with_shorter_steps(choice):
    spread = []
    for timestep in (4.0, 1.0):
        w = walk(choice, timestep=timestep)
        values = []
        for _ in range(int(240 / timestep)):
            go(w, 1)
            values.append(w.conserved(potential(w)) / len(w.atoms))
        spread.append(np.std(values))
    assert spread[1] < 0.2 * spread[0]
    assert spread[1] < 6e-5  # eV/atom; the heat exchanged in that time is hundreds of times as much


@pytest.mark.parametrize("choice", [c for c in ENSEMBLES if c != "nve"])
def test_thermostats_reach_their_temperature_and_barostats_their_pressure(choice):
    w = walk(choice, timestep=4.0)
    kelvin, pressure = [], []
    for step in range(1500):
        go(w, 1)
        if step > 300:
            kelvin.append(w.kelvin())
            pressure.append(-w.atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa)
    assert np.mean(kelvin) == pytest.approx(TEMPERATURE, rel=0.07)
    if "npt" in choice:
        assert np.mean(pressure) == pytest.approx(1.0, abs=0.25)
        shape = w.atoms.cell.array / w.atoms.cell.array[0, 0] - np.eye(3)
        assert (np.abs(shape).max() < 1e-12) == (choice == "npt, isotropic")


@pytest.mark.parametrize("choice", [c for c in ENSEMBLES if c != "langevin"])
def test_the_centre_of_mass_stays_where_it_is(choice):
    w = walk(choice)
    go(w, 20)
    assert np.abs(w.atoms.get_momenta().sum(axis=0)).max() < 1e-10


def test_velocities_have_the_temperature_whatever_carries_it():
    dynamics = Dynamics(ensemble="nve")
    for atoms in (Atoms("Cu2", [[0, 0, 0], [0, 0, 2.6]]), crystal()):
        kelvin = []
        for seed in range(4000 // len(atoms)):
            kelvin.append(Walk(atoms.copy(), Pairs(), dynamics, temperature=500, seed=seed).kelvin())
        assert np.mean(kelvin) == pytest.approx(500, rel=0.05)


@pytest.mark.parametrize("choice", ["nve", "langevin", "bussi"])
def test_fixed_atoms_stay_and_the_others_are_warm(choice):
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0, 5]))
    start = atoms.positions.copy()
    w = walk(choice, atoms, timestep=1.0)
    go(w, 30)
    np.testing.assert_array_equal(w.atoms.positions[[0, 5]], start[[0, 5]])
    assert (w.atoms.positions[1] != start[1]).all()
    assert w.n_free == 3 * (len(atoms) - 2)


@pytest.mark.parametrize("choice", ["nose-hoover", "npt, full"])
def test_constraints_are_refused_where_the_chains_would_ignore_them(choice):
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(UserError, match=r"constraints \(FixAtoms\) do not go with"):
        walk(choice, atoms)


def test_ensembles_that_do_not_suit_the_structure_are_refused():
    with pytest.raises(UserError, match="periodic in three directions"):
        walk("npt, full", Atoms("Cu2", [[0, 0, 0], [0, 0, 2.6]]))
    with pytest.raises(UserError, match="more than 0"):
        walk("langevin", temperature=0.0)
    frozen = crystal()
    frozen.set_constraint(FixAtoms(range(len(frozen))))
    with pytest.raises(UserError, match="no atom free"):
        walk("nve", frozen)
    still = crystal()
    still.set_momenta(np.zeros((len(still), 3)))
    with pytest.raises(UserError, match="bussi scales velocities"):
        Walk(still, Pairs(), Dynamics(thermostat="bussi"), temperature=300, seed=0, keep_velocities=True)


def test_hydrogen_gets_a_short_time_step():
    assert timestep_for(Atoms("H2O"), Dynamics()) == 0.5
    assert timestep_for(Atoms("Cu"), Dynamics()) == 1.0
    assert timestep_for(Atoms("H"), Dynamics(timestep=0.2)) == 0.2
