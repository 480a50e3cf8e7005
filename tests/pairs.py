"""A smooth pair potential: a calculator whose results depend on the structure alone, for tests of MD."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from lamkit.data.frame import to_voigt
from lamkit.data.neighbors import neighbor_list

WELL, RADIUS, STIFFNESS, CUTOFF = 0.4, 2.6, 1.6, 5.5  # eV, Å, 1/Å, Å


class Pairs(Calculator):
    """Morse pairs D (e^-2a(r-r0) - 2 e^-a(r-r0)) times (1 - (r/rc)^2)^3."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "stress"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)) -> None:
        super().calculate(atoms, properties, system_changes)
        edges = neighbor_list(self.atoms.positions, self.atoms.cell.array, self.atoms.pbc, CUTOFF)
        r = edges.distances
        x, q = np.exp(-STIFFNESS * (r - RADIUS)), 1 - (r / CUTOFF) ** 2
        morse, slope = WELL * (x * x - 2 * x), -2 * STIFFNESS * WELL * (x * x - x)
        pull = (slope * q**3 - morse * 3 * q**2 * 2 * r / CUTOFF**2) / r
        force = 0.5 * pull[:, None] * edges.vectors
        forces = np.zeros((len(self.atoms), 3))
        np.add.at(forces, edges.senders, force)
        np.add.at(forces, edges.receivers, -force)
        self.results = {"energy": 0.5 * float((morse * q**3).sum()), "forces": forces}
        if self.atoms.pbc.all():
            self.results["stress"] = to_voigt(edges.vectors.T @ force) / self.atoms.get_volume()
