"""What a DeepPot has to know of its data: elements, numbers of neighbours, size of its inputs.

The sizes follow DeePMD-kit's rule: over all places of an atom for neighbours, empty ones among them, the
deviation of the radial input and, of the three angular inputs together, theirs; at least 0.01.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamkit.console import log
from lamkit.data.batch import Graph, collate, make_graph, shape_of
from lamkit.data.frame import NUMBERS
from lamkit.data.neighbors import Neighbors, neighbor_list
from lamkit.model.config import SEL_MARGIN, Architecture, DeepPotConfig, Surroundings

if TYPE_CHECKING:
    from lamkit.data.dataset import View
    from lamkit.model.base import Headed
    from lamkit.train.checkpoint import Checkpoint
    from lamkit.train.tasks import Task

CALIBRATION_ATOMS = 600  # of each data set, by which descriptors are scaled
SAMPLE = 400  # frames of each data set whose neighbours are looked at, the largest among them
STEP = 4  # numbers of places are multiples of this
SMALLEST, UNSEEN = 0.01, 0.1  # deviations; of an element that is no centre in the sample


def settled(
    architecture: Architecture, tasks: Sequence[Task], start: Architecture | None, seed: int
) -> Architecture:
    """The architecture with all that it takes from the data; an Orb takes nothing.

    Args:
        architecture: as configured.
        tasks: data of all heads.
        start: architecture of the weights that training starts from; what it knows stays.
        seed: of the sample.
    """
    if not isinstance(architecture, DeepPotConfig):
        return architecture
    before = start.surroundings if isinstance(start, DeepPotConfig) else None
    symbols = {s for task in tasks for s in task.elements} | set(before.elements if before else ())
    elements = sorted(symbols, key=NUMBERS.__getitem__)
    counts = _Counts(elements, architecture)
    for task in tasks:
        _count(counts, task.train, architecture.cutoff, seed)
    found = counts.result(before)
    log.info(
        "neighbours within %g Å: room for %s; smallest distance %.2f Å",
        architecture.cutoff,
        ", ".join(f"{n} {e}" for e, n in zip(found.elements, found.sel, strict=True)),
        found.min_distance,
    )
    return architecture.model_copy(update={"surroundings": found})


def calibrate(
    network: Headed, average: Headed, tasks: Sequence[Task], start: Checkpoint | None, seed: int
) -> None:
    """Give a DeepPot and its average the constants that scale descriptors, from some training frames.

    What the weights that training starts from were trained with stays.
    """
    from lamkit.model.deeppot import DeepPot

    if not isinstance(network, DeepPot):
        return
    before = start.trunk.surroundings if start and isinstance(start.trunk, DeepPotConfig) else None
    known = before.elements if before is not None else []
    if set(known) >= set(network.elements):
        return
    graphs: list[Graph] = []
    for task in tasks:
        order = np.random.default_rng([seed, 12]).permutation(len(task.train))
        atoms = 0
        for i in order.tolist():
            graphs.append(make_graph(task.train.frame(i), network.config.cutoff, None))
            atoms += graphs[-1].n_atoms
            if atoms >= CALIBRATION_ATOMS:
                break
    network.calibrate(collate(graphs, shape_of(graphs)), known)
    average.load_state(network.state())


def _count(counts: _Counts, view: View, cutoff: float, seed: int) -> None:
    order = np.random.default_rng([seed, 11]).permutation(len(view))[: SAMPLE - 1]
    for i in sorted({int(np.argmax(view.n_atoms)), *order.tolist()}):
        frame = view.frame(i)
        counts.add(frame.numbers, neighbor_list(frame.positions, frame.cell, frame.pbc, cutoff))


def switch(r: NDArray[np.float64], smooth_from: float, cutoff: float) -> NDArray[np.float64]:
    """1 below ``smooth_from``, 0 beyond ``cutoff`` (Å), between them smooth to second order."""
    u = np.clip((r - smooth_from) / (cutoff - smooth_from), 0.0, 1.0)
    return (1.0 - u) ** 3 * (1.0 + u * (3.0 + u * 6.0))


class _Counts:
    """Sums over frames, by element of the centre."""

    def __init__(self, elements: list[str], config: DeepPotConfig) -> None:
        n = len(elements)
        self.elements, self.config = elements, config
        self.kind = np.zeros(len(NUMBERS) + 2, np.int64)
        self.kind[[NUMBERS[s] for s in elements]] = np.arange(n)
        self.most = np.zeros(n, np.int64)
        self.atoms, self.nearest = np.zeros(n), math.inf
        # Radial sum, its squares, sum of all angular inputs, its squares.
        self.sums = np.zeros((n, 4))

    def add(self, numbers: NDArray[np.integer], edges: Neighbors) -> None:
        """Take in one frame."""
        kinds, n = self.kind[numbers], len(self.elements)
        self.atoms += np.bincount(kinds, minlength=n)
        if not len(edges.senders):
            return
        pairs = np.bincount(edges.senders * n + kinds[edges.receivers], minlength=len(kinds) * n)
        self.most = np.maximum(self.most, pairs.reshape(-1, n).max(axis=0))
        self.nearest = min(self.nearest, float(edges.distances.min()))
        r = edges.distances
        w = switch(r, self.config.smooth_from, self.config.cutoff)
        radial, angular = w / r, edges.vectors * (w / r**2)[:, None]
        centre = kinds[edges.senders]
        columns = (radial, radial**2, angular.sum(axis=1), np.square(angular).sum(axis=1))
        for i, values in enumerate(columns):
            self.sums[:, i] += np.bincount(centre, weights=values, minlength=n)

    def result(self, before: Surroundings | None) -> Surroundings:
        """The facts; those of ``before`` are kept, room for neighbours grows where it must."""
        known = {} if before is None else dict(zip(before.elements, range(len(before.elements)), strict=True))
        sel = [STEP * math.ceil(max(SEL_MARGIN * m, 1) / STEP) for m in self.most.tolist()]
        if before is not None:
            sel = [
                max(s, before.sel[known[e]]) if e in known else s
                for e, s in zip(self.elements, sel, strict=True)
            ]
        slots = before.slots if before is not None else sum(sel)
        deviations = []
        for k, element in enumerate(self.elements):
            if before is not None and element in known:
                deviations.append(before.deviations[known[element]])
            else:
                deviations.append(_deviations(float(self.atoms[k]) * slots, self.sums[k]))
        nearest = min(self.nearest, before.min_distance if before is not None else math.inf)
        return Surroundings(
            elements=self.elements,
            sel=sel,
            slots=slots,
            deviations=deviations,
            min_distance=nearest if math.isfinite(nearest) else self.config.cutoff,
        )


def _deviations(places: float, sums: NDArray[np.float64]) -> tuple[float, float]:
    """Radial and angular deviation over all places of one element's atoms."""
    if places == 0:
        return UNSEEN, UNSEEN
    radial = sums[1] / places - (sums[0] / places) ** 2
    angular = sums[3] / (3 * places) - (sums[2] / (3 * places)) ** 2
    root = np.sqrt(np.maximum([radial, angular], 0.0))
    return max(float(root[0]), SMALLEST), max(float(root[1]), SMALLEST)
