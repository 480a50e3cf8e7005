"""The compiled shapes of a calculator: which padded size a structure or a batch is given.

Each compiled shape keeps its own memory and takes seconds to make, and every edge of padding costs as much time
as a real one. So there are few, they have room to grow, and a better one is added only when waste repeats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lamkit.console import log
from lamkit.data.batch import Shape
from lamkit.data.buckets import holds

PATIENCE = 20  # calls with a shape that is too large, before one that fits is compiled
WASTE = 1.3  # ratio of padded to real work that is not worth another compiled shape
MAX_SHAPES = 8  # beyond these a shape is only added for what fits none of them


class Shapes:
    """Shapes in use.

    A structure goes into the smallest shape that holds it. When that wastes much work again and again, a
    shape that fits is added. New shapes have some room, so that MD does not outgrow them.

    Args:
        floor: edges that every shape has at least.

    Attributes:
        shapes: all so far.
    """

    def __init__(self, floor: int = 1) -> None:
        self.shapes: list[Shape] = []
        self.floor = floor
        self._misfits: Counter[Shape] = Counter()

    def fit(self, needed: Shape) -> Shape:
        """The shape to pad to."""
        best = min((s for s in self.shapes if holds(s, needed)), key=_work, default=None)
        roomy = _roomy(needed)
        roomy = roomy._replace(
            n_atoms=max(roomy.n_atoms, self.floor // 16 + 1), n_edges=max(roomy.n_edges, self.floor)
        )
        if best is not None:
            if _work(best) <= WASTE * _work(roomy) or len(self.shapes) >= MAX_SHAPES:
                return best
            self._misfits[roomy] += 1
            if self._misfits[roomy] < PATIENCE:
                return best
        log.debug("compiling for %d atoms, %d edges, %d graphs", *roomy)
        self.shapes.append(roomy)
        return roomy

    def state(self) -> dict[str, Any]:
        """All that decides the next shape, in JSON's types: a sum may round differently in another shape."""
        return {
            "shapes": [list(s) for s in self.shapes],
            "misfits": [[list(s), n] for s, n in self._misfits.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as the shapes whose :meth:`state` this is would have."""
        self.shapes = [Shape(*s) for s in state["shapes"]]
        self._misfits = Counter({Shape(*s): n for s, n in state["misfits"]})


def _work(shape: Shape) -> int:
    """Rows that go through the networks."""
    return shape.n_atoms + shape.n_edges


def _roomy(shape: Shape) -> Shape:
    """``shape`` with room to grow.

    One structure, as in MD: an eighth more edges, on a grid of eighths of powers of two. Batches come in
    every size: powers of two, so that a handful of shapes serves them all.
    """
    if shape.n_graphs == 2:
        return Shape(_grid(shape.n_atoms - 1) + 1, _grid(shape.n_edges + shape.n_edges // 8), 2)
    atoms, edges, graphs = (1 << max(n - 1, 1).bit_length() for n in shape)
    return Shape(atoms, max(edges, 1024), graphs)


def _grid(n: int) -> int:
    step = 1 << max(0, int(n).bit_length() - 4)
    return max(-(-n // step) * step, 1)
