"""Walks that share their evaluations take the steps that they take alone."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from pairs import Pairs
from test_dynamics import ENSEMBLES

from lamkit.data.heads import LevelOfTheory
from lamkit.errors import UserError
from lamkit.stages import lockstep
from lamkit.stages.dynamics import Dynamics, Walk
from lamkit.stages.engine import Engine


class Batches(Pairs):
    """A pair potential with ``predict``, which counts how often it is called."""

    def __init__(self, refuses: float = 0.0) -> None:
        super().__init__()
        self.calls, self.refuses = [], refuses

    def predict(self, structures):
        self.calls.append(len(structures))
        found = []
        for atoms in structures:
            if atoms.get_volume() < self.refuses:
                raise UserError("too dense")
            atoms = atoms.copy()
            atoms.calc = Pairs()
            stress = atoms.get_stress()
            found.append(
                {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": stress}
            )
        return found


def engine(**more) -> Engine:
    return Engine(Batches(**more), "batches", "", LevelOfTheory(method="toy", functional="pairs"), True)


def walks(calculators, dynamics: Dynamics) -> list[Walk]:
    return [
        Walk(bulk("Cu", a=a, cubic=True) * 2, calculator, dynamics, temperature=300.0, seed=7)
        for a, calculator in zip((3.5, 3.55, 3.6), calculators, strict=True)
    ]


@pytest.mark.parametrize("choice", ENSEMBLES)
def test_together_is_as_alone_to_the_last_bit(choice):
    dynamics = Dynamics(timestep=2.0, **ENSEMBLES[choice])
    alone = walks([Pairs() for _ in range(3)], dynamics)
    for w in alone:
        w.begin()
        for _ in range(8):
            w.advance()
    together, shared = walks([lockstep.Waiting() for _ in range(3)], dynamics), engine()
    lockstep.begin_all(together, shared)
    for _ in range(8):
        lockstep.advance_all(together, shared)
    assert (
        shared.calculator.calls == [3] * 9
    )  # one evaluation at the start and one for each step, of all three
    for a, b in zip(alone, together, strict=True):
        assert b.step == 8
        np.testing.assert_array_equal(a.atoms.positions, b.atoms.positions)
        np.testing.assert_array_equal(a.atoms.get_momenta(), b.atoms.get_momenta())


def test_a_structure_that_cannot_be_evaluated_stops_its_own_walk_only():
    dynamics = Dynamics(timestep=2.0)
    together, shared = walks([lockstep.Waiting() for _ in range(3)], dynamics), engine()
    lockstep.begin_all(together, shared)
    shared.calculator.refuses = 3.52**3 * 8
    for _ in range(3):
        lockstep.advance_all(together, shared)
    assert together[0].stopped == "calculator failed: too dense"
    assert [w.step for w in together] == [0, 3, 3]


def test_a_start_that_cannot_be_evaluated_is_an_error():
    with pytest.raises(UserError, match="too dense"):
        lockstep.begin_all(walks([lockstep.Waiting() for _ in range(3)], Dynamics()), engine(refuses=1e6))
