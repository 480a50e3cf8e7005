"""What a check says of a frame, and what it is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lamkit.data.quality_settings import Checks, Limits

if TYPE_CHECKING:
    from lamkit.data.heads import LevelOfTheory

Verdict = Literal["reject", "mask", "flag"]


@dataclass(frozen=True)
class Finding:
    """One thing found on one frame.

    Attributes:
        check: name of the check, as in the ``checks:`` block of a head.
        action: ``reject``: the frame is left out; ``mask``: its stress is; ``flag``: it is kept as it is.
        reason: in words; without numbers of the single frame, so that equal findings can be counted.
    """

    check: str
    action: Verdict
    reason: str


@dataclass(frozen=True)
class Rules:
    """What frames are checked against.

    Attributes:
        checks: the ``checks:`` block of the head.
        level: level of theory of the head; None if there is none to compare with.
        unlabelled: structures without energy or forces are wanted.
        skip: names of checks that are left out.
    """

    checks: Checks = field(default_factory=Checks)
    level: LevelOfTheory | None = None
    unlabelled: bool = False
    skip: frozenset[str] = frozenset()


def found(check: str, action: str, reason: str | None) -> Finding | None:
    """A finding, unless there is no reason or the check is off."""
    if reason is None or action == "off":
        return None
    return Finding(check, action, reason)  # type: ignore[arg-type]  # "off" is dealt with


def above(check: str, value: float, limits: Limits, words: str) -> Finding | None:
    """A finding if ``value`` is above one of the limits; ``{}`` in ``words`` becomes that limit."""
    if limits.reject is not None and value > limits.reject:
        return Finding(check, "reject", words.format(f"{limits.reject:g}"))
    if limits.flag is not None and value > limits.flag:
        return Finding(check, "flag", words.format(f"{limits.flag:g}"))
    return None


def below(check: str, value: float, limits: Limits, words: str) -> Finding | None:
    """A finding if ``value`` is below one of the limits; ``{}`` in ``words`` becomes that limit."""
    if limits.reject is not None and value < limits.reject:
        return Finding(check, "reject", words.format(f"{limits.reject:g}"))
    if limits.flag is not None and value < limits.flag:
        return Finding(check, "flag", words.format(f"{limits.flag:g}"))
    return None


def rejected(findings: Iterable[Finding]) -> str | None:
    """Why the frame is to be left out; None if it is kept."""
    return next((finding.reason for finding in findings if finding.action == "reject"), None)
