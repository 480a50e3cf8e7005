"""Many walks at once: all take a step, and the forces of all come from one batched evaluation.

ASE's integrators ask for forces in the middle of a step. A walk whose forces are not known yet is put back to the
start of its step, the structures that all walks ask for are evaluated together, and the step is taken again. The
integrators cost microseconds, the network milliseconds, so that doing the former twice is cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from lamkit.errors import UserError
from lamkit.stages.dynamics import Walk
from lamkit.stages.engine import Engine, evaluate

if TYPE_CHECKING:
    from ase import Atoms

REMEMBERED = 2  # structures whose results a step needs: the one it starts from, and the one it leads to
FAILURES = (UserError, ArithmeticError, np.linalg.LinAlgError)


class PendingError(Exception):
    """The forces of a structure are not known yet; never leaves this module."""


class Waiting(Calculator):
    """A calculator whose results somebody else works out, together with those of others.

    Attributes:
        wanted: structure that was asked for and is not known.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]  # type: ignore[misc]

    def __init__(self) -> None:
        super().__init__()
        self.wanted: Atoms | None = None
        self._known: dict[bytes, dict[str, Any] | Exception] = {}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """ASE's entry: results that were handed in, or :class:`PendingError`."""
        super().calculate(atoms, list(properties), list(system_changes))
        assert self.atoms is not None
        found = self._known.get(_place(self.atoms))
        if found is None:
            self.wanted = self.atoms.copy()
            raise PendingError
        if isinstance(found, Exception):
            raise found
        self.results = dict(found)

    def hand_in(self, found: dict[str, Any] | Exception) -> None:
        """Take the results of :attr:`wanted`, or the error that it led to."""
        assert self.wanted is not None
        if isinstance(found, dict):
            found = {**found, "free_energy": found["energy"]}
        self._known[_place(self.wanted)] = found
        self._known = dict(list(self._known.items())[-REMEMBERED:])


def _place(atoms: Atoms) -> bytes:
    return atoms.positions.tobytes() + atoms.cell.array.tobytes()


def begin_all(walks: Sequence[Walk], engine: Engine) -> None:
    """Evaluate the starts of all walks, whose calculators are :class:`Waiting` or ordinary ones.

    Raises:
        UserError: a start cannot be evaluated.
    """
    _together(walks, engine, Walk.begin)


def advance_all(walks: Sequence[Walk], engine: Engine) -> None:
    """One step of every walk that has not stopped."""
    _together([w for w in walks if w.stopped is None], engine, Walk.advance)


def _together(walks: Sequence[Walk], engine: Engine, action: Any) -> None:
    waiting = list(walks)
    while waiting:
        held = []
        for walk in waiting:
            before = walk.state()
            try:
                action(walk)
            except PendingError:
                walk.restore(before)
                held.append(walk)
        _answer([walk.atoms.calc for walk in held], engine)
        waiting = held


def _answer(calculators: Sequence[Waiting], engine: Engine) -> None:
    """Evaluate what all of them ask for at once; where one structure spoils the batch, one by one."""
    wanted = [c.wanted for c in calculators]
    if not wanted:
        return
    try:
        found: list[Any] = evaluate(engine, wanted)  # type: ignore[arg-type]
    except FAILURES:
        found = [_attempt(engine, atoms) for atoms in wanted]
    for calculator, result in zip(calculators, found, strict=True):
        calculator.hand_in(result)


def _attempt(engine: Engine, atoms: Any) -> dict[str, Any] | Exception:
    try:
        return evaluate(engine, [atoms])[0]
    except FAILURES as error:
        return error
