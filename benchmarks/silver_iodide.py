"""Silver iodide after Parrinello, Rahman and Vashishta: a solid electrolyte as ASE calculator and for LAMMPS.

In the alpha phase the iodide ions keep to a body-centred cubic lattice, through which the silver ions diffuse nearly
as in a liquid. Rigid ions with charges of ±0.6 e attract and repel each other by

    V(r) = H/r^n + z z' e²/r - P/r^4 - W/r^6,    P/e² = (α z'² + α' z²) / 2,  α(I) = 6.52 Å³, α(Ag) = 0

(M. Parrinello, A. Rahman, P. Vashishta, Phys. Rev. Lett. 50, 1073 (1983); charges, polarizability and form: P.
Vashishta, A. Rahman, Phys. Rev. Lett. 40, 1337 (1978)). Coulomb's part is an Ewald sum (Allen and Tildesley, Computer
Simulation of Liquids, chapter 6); the rest is shifted to end at ``CUTOFF`` with neither a step nor a force. What the
r^-4 of farther ions would add is nearly uniform: no force, but some 2.6 GPa of attraction, so keep the volume fixed.

As a teacher: lamkit distill --calculator silver_iodide:teacher --starts FILE (in this folder, or on PYTHONPATH).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from scipy.special import erfc

from lamkit.data.neighbors import neighbor_list

SQUARE = units.Hartree * units.Bohr  # e² in eV Å
CHARGE = {"Ag": 0.6, "I": -0.6}
# n, and H, P, W in e² Å^(n-1), e² Å^3, e² Å^5.
SHORT = {
    ("Ag", "Ag"): (11, 0.014804, 0.0, 0.0),
    ("Ag", "I"): (9, 114.48, 1.1736, 0.0),
    ("I", "I"): (7, 446.64, 2.3472, 6.9331),
}
CUTOFF = 9.0  # Å, of the short-ranged part and of the real space of the Ewald sum
DECAY = 3.5  # exp(-DECAY²) is what the Ewald sum leaves out
EDGE = 5.08  # Å, of the cube with two formula units, as measured at the temperatures of interest
TABLE = 4000  # points of LAMMPS's tables


def short(r: np.ndarray, pair: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The part without charges, and its slope, at distances ``r`` up to the cutoff; eV and eV/Å."""

    def plain(x: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        n, h, p, w = SHORT[pair]
        value = h * x**-n - p * x**-4 - w * x**-6
        slope = (-n * h * x**-n + 4 * p * x**-4 + 6 * w * x**-6) / x
        return SQUARE * value, SQUARE * slope

    value, slope = plain(r)
    end, last = plain(CUTOFF)
    return value - end - (r - CUTOFF) * last, slope - last


def waves(cell: np.ndarray, largest: float) -> np.ndarray:
    """Half of the wave vectors of a cell up to a length (the other half are their negatives), 1/Å, ``[n, 3]``."""
    most = np.floor(largest * np.linalg.norm(cell, axis=1) / (2 * np.pi)).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in most), indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[
        len(grid) // 2 + 1 :
    ]  # the middle is zero, what stands before it the negative of what follows
    vectors = 2 * np.pi * grid @ np.linalg.inv(cell).T
    return vectors[np.square(vectors).sum(axis=1) < largest**2]


class SilverIodide(Calculator):
    """Energy, forces and stress of periodic structures of Ag and I with as many of one as of the other."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)) -> None:
        """What ASE calls: all results at once."""
        super().calculate(atoms, properties, system_changes)
        symbols = np.array(self.atoms.get_chemical_symbols())
        if not self.atoms.pbc.all() or set(symbols) - set(CHARGE):
            raise ValueError("only periodic structures of Ag and I")
        charges = np.array([CHARGE[s] for s in symbols])
        if abs(charges.sum()) > 1e-9:
            raise ValueError("needs as many Ag as I")
        cell, volume = self.atoms.cell.array, self.atoms.get_volume()
        near, forces, virial = self._near(symbols, charges, cell)
        far, far_forces, far_virial = self._far(charges, cell, volume)
        stress = (virial + far_virial) / volume
        self.results = {
            "energy": near + far,
            "free_energy": near + far,
            "forces": forces + far_forces,
            "stress": stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]],
        }

    def _near(self, symbols, charges, cell) -> tuple[float, np.ndarray, np.ndarray]:
        """Pairs within the cutoff: the short-ranged part, and the screened charges."""
        positions, screen = self.atoms.positions, DECAY / CUTOFF
        edges = neighbor_list(positions, cell, True, CUTOFF)
        r, senders = edges.distances, edges.senders
        product = SQUARE * charges[senders] * charges[edges.receivers]
        value = product * erfc(screen * r) / r
        slope = -value / r - product * 2 * screen / np.sqrt(np.pi) * np.exp(-np.square(screen * r)) / r
        silver = (symbols == "Ag").astype(int)
        count = silver[senders] + silver[edges.receivers]
        for number, pair in ((2, ("Ag", "Ag")), (1, ("Ag", "I")), (0, ("I", "I"))):
            chosen = count == number
            more, steeper = short(r[chosen], pair)
            value[chosen] += more
            slope[chosen] += steeper
        pull = (slope / r)[:, None] * edges.vectors  # of each edge on its sender; every pair is there twice
        forces = np.stack([np.bincount(senders, pull[:, a], len(charges)) for a in range(3)], axis=1)
        return 0.5 * float(value.sum()), forces, 0.5 * pull.T @ edges.vectors

    def _far(self, charges, cell, volume) -> tuple[float, np.ndarray, np.ndarray]:
        """The sum over wave vectors, less the charges' own energy."""
        screen = DECAY / CUTOFF
        k = waves(cell, 2 * DECAY * screen)
        square = np.square(k).sum(axis=1)
        phases = self.atoms.positions @ k.T
        cosines, sines = np.cos(phases), np.sin(phases)
        a, b = charges @ cosines, charges @ sines
        weight = 4 * np.pi * SQUARE / volume * np.exp(-square / (4 * screen**2)) / square  # both halves
        energies = weight * (a**2 + b**2)
        forces = 2 * charges[:, None] * ((sines * (weight * a) - cosines * (weight * b)) @ k)
        inner = energies * 2 * (1 / square + 1 / (4 * screen**2))
        virial = (k * inner[:, None]).T @ k - np.eye(3) * energies.sum()
        own = SQUARE * screen / np.sqrt(np.pi) * np.square(charges).sum()
        return float(energies.sum() - own), forces, virial


def teacher() -> SilverIodide:
    """What ``lamkit distill --calculator silver_iodide:teacher`` asks for."""
    return SilverIodide()


def crystal(repeat: int, random: np.random.Generator, edge: float = EDGE) -> Atoms:
    """Alpha silver iodide: iodide ions on a bcc lattice, silver ions at random on a sixth of the tetrahedral sites.

    No two silver ions are at sites nearer than half an edge.
    """
    halves = [(0.25, 0.0, 0.5), (0.75, 0.0, 0.5), (0.25, 0.5, 0.0), (0.75, 0.5, 0.0)]
    sites = np.array([np.roll(s, turn) for s in halves for turn in range(3)])
    corners = np.array(list(np.ndindex(repeat, repeat, repeat)), dtype=float)
    iodide = np.concatenate([corners, corners + 0.5])
    places = (corners[:, None] + sites).reshape(-1, 3)
    chosen: list[np.ndarray] = []
    for place in places[random.permutation(len(places))]:
        if len(chosen) == len(iodide):
            break
        away = np.array(chosen).reshape(-1, 3) - place
        away -= repeat * np.round(away / repeat)
        if (np.square(away).sum(axis=1) > 0.24).all():
            chosen.append(place)
    symbols = ["Ag"] * len(chosen) + ["I"] * len(iodide)
    return Atoms(
        symbols, positions=edge * np.concatenate([chosen, iodide]), cell=[edge * repeat] * 3, pbc=True
    )


def write_table(path: Path) -> None:
    """The short-ranged part for LAMMPS's pair_style table, in eV and Å; sections AgAg, AgI, II."""
    lines = []
    for pair in SHORT:
        r = np.linspace(1.0, CUTOFF, TABLE)
        value, slope = short(r, pair)
        lines += ["".join(pair), f"N {TABLE} R {r[0]} {r[-1]}", ""]
        rows = zip(r, value, -slope, strict=True)
        lines += [f"{i} {x:.12g} {v:.14g} {f:.14g}" for i, (x, v, f) in enumerate(rows, 1)]
        lines.append("")
    path.write_text("\n".join(lines))
