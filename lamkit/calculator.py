"""ASE calculator of a LAMKit checkpoint, with a batched ``predict`` beside it.

    from lamkit.calculator import LamCalculator
    atoms.calc = LamCalculator("run", head="mptrj")

Structures are padded to few compiled shapes; in MD the neighbour list is reused by means of a skin. All heads
of a checkpoint, and all calculators made of it, share one compiled network.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from lamkit.data.batch import Graph, collate, make_graph, shape_of
from lamkit.data.frame import NUMBERS, SYMBOLS, Frame, make_frame
from lamkit.data.heads import LevelOfTheory
from lamkit.data.neighbors import Neighbors, neighbor_list
from lamkit.data.shapes import Shapes
from lamkit.data.skin import SkinList
from lamkit.data.structure import check_distances, check_structure, named
from lamkit.errors import UserError
from lamkit.train.checkpoint import MODEL, Checkpoint, read

if TYPE_CHECKING:
    from ase import Atoms

CONDITIONS = ("charge", "spin")  # in atoms.info, for models that are conditioned on them
BATCH_EDGES = 14_000  # of one batched evaluation, which fills a shape of 2**14; one frame may have more


class LamCalculator(Calculator):
    """Energy, forces and stress by one head of a checkpoint.

    Args:
        path: checkpoint folder or run folder.
        head: which data set's head; may be left out where the checkpoint has only one. Setting ``.head``
            later changes to another one, which costs nothing.
        device: CPU, GPU or Ascend.
        skin: Å; the neighbour search is repeated when an atom has moved by half of it. 0 switches it off.
            The results are the same to the last bit.
        dtype: float32, or float64 where differences of energies matter more than time.

    Attributes:
        heads: all heads of the checkpoint.
        trunk: architecture.
        n_parameters: weights of the trunk and one head.

    Raises:
        UserError: no such checkpoint or head, or several heads and none named.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]  # type: ignore[misc]

    def __init__(
        self,
        path: str | Path,
        head: str | None = None,
        device: str = "CPU",
        skin: float = 0.5,
        dtype: Literal["float32", "float64"] = "float32",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        checkpoint = read(path)
        self.path = checkpoint.path
        self.heads = list(checkpoint.heads)
        self.trunk = checkpoint.trunk
        self._checkpoint = replace(checkpoint, weights={})
        self._head = checkpoint.head(head)
        self._dtype = np.dtype(dtype)
        self._network = _network(checkpoint, device, dtype)
        self._skin = SkinList(self.trunk.cutoff, self.trunk.max_neighbors, skin)
        self.n_parameters = self._network.n_parameters
        if self._network.of_atoms:
            self.implemented_properties = [*type(self).implemented_properties, "energies"]  # type: ignore[misc]

    @property
    def head(self) -> str:
        """The head in use; may be set."""
        return self._head

    @head.setter
    def head(self, name: str) -> None:
        self._head = self._checkpoint.head(name)
        self.results = {}

    @property
    def elements(self) -> list[str]:
        """Symbols that this head was trained on."""
        return list(self._checkpoint.elements[self._head])

    @property
    def level_of_theory(self) -> LevelOfTheory:
        """Of this head."""
        return self._checkpoint.head_configs[self._head].level_of_theory

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """ASE's entry: fill ``results`` for one structure."""
        super().calculate(atoms, list(properties), list(system_changes))
        frame = self._checked(self.atoms)  # type: ignore[arg-type]
        edges = self._skin.edges(frame.positions, frame.cell, frame.pbc)
        result = self._evaluate([frame], [self._graph(frame, edges)], latent=False)[0]
        self.results = {**result, "free_energy": result["energy"]}

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last result; for conditioned models charge and spin count, too."""
        changes: list[str] = super().check_state(atoms, tol=tol)
        if self.trunk.conditioning and self.atoms is not None:
            changes += [k for k in CONDITIONS if self.atoms.info.get(k) != atoms.info.get(k)]
        return changes

    def reset(self) -> None:
        """Forget the last structure and its neighbours; what is compiled stays."""
        super().reset()
        if hasattr(self, "_skin"):  # ASE calls this before the checkpoint is read, too
            self._skin.forget()

    def state(self) -> dict[str, Any]:
        """What, beside the structure, decides the last bits of the next result; in JSON's types."""
        return self._network.shapes.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as the calculator whose :meth:`state` this is would have."""
        self.reset()
        self._network.shapes.restore(state)

    def predict(self, atoms: Sequence[Atoms], latent: bool = False) -> list[dict[str, Any]]:
        """Evaluate many structures in batches.

        Args:
            atoms: any structures of elements that the head knows; constraints are not regarded.
            latent: also give the trunk's final features.

        Returns:
            For each structure ``energy`` (eV, total), ``forces`` ([n_atoms, 3] eV/Å), for fully periodic
            cells ``stress`` ([6] eV/Å³, Voigt, tension positive), ``confidence`` ([n_atoms, 50]) of models
            that have it, ``energies`` ([n_atoms] eV) of those that add up energies of atoms, and on request
            ``latent`` ([n_atoms, D]).

        Raises:
            UserError: a structure that cannot be evaluated; the message says which and why.
        """
        results: dict[int, dict[str, Any]] = {}
        frames = [self._checked(a, f"structure {i}") for i, a in enumerate(atoms)]
        order = sorted(range(len(frames)), key=lambda i: len(frames[i]))
        for members in self._batches(frames, order):
            indices, graphs = [i for i, _ in members], [g for _, g in members]
            values = self._evaluate([frames[i] for i in indices], graphs, latent)
            results.update(zip(indices, values, strict=True))
        return [results[i] for i in range(len(frames))]

    def check(self, atoms: Atoms, where: str = "") -> None:
        """Refuse a structure that this head cannot evaluate.

        Args:
            atoms: the structure.
            where: its place (file, index), for the message.

        Raises:
            UserError: what is wrong with it.
        """
        self._graph(self._checked(atoms, where), where=where)

    def _batches(self, frames: Sequence[Frame], order: Sequence[int]) -> Iterator[list[tuple[int, Graph]]]:
        """Graphs in the given order, put together up to ``BATCH_EDGES``."""
        members: list[tuple[int, Graph]] = []
        edges = 0
        for i in order:
            graph = self._graph(frames[i], where=f"structure {i}")
            if members and edges + graph.n_edges > BATCH_EDGES:
                yield members
                members, edges = [], 0
            members.append((i, graph))
            edges += graph.n_edges
        if members:
            yield members

    def _graph(self, frame: Frame, edges: Neighbors | None = None, where: str = "") -> Graph:
        """The graph of a structure, with its edges if they are known."""
        cutoff, limit = self.trunk.cutoff, self.trunk.max_neighbors
        if edges is None:
            with named(where):
                edges = neighbor_list(frame.positions, frame.cell, frame.pbc, cutoff, limit)
        check_distances(edges, frame.numbers, where)
        return make_graph(frame, cutoff, limit, self._dtype, edges)

    def _evaluate(
        self, frames: Sequence[Frame], graphs: Sequence[Graph], latent: bool
    ) -> list[dict[str, Any]]:
        """Run the network on one batch; energies get their references back in float64."""
        batch = collate(graphs, self._network.shapes.fit(shape_of(graphs)), dtype=self._dtype)
        values = self._network.predictor.predict(batch, self.heads.index(self._head), details=latent)
        reference = self._checkpoint.references[self._head]
        ends = np.cumsum([len(f) for f in frames])
        results = []
        for k, (frame, end) in enumerate(zip(frames, ends, strict=True)):
            rows = slice(int(end) - len(frame), int(end))
            per_atom = float(values["energy"][k])
            result: dict[str, Any] = {
                "energy": len(frame) * per_atom + float(reference[frame.numbers].sum()),
                "forces": values["forces"][rows].astype(np.float64),
            }
            if frame.pbc.all() and self.trunk.stress:
                result["stress"] = values["stress"][k].astype(np.float64)
            if "atom_energies" in values:
                result["energies"] = values["atom_energies"][rows] + reference[frame.numbers]
            if "confidence" in values:
                result["confidence"] = values["confidence"][rows]
            if latent:
                result["latent"] = values["latents"][rows]
            results.append(result)
        return results

    def _checked(self, atoms: Atoms, where: str = "") -> Frame:
        """The structure as a frame, or what is wrong with it."""
        check_structure(atoms, where)
        at = f"{where}: " if where else ""
        missing = [k for k in CONDITIONS if k not in atoms.info]
        if self.trunk.conditioning and missing:
            raise UserError(
                f"{at}has no {' and no '.join(missing)}, which this model needs; set atoms.info['charge'] (in e) "
                "and atoms.info['spin'] (multiplicity), in a file charge=0 spin=1"
            )
        known = {NUMBERS[s] for s in self._checkpoint.elements[self._head]}
        unknown = [SYMBOLS[z] for z in np.unique(atoms.numbers) if z not in known]
        if unknown:
            raise UserError(
                f"{at}{', '.join(sorted(unknown))}: head '{self._head}' of {self.path} was not trained on "
                f"{'this element' if len(unknown) == 1 else 'these elements'}; "
                f"it knows {', '.join(self.elements)}. Take another head or fine-tune one on such data"
            )
        conditions = {k: atoms.info[k] for k in CONDITIONS if k in atoms.info}
        return make_frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, info=conditions)


class _Network:
    """The compiled network of a checkpoint with all its heads, and the shapes it is compiled for."""

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        import mindspore

        from lamkit.model.inference import Predictor
        from lamkit.train.restore import build

        potential = build(checkpoint, device, dtype=getattr(mindspore, dtype))
        self.predictor = Predictor(potential)
        self.of_atoms = "atom_energies" in potential.output_names
        trunk, heads = potential.trunk_parameters(), potential.head_parameters()
        self.n_parameters = int(
            sum(p.size for p in trunk) + sum(p.size for p in heads) // len(checkpoint.heads)
        )
        # A narrow network costs the same for 20 edges as for 200: let small molecules share a shape.
        self.shapes = Shapes(floor=checkpoint.trunk.least_edges)


# Networks in use, so that every head and every calculator of a checkpoint has the same one.
_NETWORKS: weakref.WeakValueDictionary[tuple[Any, ...], _Network] = weakref.WeakValueDictionary()


def _network(checkpoint: Checkpoint, device: str, dtype: str) -> _Network:
    weights = (checkpoint.path / MODEL).resolve()
    facts = weights.stat()  # a checkpoint that was written anew is another network
    key = (str(weights), facts.st_ino, facts.st_mtime_ns, facts.st_size, device, dtype)
    network = _NETWORKS.get(key)
    if network is None:
        network = _NETWORKS[key] = _Network(checkpoint, device, dtype)
    return network
