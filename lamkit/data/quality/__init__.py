"""Quality of labelled frames: pure checks, each with a reason, each to be set in the ``checks:`` block of a head.

On one frame (:func:`examine`): :mod:`labels` looks at structure and labels, :mod:`provenance` at how they
were computed. On the whole data set (:func:`survey`): :mod:`outliers` and :mod:`work`. :mod:`duplicates`
remembers frames. What cannot be right is rejected; what is merely odd is kept with a flag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lamkit.data.frame import Frame
from lamkit.data.quality import labels, provenance
from lamkit.data.quality.duplicates import (
    DUPLICATE,
    DUPLICATE_ELSEWHERE,
    Duplicates,
    Fingerprint,
    fingerprint,
)
from lamkit.data.quality.findings import Finding, Rules, rejected
from lamkit.data.quality.provenance import theory
from lamkit.data.quality.survey import SetFinding, survey
from lamkit.data.quality_settings import Checks, Limits

__all__ = [
    "CHECKS", "DUPLICATE", "DUPLICATE_ELSEWHERE", "Checks", "Duplicates", "Finding", "Fingerprint", "Limits",
    "Rules", "SetFinding", "examine", "fingerprint", "rejected", "survey", "theory",
]  # fmt: skip

Check = Callable[[Frame, Rules], Finding | None]

# In this order: later checks rely on what earlier ones made sure of, and the most telling reason comes first.
CHECKS: dict[str, Check] = {
    "shapes": labels.shapes,
    "elements": labels.elements,
    "finite": labels.finite,
    "labelled": labels.labelled,
    "cell_volume": labels.cell_volume,
    "machine_learned": provenance.machine_learned,
    "empty": labels.empty,
    "non_self_consistent": provenance.non_self_consistent,
    "scf": provenance.scf,
    "functional": provenance.functional,
    "hubbard_u": provenance.hubbard_u,
    "dispersion": provenance.dispersion,
    "isif1": provenance.isif1,
    "charge": provenance.charge,
    "core_hole": provenance.core_hole,
    "fixed_atoms": provenance.fixed_atoms,
    "doubt": provenance.doubt,
    "energy": labels.energy,
    "energy_floor": labels.energy_floor,
    "forces": labels.forces,
    "stress": labels.stress,
    "net_force": labels.net_force,
    "missing_stress": labels.missing_stress,
    "contact": labels.contact,
}


def examine(frame: Frame, rules: Rules = Rules()) -> tuple[Frame, list[Finding]]:  # noqa: B008  (frozen)
    """Check one frame.

    Args:
        frame: the frame.
        rules: what it is checked against.

    Returns:
        The frame, without its stress if a check masks it, and what was found; nothing more is looked at
        after the first reason to reject it.
    """
    findings = []
    for name, check in CHECKS.items():
        if name in rules.skip:
            continue
        finding = check(frame, rules)
        if finding is None:
            continue
        findings.append(finding)
        if finding.action == "reject":
            break
        if finding.action == "mask":
            frame = replace(frame, stress=None)
    return frame, findings
