"""When a loop ends: conditions on values that its stages returned.

``${test}.mine.forces_rmse < 0.05 for 2 rounds``: the value ``mine`` → ``forces_rmse`` in the ``result.json``
of the stage ``test`` was below 0.05 in the last two rounds. Without ``for``, in the last round.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamkit.errors import UserError, suggest

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_GRAMMAR = re.compile(
    r"\s*\$\{(?P<stage>[^}]+)\}\.(?P<keys>[^\s<>=]+)\s*(?P<sign><=|>=|==|<|>)\s*(?P<number>\S+)"
    r"(?:\s+for\s+(?P<rounds>[1-9]\d*)\s+rounds?)?\s*"
)


@dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
        text: As the user wrote it.
        stage: Id of the stage, inside of the loop, whose result is looked at.
        keys: Path to the value in it.
        sign: Key of the comparison.
        number: What the value is compared with.
        rounds: In how many rounds, one after the other up to the last, it must hold.
    """

    text: str
    stage: str
    keys: tuple[str, ...]
    sign: str
    number: float
    rounds: int

    @property
    def name(self) -> str:
        """The value in words, as a heading."""
        return ".".join((self.stage, *self.keys))

    def met(self, value: float) -> bool:
        """Whether one round's value fulfils the comparison."""
        return _OPERATORS[self.sign](value, self.number)


def parse(text: str) -> Condition:
    """Read a condition.

    Raises:
        ValueError: it is none.
    """
    match = _GRAMMAR.fullmatch(text)
    try:
        number = float(match["number"]) if match else None
    except ValueError:
        number = None
    if match is None or number is None:
        raise ValueError(
            f"expected '${{ID}}.KEY < NUMBER' or '${{ID}}.KEY < NUMBER for N rounds' "
            f"(also <=, >, >=, ==), found '{text}'"
        )
    rounds = int(match["rounds"] or 1)
    return Condition(text, match["stage"], tuple(match["keys"].split(".")), match["sign"], number, rounds)


def value(condition: Condition, result: Mapping[str, Any], where: str) -> float:
    """The value that a condition looks at.

    Args:
        condition: The condition.
        result: What the stage returned.
        where: Name of that result for messages.

    Raises:
        UserError: it has no such value, or that is not a number.
    """
    found: Any = result
    for depth, key in enumerate(condition.keys):
        if not isinstance(found, Mapping) or key not in found:
            known = [str(k) for k in found] if isinstance(found, Mapping) else []
            place = ".".join(condition.keys[:depth]) or "its top"
            raise UserError(
                f"until: {condition.text}: {where} has no '{key}' at {place}.{suggest(key, known)} "
                f"Known there: {', '.join(known) or 'nothing'}"
            )
        found = found[key]
    if isinstance(found, int | float):
        return float(found)
    raise UserError(f"until: {condition.text}: {where} has {found!r} there, not a number")


def hold(conditions: Sequence[Condition], rounds: Sequence[Mapping[str, float]]) -> bool:
    """Whether all conditions hold after the last of ``rounds`` (each: text of a condition → value)."""
    return bool(conditions) and all(
        len(rounds) >= c.rounds and all(c.met(values[c.text]) for values in rounds[-c.rounds :])
        for c in conditions
    )
