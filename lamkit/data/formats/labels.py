"""From what a file says of a structure, under names of its own, to a frame.

Files name their labels in many ways and ASE takes only one: ``energy``, ``Energy``, ``REF_energy``;
``forces``, ``force``; ``stress``, ``virial``, ``virials``. Shared by extended XYZ, ASE's files and JSON lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lamkit.data.formats.reading import ENERGY_UNITS, LENGTH_UNITS, STRESS_UNITS, ReadOptions, scaled
from lamkit.data.frame import Frame, make_frame
from lamkit.errors import UserError

# The first that is there is taken. REF_ and DFT_ are labels set apart from a model's predictions; the free
# energy is the one that the forces belong to, so it goes before the energy extrapolated to zero smearing.
ENERGY_KEYS = (
    "ref_energy",
    "dft_energy",
    "free_energy",
    "energy",
    "total_energy",
    "uncorrected_total_energy",
)
FORCES_KEYS = ("ref_forces", "ref_force", "dft_forces", "dft_force", "forces", "force")
STRESS_KEYS = ("ref_stress", "dft_stress", "stress")
VIRIAL_KEYS = ("ref_virial", "ref_virials", "dft_virial", "dft_virials", "virial", "virials")
# What binds frames together, the most telling first.
GROUP_KEYS = (
    "group", "trajectory", "mp_id", "mp-id", "material_id", "mptrj_traj_id", "alexandria_id", "jid", "sid",
    "config_type",
)  # fmt: skip
# Units as people write them in a header (energy_unit=..., stress_unit=...), without case.
SPELLINGS = {
    "ev/å^3": "eV/A^3", "ev/ang^3": "eV/A^3", "ev/angstrom^3": "eV/A^3", "ev/a3": "eV/A^3", "ev/a**3": "eV/A^3",
    "kb": "kbar", "ha": "Hartree", "au": "Hartree", "a.u.": "Hartree", "rydberg": "Ry",
}  # fmt: skip


def labelled_frame(
    numbers: Any,
    positions: Any,
    cell: Any,
    pbc: Any,
    known: Mapping[str, Any],
    source: str,
    step: int,
    options: ReadOptions,
) -> Frame:
    """One frame from a structure and everything that the file says of it, by name.

    Raises:
        UserError: a key was asked for and is not there, or a unit in the file is not known.
    """
    lower = {key.lower(): value for key, value in known.items()}
    origin = f"{source}: frame {step}"
    options = with_units_of_file(lower, options, origin)
    length = LENGTH_UNITS[options.length_unit]
    cell = np.asarray(cell, dtype=np.float64) * length
    stress = find(known, lower, options.stress_key, () if options.virial_key else STRESS_KEYS, origin)
    virial = find(known, lower, options.virial_key, () if options.stress_key else VIRIAL_KEYS, origin)
    labels = scaled(
        options,
        float(abs(np.linalg.det(cell))) if np.any(pbc) else 0.0,
        energy=find(known, lower, options.energy_key, ENERGY_KEYS, origin),
        forces=find(known, lower, options.forces_key, FORCES_KEYS, origin),
        stress=stress,
        virial=virial,
    )
    group = next((lower[key] for key in GROUP_KEYS if key in lower), source)
    return make_frame(
        numbers,
        np.asarray(positions) * length,
        cell,
        pbc,
        source=source,
        step=step,
        group=str(group),
        **labels,
    )


def with_units_of_file(lower: Mapping[str, Any], options: ReadOptions, origin: str) -> ReadOptions:
    """``options`` with the units that the file states itself, unless a flag says otherwise.

    Raises:
        UserError: a unit that is not known.
    """
    stated = {}
    for key, option, table in (
        ("energy_unit", "units", ENERGY_UNITS),
        ("stress_unit", "stress_unit", STRESS_UNITS),
    ):
        if key not in lower or (option in options.given and option not in options.from_head):
            continue
        text = str(lower[key]).strip()
        plain = {name.lower(): name for name in table} | SPELLINGS
        unit = plain.get(text.lower())
        if unit not in table:
            flag = f"--{option.replace('_', '-')}"
            raise UserError(f"{origin}: {key}={text}: not a unit known here; name it with {flag}")
        stated[option] = unit
    forces = str(lower.get("forces_unit", "")).strip()
    if (
        forces
        and options.length_unit == "A"
        and forces.lower().split("/")[-1] not in ("a", "å", "ang", "angstrom")
    ):
        raise UserError(
            f"{origin}: forces_unit={forces}: expected a force per A; name the lengths with --length-unit"
        )
    return options.model_copy(update=stated) if stated else options


def find(
    known: Mapping[str, Any], lower: Mapping[str, Any], asked: str | None, usual: tuple[str, ...], origin: str
) -> Any:
    """The value under the key that was asked for, or under the first usual one; None if there is none.

    Raises:
        UserError: a key was asked for and is not there.
    """
    if asked is not None:
        if asked not in known:
            there = ", ".join(sorted(k for k in known if k not in ("numbers", "positions"))) or "nothing"
            raise UserError(f"{origin}: no '{asked}'; it has {there}")
        return known[asked]
    return next((lower[key] for key in usual if lower.get(key) is not None), None)
