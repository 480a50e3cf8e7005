"""JARVIS-DFT force-field sets (``id_prop.json`` of ALIGNN-FF), streamed.

``[{jid, atoms: {lattice_mat, coords, elements, cartesian}, total_energy, forces, stresses}, ...]`` with total
energies in eV and forces in eV/Å. Unit and sign of the stresses are not stated; they are kilobar, compression
positive, as VASP prints them. That was decided from cells strained by 1.5 %: the stress over the strain gives
the same elastic constant as the energy over its square (C44 of jid 15608: 117.76 and 117.8 GPa), with the
minus sign; a test repeats it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lamkit.data.formats.json_structures import stream
from lamkit.data.formats.reading import Dropped, ReadOptions, Remark
from lamkit.data.frame import Frame, make_frame, numbers_of, to_voigt
from lamkit.errors import UserError
from lamkit.keys import KBAR_PER_EV_A3


def read(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of a JARVIS list; the group is the material (jid)."""
    for step, record in enumerate(stream(file, "item", source, pairs=False)):
        origin = f"{source}: record {step}"
        try:
            atoms, jid = record["atoms"], str(record["jid"])
            cell = np.array(atoms["lattice_mat"], dtype=np.float64).reshape(3, 3)
            positions = np.array(atoms["coords"], dtype=np.float64).reshape(-1, 3)
            stress = record.get("stresses")
            frame = make_frame(
                numbers_of([str(symbol).strip() for symbol in atoms["elements"]], origin),
                positions if atoms.get("cartesian") else positions @ cell,
                cell,
                energy=record["total_energy"],
                forces=np.array(record["forces"], dtype=np.float64).reshape(-1, 3),
                stress=None if stress is None else -to_voigt(stress) / KBAR_PER_EV_A3,
                source=source,
                step=step,
                group=jid,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{origin}: not a JARVIS record ({error!r})") from None
        yield frame
