"""What a simulation writes while it runs: a trajectory and a table, which can be cut back to a checkpoint.

Both files only grow. A checkpoint holds their lengths, so that a run that was killed goes on as if it had not
been: whatever was written after the checkpoint is cut off and written again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

LABELS = ("energy", "free_energy", "forces", "stress")


class Table:
    """A CSV file that grows by rows.

    Args:
        path: the file.
        columns: names of its columns.
        length: bytes to keep of a file that is there; 0 begins anew.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], length: int = 0) -> None:
        self.columns = columns
        self._stream = _cut(path, length)
        if length == 0:
            self._stream.write((",".join(columns) + "\n").encode())

    def add(self, row: Mapping[str, float | None]) -> None:
        """Write a row; None is an empty field."""
        fields = (row[c] for c in self.columns)
        self._stream.write((",".join("" if f is None else f"{f:.10g}" for f in fields) + "\n").encode())

    def flush(self) -> int:
        """Make sure that all is on disk; returns the length in bytes."""
        return _flush(self._stream)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of a file that :class:`Table` wrote; NaN where a field is empty."""
    data = np.genfromtxt(path, delimiter=",", names=True, dtype=float, encoding="utf-8")
    data = np.atleast_1d(data)
    return {name: data[name] for name in data.dtype.names or ()}


class ExtxyzTrajectory:
    """Frames in extended XYZ; arguments as for :class:`Table`, ``length`` in bytes."""

    suffix = ".extxyz"

    def __init__(self, path: Path, length: int = 0) -> None:
        self._stream = _cut(path, length)

    def add(self, atoms: Atoms) -> None:
        """Write a frame."""
        import io

        from ase.io.extxyz import write_extxyz

        text = io.StringIO()
        write_extxyz(text, [atoms])
        self._stream.write(text.getvalue().encode())

    def flush(self) -> int:
        """Make sure that all is on disk; returns the length in bytes."""
        return _flush(self._stream)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class AseTrajectory:
    """Frames in ASE's binary ``.traj``; ``length`` is a number of frames."""

    suffix = ".traj"

    def __init__(self, path: Path, length: int = 0) -> None:
        from ase.io.trajectory import Trajectory

        if length:
            kept = path.with_name(f".{path.name}.tmp")
            with Trajectory(path) as old, Trajectory(kept, "w") as new:
                for i in range(length):
                    new.write(old[i])
            os.replace(kept, path)
        self._length = length
        self._writer = Trajectory(path, "a" if length else "w")

    def add(self, atoms: Atoms) -> None:
        """Write a frame."""
        self._writer.write(atoms)
        self._length += 1

    def flush(self) -> int:
        """Number of frames, all of which are in the file."""
        return self._length

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


TRAJECTORIES: dict[str, type[ExtxyzTrajectory] | type[AseTrajectory]] = {
    "extxyz": ExtxyzTrajectory,
    "traj": AseTrajectory,
}


def still(atoms: Atoms, **info: Any) -> Atoms:
    """A copy of a moving structure with the labels of its calculator as they are now."""
    from ase.calculators.singlepoint import SinglePointCalculator

    frame = atoms.copy()
    frame.info.update(info)
    results = {k: np.copy(v) if np.ndim(v) else v for k, v in atoms.calc.results.items() if k in LABELS}
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def _cut(path: Path, length: int) -> Any:
    """The file, opened for appending and cut to ``length`` bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = open(path, "r+b" if length else "wb")  # noqa: SIM115 (kept open by the owner)
    stream.truncate(length)
    stream.seek(length)
    return stream


def _flush(stream: Any) -> int:
    stream.flush()
    os.fsync(stream.fileno())
    return int(stream.tell())
