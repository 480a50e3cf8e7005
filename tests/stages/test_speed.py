"""How fast models are in MD, told without waiting: the clock is turned by the calculators."""

from __future__ import annotations

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from lamkit.data.frame import from_atoms
from lamkit.stages import speed


class Ticking(EMT):
    """Takes so many seconds of the clock for each evaluation, and fails after some."""

    def __init__(self, clock: list[float], seconds: float, fails: int = 10**9) -> None:
        super().__init__()
        self.clock, self.seconds, self.fails, self.n = clock, seconds, fails, 0

    def calculate(self, *args, **kwargs):
        self.n += 1
        if self.n > self.fails:
            raise RuntimeError("no more")
        super().calculate(*args, **kwargs)
        self.clock[0] += self.seconds


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    return now


def test_times_are_those_of_a_step_and_an_atom(clock):
    models = {"teacher": Ticking(clock, 0.4), "student": Ticking(clock, 0.004)}
    found = speed.compare(models, from_atoms(bulk("Cu", cubic=True)))
    assert found["n_atoms"] == 4
    assert found["models"]["teacher"] == {"ms_per_step": 400.0, "us_per_step_atom": 100_000.0}
    assert found["models"]["student"]["ms_per_step"] == pytest.approx(4.0)
    assert found["failed"] == {}


def test_a_calculator_that_takes_minutes_is_asked_for_few_steps_only(clock):
    slow, quick = Ticking(clock, 90.0), Ticking(clock, 0.001)
    found = speed.compare({"teacher": slow, "student": quick}, from_atoms(bulk("Cu", cubic=True)))
    assert found["models"]["teacher"]["ms_per_step"] == pytest.approx(90_000)
    assert slow.n <= 8
    assert quick.n > 50


def test_a_calculator_that_fails_is_left_out_with_the_reason(clock):
    models = {"teacher": Ticking(clock, 0.4, fails=40), "student": Ticking(clock, 0.1)}
    found = speed.compare(models, from_atoms(bulk("Cu", cubic=True)))
    assert found["failed"] == {"teacher": "RuntimeError: no more"}
    assert set(found["models"]) == {"student"}
