"""Detail files as ``dp test -d PREFIX`` writes them, so that existing plotting scripts work.

``PREFIX.e.out`` total energies (eV), ``PREFIX.e_peratom.out`` (eV/atom), ``PREFIX.f.out`` forces (eV/Å),
``PREFIX.v.out`` virials (eV) and ``PREFIX.v_peratom.out``, ``PREFIX.s.out`` stresses (eV/Å³, tension positive), nine
components xx xy xz yx yy yz zx zy zz each.
Columns are the data first, then the prediction. A new header line begins each data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike

from lamkit.data.frame import Frame, from_voigt, volume
from lamkit.errors import UserError
from lamkit.files import require_writable

_TENSOR = [a + b for a in "xyz" for b in "xyz"]
COLUMNS = {
    "e": ["e"],
    "e_peratom": ["e"],
    "f": ["fx", "fy", "fz"],
    "v": [f"v{ab}" for ab in _TENSOR],
    "v_peratom": [f"v{ab}" for ab in _TENSOR],
    "s": [f"s{ab}" for ab in _TENSOR],
}
UNITS = {"s": " (eV/Å³)"}  # where dp test names them in the header


class DetailFiles:
    """Writes the detail files of one evaluation; they appear under their names only when all is written.

    A frame without a label has no line in that label's file, and a file without any line is not written.

    Args:
        prefix: path that every file name begins with.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = Path(prefix)
        self.written: list[Path] = []
        self._title = ""
        self._streams: dict[str, IO[str]] = {}
        self._titled: set[str] = set()

    def __enter__(self) -> DetailFiles:
        require_writable(self.prefix.parent)  # before hours of evaluation
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, stream in self._streams.items():
            stream.close()
            if kind is None:
                self.written.append(Path(stream.name).replace(self._path(name)))
            else:
                Path(stream.name).unlink(missing_ok=True)

    def begin(self, title: str) -> None:
        """Begin a data set; its name goes into the header lines."""
        self._title = title
        self._titled.clear()

    def add(self, frame: Frame, prediction: Mapping[str, Any]) -> None:
        """Add one frame."""
        n_atoms = len(frame)
        if frame.energy is not None and not np.isnan(frame.energy):
            self._write("e", frame.energy, prediction["energy"])
            self._write("e_peratom", frame.energy / n_atoms, prediction["energy"] / n_atoms)
        if frame.forces is not None:
            known = ~np.isnan(frame.forces).any(axis=1)
            self._write("f", frame.forces[known], np.asarray(prediction["forces"])[known])
        if (
            frame.stress is not None
            and prediction.get("stress") is not None
            and not np.isnan(frame.stress).any()
        ):
            stresses = [from_voigt(np.asarray(s)) for s in (frame.stress, prediction["stress"])]
            self._write("s", *stresses)
            data, predicted = (-volume(frame) * s for s in stresses)
            self._write("v", data, predicted)
            self._write("v_peratom", data / n_atoms, predicted / n_atoms)

    def _write(self, name: str, data: ArrayLike, predicted: ArrayLike) -> None:
        columns = COLUMNS[name]
        rows = np.hstack([np.reshape(data, (-1, len(columns))), np.reshape(predicted, (-1, len(columns)))])
        if not len(rows):
            return
        stream = self._stream(name)
        if name not in self._titled:
            self._titled.add(name)
            words = [f"{side}_{c}" for side in ("data", "pred") for c in columns]
            stream.write(f"# {self._title}{UNITS.get(name, '')}: {' '.join(words)}\n")
        np.savetxt(stream, rows)

    def _stream(self, name: str) -> IO[str]:
        if name not in self._streams:
            final = self._path(name)
            try:
                final.parent.mkdir(parents=True, exist_ok=True)
                stream = open(final.with_name(f".{final.name}.tmp"), "w", encoding="utf-8")  # noqa: SIM115
            except OSError as error:
                raise UserError(f"{final}: cannot be written ({error.strerror})") from None
            self._streams[name] = stream
        return self._streams[name]

    def _path(self, name: str) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.{name}.out")
