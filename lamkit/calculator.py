"""ASE calculator of a LAMKit checkpoint, with a batched ``predict`` beside it.

    from lamkit.calculator import LamCalculator
    atoms.calc = LamCalculator("run", head="mptrj")

Structures are padded to few compiled shapes; in MD the neighbour list is reused by means of a skin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from lamkit.console import log
from lamkit.data.batch import Graph, Shape, collate, make_graph, shape_of
from lamkit.data.frame import NUMBERS, SYMBOLS, Frame, make_frame
from lamkit.data.neighbors import is_periodic
from lamkit.data.skin import SkinList
from lamkit.errors import UserError
from lamkit.train.checkpoint import Checkpoint, read

if TYPE_CHECKING:
    from ase import Atoms

TOUCHING = 0.1  # Å; atoms closer than this are an error of the structure, not physics
BATCH_EDGES = 14_000  # of one batched evaluation, which fills a shape of 2**14; one frame may have more
PATIENCE = 20  # calls with a shape that is too large, before one that fits is compiled
WASTE = 1.3  # ratio of padded to real work that is not worth another compiled shape
MAX_SHAPES = 8  # every compiled shape keeps its own memory


class LamCalculator(Calculator):
    """Energy, forces and stress by one head of a checkpoint.

    Args:
        path: checkpoint folder or run folder.
        head: which data set's head; may be left out where the checkpoint has only one.
        device: CPU, GPU or Ascend.
        skin: Å; the neighbour search is repeated when an atom has moved by half of it. 0 switches it off.

    Attributes:
        heads: all heads of the checkpoint.
        head: the one in use.
        elements: symbols that this head was trained on.
        level_of_theory: of this head.
        n_parameters: weights of the trunk and this head.

    Raises:
        UserError: no such checkpoint or head, or several heads and none named.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]  # type: ignore[misc]

    def __init__(
        self, path: str | Path, head: str | None = None, device: str = "CPU", skin: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        checkpoint = read(path)
        self.path = checkpoint.path
        self.heads = list(checkpoint.heads)
        self.head = checkpoint.head(head)
        self.elements = list(checkpoint.elements[self.head])
        self.level_of_theory = checkpoint.head_configs[self.head].level_of_theory
        self.trunk = checkpoint.trunk
        self._reference = checkpoint.references[self.head]
        self._known = np.zeros(len(self._reference), dtype=bool)
        self._known[[NUMBERS[s] for s in self.elements]] = True
        self._predictor = _predictor(checkpoint, self.head, device)
        potential = self._predictor.potential
        weights = [*potential.trunk_parameters(), *potential.head_parameters()]
        self.n_parameters = int(sum(p.size for p in weights))
        # A narrow network costs the same for 20 edges as for 200: let small molecules share a shape.
        self._shapes = Shapes(floor=min(256, 2**19 // (self.trunk.latent * self.trunk.hidden)))
        self._skin = SkinList(self.trunk.cutoff, self.trunk.max_neighbors, skin)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """ASE's entry: fill ``results`` for one structure."""
        super().calculate(atoms, list(properties), list(system_changes))
        frame = self._checked(self.atoms)  # type: ignore[arg-type]
        result = self._evaluate([frame], [self._graph(frame)], latent=False)[0]
        self.results = {**result, "free_energy": result["energy"]}

    def reset(self) -> None:
        """Forget the last structure and its neighbours; what is compiled stays."""
        super().reset()
        if hasattr(self, "_skin"):  # ASE calls this before the checkpoint is read, too
            self._skin.forget()

    def predict(self, atoms: Sequence[Atoms], latent: bool = False) -> list[dict[str, Any]]:
        """Evaluate many structures in batches.

        Args:
            atoms: any structures of elements that the head knows.
            latent: also give the trunk's final features.

        Returns:
            For each structure ``energy`` (eV, total), ``forces`` ([n_atoms, 3] eV/Å), for fully periodic
            cells ``stress`` ([6] eV/Å³, Voigt, tension positive) and on request ``latent`` ([n_atoms, D]).

        Raises:
            UserError: a structure that cannot be evaluated; the message says which and why.
        """
        results: dict[int, dict[str, Any]] = {}
        frames = [self._checked(a, i) for i, a in enumerate(atoms)]
        order = sorted(range(len(frames)), key=lambda i: len(frames[i]))
        for members in self._batches(frames, order):
            indices, graphs = [i for i, _ in members], [g for _, g in members]
            values = self._evaluate([frames[i] for i in indices], graphs, latent)
            results.update(zip(indices, values, strict=True))
        return [results[i] for i in range(len(frames))]

    def _batches(self, frames: Sequence[Frame], order: Sequence[int]) -> Iterator[list[tuple[int, Graph]]]:
        """Graphs in the given order, put together up to ``BATCH_EDGES``."""
        members: list[tuple[int, Graph]] = []
        edges = 0
        for i in order:
            graph = make_graph(frames[i], self.trunk.cutoff, self.trunk.max_neighbors)
            self._refuse_touching(graph, frames[i])
            if members and edges + graph.n_edges > BATCH_EDGES:
                yield members
                members, edges = [], 0
            members.append((i, graph))
            edges += graph.n_edges
        if members:
            yield members

    def _graph(self, frame: Frame) -> Graph:
        """The graph of a structure in MD, by the skin list."""
        if not self.trunk.conservative and not frame.cell.any():  # torque removal needs more than edges
            graph = make_graph(frame, self.trunk.cutoff, self.trunk.max_neighbors)
        else:
            edges = self._skin.edges(frame.positions, frame.cell, frame.pbc)
            periodic = is_periodic(frame.cell, frame.pbc)
            graph = Graph(
                numbers=frame.numbers.astype(np.int32),
                senders=edges.senders,
                receivers=edges.receivers,
                vectors=edges.vectors.astype(np.float32),
                volume=abs(float(np.linalg.det(frame.cell))) or 1.0 if periodic else 1.0,
                arms=np.zeros((len(frame), 3), np.float32),
                torque_inverse=np.zeros((3, 3), np.float32),
                energy=None,
                forces=None,
                stress=None,
                cutoff=self.trunk.cutoff,
            )
        self._refuse_touching(graph, frame)
        return graph

    def _evaluate(
        self, frames: Sequence[Frame], graphs: Sequence[Graph], latent: bool
    ) -> list[dict[str, Any]]:
        """Run the network on one batch; energies get their references back in float64."""
        batch = collate(graphs, self._shapes.fit(shape_of(graphs)))
        values = self._predictor.predict(batch, 0, latents=latent)
        ends = np.cumsum([len(f) for f in frames])
        results = []
        for k, (frame, end) in enumerate(zip(frames, ends, strict=True)):
            rows = slice(int(end) - len(frame), int(end))
            per_atom = float(values["energy"][k])
            result: dict[str, Any] = {
                "energy": len(frame) * per_atom + float(self._reference[frame.numbers].sum()),
                "forces": values["forces"][rows].astype(np.float64),
            }
            if frame.pbc.all():
                result["stress"] = values["stress"][k].astype(np.float64)
            if latent:
                result["latent"] = values["latents"][rows]
            results.append(result)
        return results

    def _checked(self, atoms: Atoms, index: int | None = None) -> Frame:
        """The structure as a frame, or what is wrong with it."""
        where = "" if index is None else f"structure {index}: "
        if len(atoms) == 0:
            raise UserError(f"{where}has no atoms")
        if not np.isfinite(atoms.positions).all():
            i = int(np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))[0])
            raise UserError(
                f"{where}atom {i} ({SYMBOLS[atoms.numbers[i]]}) is at {atoms.positions[i].tolist()}: "
                "positions must be finite"
            )
        unknown = sorted({SYMBOLS[z] for z in atoms.numbers[~self._known[atoms.numbers]]})
        if unknown:
            raise UserError(
                f"{where}{', '.join(unknown)}: head '{self.head}' of {self.path} was not trained on "
                f"{'this element' if len(unknown) == 1 else 'these elements'}; "
                f"it knows {', '.join(self.elements)}. Take another head or fine-tune one on such data"
            )
        return make_frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)

    @staticmethod
    def _refuse_touching(graph: Graph, frame: Frame) -> None:
        squared = np.square(graph.vectors).sum(axis=1)
        if len(squared) and squared.min() < TOUCHING**2:
            k = int(squared.argmin())
            pair = [f"{i} ({SYMBOLS[frame.numbers[i]]})" for i in (graph.senders[k], graph.receivers[k])]
            raise UserError(
                f"atoms {pair[0]} and {pair[1]} are {np.sqrt(squared[k]):.3f} Å apart; "
                f"at least {TOUCHING} Å is needed. Remove one of them or check the cell"
            )


class Shapes:
    """The compiled shapes of a calculator: few, because each keeps its own memory and takes seconds to make.

    A structure goes into the smallest shape that holds it. When that wastes much work again and again, a
    shape that fits is added. New shapes have some room, so that MD does not outgrow them.

    Args:
        floor: edges that every shape has at least.
    """

    def __init__(self, floor: int = 1) -> None:
        self.shapes: list[Shape] = []
        self.floor = floor
        self._misfits: Counter[Shape] = Counter()

    def fit(self, needed: Shape) -> Shape:
        """The shape to pad to."""
        holding = [s for s in self.shapes if all(a >= b for a, b in zip(s, needed, strict=True))]
        best = min(holding, key=_work, default=None)
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


def _predictor(checkpoint: Checkpoint, head: str, device: str) -> Any:
    """The network with the weights of one head; the others are not loaded."""
    from lamkit.model.inference import Predictor
    from lamkit.train.restore import build

    return Predictor(build(checkpoint, device, [head]))
