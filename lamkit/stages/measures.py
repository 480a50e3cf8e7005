"""Everything that an evaluation measures of one head, collected while the frames pass by once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lamkit.bootstrap import Resampled
from lamkit.breakdown import Breakdown
from lamkit.data.frame import Frame
from lamkit.metrics import ErrorSums
from lamkit.report.dp_test import DpErrors
from lamkit.report.parity import ParitySample


class Measures:
    """Errors, their intervals, their breakdown, and pairs for the parity plots.

    Args:
        n_atoms: of each frame that will be added, in that order.
        reference: of the head, eV by atomic number, [119].
    """

    def __init__(self, n_atoms: ArrayLike, reference: NDArray[np.float64]) -> None:
        self.reference = reference
        self.sums, self.breakdown, self.resampled, self.dp = ErrorSums(), Breakdown(), Resampled(), DpErrors()
        self.parity = ParitySample(n_atoms, reference)

    def add(self, i: int, frame: Frame, prediction: Mapping[str, Any]) -> None:
        """Add frame ``i`` and what the model predicts for it."""
        self.sums.add(
            len(frame), prediction["energy"], frame.energy, prediction["forces"], frame.forces,
            prediction.get("stress"), frame.stress, self.reference[frame.numbers].sum(),
        )  # fmt: skip
        if frame.atom_energies is not None and "energies" in prediction:
            self.sums.add_extra("atom_energies", prediction["energies"], frame.atom_energies)
        if frame.hessian is not None and "hessian" in prediction:
            self.sums.add_extra("hessian", prediction["hessian"], frame.hessian[:, 1])
        self.parity.add(i, frame, prediction)
        for part in (self.breakdown, self.resampled, self.dp):
            part.add(frame, prediction)

    def result(self, conservative: bool) -> dict[str, Any]:
        """What :func:`lamkit.stages.evaluate.run` returns of a head; ``conservative`` as for ``ErrorSums.orb``."""
        return {
            **self.sums.result(),
            "intervals": self.resampled.result(),
            "by_element": self.breakdown.by_element(),
            "by_force": self.breakdown.by_force(),
            "orb": self.sums.orb(conservative),
            "dp": self.dp.result(),
        }
