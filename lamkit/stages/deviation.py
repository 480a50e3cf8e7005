"""Where a student is wrong: its forces against the teacher's, on frames of its own MD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamkit.console import Progress
from lamkit.data.frame import to_atoms
from lamkit.data.selection import Limits, why_not
from lamkit.stages.engine import Frames

if TYPE_CHECKING:
    from lamkit.calculator import LamCalculator

CHUNK = 64


def force_deviations(calculator: LamCalculator, source: Frames) -> NDArray[np.float64]:
    """Root-mean-square difference of the force components of each frame, eV/Å: large frames are not favoured.

    Args:
        calculator: the student.
        source: frames with the teacher's forces.
    """
    found: list[float] = []
    with Progress(len(source), "student against teacher") as progress:
        for start in range(0, len(source), CHUNK):
            frames = [source.frame(i) for i in range(start, min(start + CHUNK, len(source)))]
            predicted = calculator.predict([to_atoms(f) for f in frames])
            for frame, values in zip(frames, predicted, strict=True):
                assert frame.forces is not None
                found.append(float(np.sqrt(np.square(values["forces"] - frame.forces).mean())))
            progress.update(start + len(frames))
    return np.array(found)


def choose(
    deviations: NDArray[np.float64], source: Frames, n: int, limits: Limits, target: float
) -> dict[str, Any]:
    """The ``n`` frames where the student is most wrong, of those that the teacher finds sane.

    The candidates were chosen for their diversity before; so the worst are not all alike.

    Args:
        deviations: from :func:`force_deviations`; NaN and infinity count as worst.
        source: the same frames, with the teacher's labels.
        n: how many.
        limits: what a frame has to keep to, the teacher's forces included.
        target: eV/Å; ``accurate`` is the part of the sane frames whose deviation is smaller.

    Returns:
        ``indices``, and of the sane frames ``accurate``, ``deviation_mean`` and ``deviation_max``, eV/Å.
    """
    sane = np.array([i for i in range(len(source)) if why_not(source.frame(i), limits) is None], dtype=int)
    known = np.nan_to_num(deviations[sane], nan=np.inf)
    order = np.argsort(-known, kind="stable")[:n]
    finite = known[np.isfinite(known)]
    return {
        "indices": sorted(int(i) for i in sane[order]),
        "insane": len(source) - len(sane),
        "accurate": float((known < target).mean()) if len(known) else 0.0,
        "deviation_mean": float(finite.mean()) if len(finite) else None,
        "deviation_max": float(finite.max()) if len(finite) else None,
    }
