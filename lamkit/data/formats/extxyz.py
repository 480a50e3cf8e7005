"""Extended XYZ and ASE databases.

ASE parses the text. The labels are then looked up here, because files name them in many ways and ASE takes
only one: ``energy``, ``Energy``, ``REF_energy``; ``forces``, ``force``; ``stress``, ``virial``, ``virials``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lamkit.data.formats.reading import LENGTH_UNITS, Dropped, ReadOptions, Remark, scaled
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
    "group", "trajectory", "mp_id", "mp-id", "material_id", "mptrj_traj_id", "alexandria_id", "config_type",
)  # fmt: skip
_HIDDEN = "lamkit_"  # keeps ASE from interpreting a key: it accepts a stress of nine numbers only


def read_extxyz(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an extended XYZ file."""
    import ase.io

    step = -1
    try:
        for step, atoms in enumerate(
            ase.io.iread(file, index=":", format="extxyz", properties_parser=parse_header)
        ):
            results = dict(atoms.calc.results) if atoms.calc is not None else {}
            known = {**atoms.info, **atoms.arrays, **results}
            yield _frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, known,
                         source, step, options)  # fmt: skip
    except (OSError, ValueError, KeyError, IndexError, StopIteration, RuntimeError) as error:
        raise UserError(f"{source}: frame {step + 1}: {_words(error)}") from None
    if step < 0:
        raise UserError(f"{source}: no frame in it")


def parse_header(text: str) -> dict[str, Any]:
    """Key-value pairs of a header line; stress and virial are left as plain numbers."""
    from ase.io.extxyz import key_val_str_to_dict

    hidden = re.sub(r"(?<![\w-])(stress|virial)(\s*=)", rf"{_HIDDEN}\1\2", text)
    pairs = key_val_str_to_dict(hidden)
    return {key.removeprefix(_HIDDEN) if key != f"{_HIDDEN}stress" else key: v for key, v in pairs.items()}


def read_ase_db(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of an ASE database (SQLite)."""
    import ase.db

    try:
        database = ase.db.connect(file)
        for step, row in enumerate(database.select()):
            known = {**row.data, **row.key_value_pairs}
            for name in ("energy", "free_energy", "forces", "stress"):
                if row.get(name) is not None:  # stored as computed, without ASE's constraints
                    known[name] = row[name]
            yield _frame(row.numbers, row.positions, row.cell, row.pbc, known, source, step, options)
    except (KeyError, ValueError, OSError) as error:
        raise UserError(f"{source}: not readable as an ASE database: {_words(error)}") from None


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if not isinstance(error, OSError) else str(error)


def _frame(
    numbers: Any,
    positions: Any,
    cell: Any,
    pbc: Any,
    known: Mapping[str, Any],
    source: str,
    step: int,
    options: ReadOptions,
) -> Frame:
    """One frame from an ASE structure and everything that the file says of it."""
    length = LENGTH_UNITS[options.length_unit]
    cell = np.asarray(cell, dtype=np.float64) * length
    known = {key.removeprefix(_HIDDEN): value for key, value in known.items()}
    lower = {key.lower(): value for key, value in known.items()}
    stress = _find(known, lower, options.stress_key, () if options.virial_key else STRESS_KEYS, source, step)
    virial = _find(known, lower, options.virial_key, () if options.stress_key else VIRIAL_KEYS, source, step)
    labels = scaled(
        options,
        float(abs(np.linalg.det(cell))) if np.any(pbc) else 0.0,
        energy=_find(known, lower, options.energy_key, ENERGY_KEYS, source, step),
        forces=_find(known, lower, options.forces_key, FORCES_KEYS, source, step),
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


def _find(
    known: Mapping[str, Any],
    lower: Mapping[str, Any],
    asked: str | None,
    usual: tuple[str, ...],
    source: str,
    step: int,
) -> Any:
    """The value under the key that was asked for, or under the first usual one; None if there is none.

    Raises:
        UserError: a key was asked for and is not there.
    """
    if asked is not None:
        if asked not in known:
            there = ", ".join(sorted(k for k in known if k not in ("numbers", "positions"))) or "nothing"
            raise UserError(f"{source}: frame {step}: no '{asked}'; it has {there}")
        return known[asked]
    return next((lower[key] for key in usual if lower.get(key) is not None), None)
