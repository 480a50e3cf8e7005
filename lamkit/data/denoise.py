"""Frames with displaced atoms, whose forces point back: what a trunk is pre-trained on without labels.

The schedule is LAMKit's own: each time a frame is drawn it gets a standard deviation σ, its logarithm uniform
between those of ``smallest`` and ``largest``, and every coordinate is displaced by σ times a normal number, the
mean displacement of the frame taken off. The target force is −δ/s eV/Å, where s is the root mean square of σ over
the schedule, so that targets have a variance of 1. For one σ this is denoising score matching: the best answer is
the gradient of the logarithm of the density of structures blurred by σ, a conservative field (Vincent 2011; for
molecules Zaidi et al., ICLR 2023), so that conservative models can learn it, too.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lamkit.data.frame import Frame, without_labels
from lamkit.data.view import View

STREAM = 4  # name of the random sequence, beside those of the sampler


def target_scale(smallest: float, largest: float) -> float:
    """Root mean square of σ (Å) with ln σ uniform between the bounds."""
    if math.isclose(smallest, largest):
        return largest
    return math.sqrt((largest**2 - smallest**2) / (2.0 * math.log(largest / smallest)))


def displaced(frame: Frame, smallest: float, largest: float, rng: np.random.Generator) -> Frame:
    """``frame`` with noise on its positions; its forces are −δ/s, its energy and stress unknown."""
    sigma = math.exp(rng.uniform(math.log(smallest), math.log(largest)))
    noise = sigma * rng.normal(size=(len(frame), 3))
    noise -= noise.mean(axis=0)
    forces = -noise / target_scale(smallest, largest)
    return replace(without_labels(frame), positions=frame.positions + noise, forces=forces)


class NoisyView(View):
    """Frames of a view with noise; the same noise whenever the same frame is drawn in the same epoch.

    Args:
        view: the frames as they are.
        smallest: σ, Å.
        largest: σ, Å.
        seed: of the noise.
    """

    def __init__(self, view: View, smallest: float, largest: float, seed: int) -> None:
        super().__init__(view.dataset, view.indices)
        self.smallest, self.largest, self.seed = smallest, largest, seed

    def frame(self, i: int) -> Frame:
        """Frame ``i`` with the noise of the first epoch."""
        return self.frame_of(i, 0)

    def frame_of(self, i: int, epoch: int) -> Frame:
        """Frame ``i`` with the noise of an epoch."""
        rng = np.random.default_rng([self.seed, STREAM, epoch, int(self.indices[i])])
        return displaced(super().frame(i), self.smallest, self.largest, rng)
