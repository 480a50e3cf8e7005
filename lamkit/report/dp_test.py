"""Errors in the words of ``dp test``, line by line, so that scripts that read its output go on working."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lamkit.data.frame import Frame, from_voigt, volume

# Name of an error sum, unit and heading; order and spacing as dp test 3 prints them.
LINES = (
    ("e", "eV", "Energy {}"),
    ("ea", "eV", "Energy {}/Natoms"),
    ("f", "eV/Å", "Force  {}"),
    ("v", "eV", "Virial {}"),
    ("va", "eV", "Virial {}/Natoms"),
    ("s", "eV/Å³", "Stress {}"),
)
WIDTH = 19  # of the heading, before the colon


class DpErrors:
    """Sums of the errors that ``dp test`` prints."""

    def __init__(self) -> None:
        self.n_frames = 0
        self._sums = {name: np.zeros(3) for name, *_ in LINES}

    def add(self, frame: Frame, prediction: Mapping[str, Any]) -> None:
        """Add one frame; a label that is missing, or a stress that is partly unknown, is left out."""
        self.n_frames += 1
        n = len(frame)
        if frame.energy is not None and not np.isnan(frame.energy):
            self._count("e", prediction["energy"] - frame.energy)
            self._count("ea", (prediction["energy"] - frame.energy) / n)
        if frame.forces is not None:
            known = ~np.isnan(frame.forces).any(axis=1)
            self._count("f", np.asarray(prediction["forces"])[known] - frame.forces[known])
        stress = prediction.get("stress")
        if frame.stress is not None and stress is not None and not np.isnan(frame.stress).any():
            error = from_voigt(np.asarray(stress)) - from_voigt(frame.stress)
            self._count("s", error)
            self._count("v", -volume(frame) * error)
            self._count("va", -volume(frame) * error / n)

    def merge(self, other: DpErrors) -> None:
        """Add everything that ``other`` has counted: what ``dp test`` calls the weighted average."""
        self.n_frames += other.n_frames
        for name, values in other._sums.items():
            self._sums[name] += values

    def _count(self, name: str, error: ArrayLike) -> None:
        values = np.asarray(error, dtype=np.float64).ravel()
        self._sums[name] += values.size, np.abs(values).sum(), np.square(values).sum()

    def result(self) -> dict[str, float]:
        """``mae_e``, ``rmse_e``, ``mae_ea`` … as ``dp test`` calls them; units as in :data:`LINES`."""
        found = {}
        for name, *_ in LINES:
            count, absolute, square = self._sums[name].tolist()
            if count:
                found[f"mae_{name}"], found[f"rmse_{name}"] = absolute / count, float(np.sqrt(square / count))
        return found

    def lines(self) -> list[str]:
        """The errors as ``dp test`` prints them."""
        found = self.result()
        return [
            f"{heading.format(kind):<{WIDTH}}: {found[f'{kind.lower()}_{name}']:e} {unit}"
            for name, unit, heading in LINES
            for kind in ("MAE", "RMSE")
            if f"{kind.lower()}_{name}" in found
        ]


def block(errors: Mapping[str, DpErrors]) -> str:
    """The whole output of ``dp test`` for several systems (here: data sets), by their path."""
    rule, lines, total = "# ----------------------------------------------- ", [], DpErrors()
    for system, found in errors.items():
        lines += ["# ---------------output of dp test--------------- ", f"# testing system : {system}"]
        lines += [f"# number of test data : {found.n_frames} ", *found.lines(), rule]
        total.merge(found)
    lines += ["# ----------weighted average of errors----------- ", f"# number of systems : {len(errors)}"]
    return "\n".join([*lines, *total.lines(), rule])
