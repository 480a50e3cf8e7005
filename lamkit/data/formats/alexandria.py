"""The relaxation paths of Alexandria (``geo_opt_paths``, JSON as on alexandria.icams.rub.de), streamed.

``{material: [{steps: [{structure, energy, forces, stress}, ...]}, ...]}``: total energies of VASP in eV, eV/Å,
and stress in kilobar with VASP's sign, compression positive.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lamkit.data.formats.json_structures import stream, structure
from lamkit.data.formats.reading import Dropped, ReadOptions, Remark
from lamkit.data.frame import Frame, make_frame, to_voigt
from lamkit.errors import UserError
from lamkit.keys import KBAR_PER_EV_A3

MALFORMED = "labels of the wrong shape"


def read(file: Path, source: str, options: ReadOptions) -> Iterator[Frame | Dropped | Remark]:
    """Frames of all relaxations; the group is the material."""
    step = 0
    for material, runs in stream(file, "", source, pairs=True):
        for k, run in enumerate(runs):
            for n, record in enumerate(run["steps"]):
                origin = f"{source}: {material}, relaxation {k}, step {n}"
                if not {"structure", "energy", "forces"} <= set(record):
                    raise UserError(
                        f"{origin}: expected structure, energy and forces, found {sorted(record)}"
                    )
                try:
                    stress = record.get("stress")
                    yield make_frame(
                        *structure(record["structure"], origin),
                        energy=record["energy"],
                        forces=np.array(record["forces"], dtype=np.float64).reshape(-1, 3),
                        stress=None if stress is None else -to_voigt(stress) / KBAR_PER_EV_A3,
                        source=source,
                        step=step,
                        group=material,
                        info={"calculation": k, "ionic_step": n},
                    )
                except (TypeError, ValueError, IndexError):  # some published entries hold ragged forces
                    yield Dropped(MALFORMED, step=step)
                step += 1
