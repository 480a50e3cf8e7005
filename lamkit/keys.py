"""The vocabulary: every quantity once, with its level, shape, unit and sign.

These names and no others are used in code, YAML, batches, logs and files.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Key(NamedTuple):
    """One quantity.

    Attributes:
        name: the word used everywhere.
        level: what one value belongs to.
        shape: shape of the array over all atoms, edges or frames.
        unit: unit inside the program; empty where there is none.
        meaning: one line, with the sign convention.
    """

    name: str
    level: Literal["atom", "edge", "frame", "element"]
    shape: str
    unit: str
    meaning: str


KEYS = {
    key.name: key
    for key in (
        Key("numbers", "atom", "[n_atoms]", "", "atomic numbers"),
        Key("positions", "atom", "[n_atoms, 3]", "Å", "Cartesian positions"),
        Key("cell", "frame", "[3, 3]", "Å", "rows are lattice vectors; zeros where there is none"),
        Key("pbc", "frame", "[3]", "", "true along periodic axes"),
        Key("energy", "frame", "[n_frames]", "eV", "total force-consistent energy (VASP: TOTEN)"),
        Key("forces", "atom", "[n_atoms, 3]", "eV/Å", "minus the gradient of the energy"),
        Key(
            "stress",
            "frame",
            "[n_frames, 6]",
            "eV/Å³",
            "dE/dε / V, tension positive, Voigt xx yy zz yz xz xy",
        ),
        Key("atom_energies", "atom", "[n_atoms]", "eV", "energies of the atoms, whose sum is the energy"),
        Key(
            "hessian",
            "frame",
            "[K, 2, n_atoms, 3]",
            "eV/Å²",
            "K directions v (no unit, mean square 1) and the products H v with each",
        ),
        Key("virial", "frame", "[n_frames, 3, 3]", "eV", "−V · stress (DeePMD's sign), only in files"),
        Key("vectors", "edge", "[n_edges, 3]", "Å", "receiver image minus sender"),
        Key("senders", "edge", "[n_edges]", "", "atom at which the edge starts"),
        Key("receivers", "edge", "[n_edges]", "", "atom whose image the edge reaches"),
        Key("shifts", "edge", "[n_edges, 3]", "", "lattice translations of the receiver image"),
        Key("reference", "element", "[119]", "eV", "energy per atom of each element, by atomic number"),
        Key("energy_mae", "frame", "scalar", "eV/atom", "mean |ΔE| / n_atoms over frames"),
        Key("energy_rmse", "frame", "scalar", "eV/atom", "root mean square of ΔE / n_atoms over frames"),
        Key("forces_mae", "atom", "scalar", "eV/Å", "mean over all force components"),
        Key("forces_rmse", "atom", "scalar", "eV/Å", "root mean square over all force components"),
        Key("stress_mae", "frame", "scalar", "eV/Å³", "mean over the known Voigt components"),
    )
}

# Stress printed by VASP is in kilobar with compression positive: stress = −kB / KBAR_PER_EV_A3.
KBAR_PER_EV_A3 = 1602.1766208
