"""Graphs of single frames and padded batches of them, in numpy; padding and masks are made here only.

The last node and the last graph of a batch are dummies that take all padding, so that the network treats
a padded batch like any other (jraph's ``pad_with_graphs``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lamkit.data.atom_labels import atom_labels
from lamkit.data.frame import Frame, from_voigt, to_voigt, volume
from lamkit.data.neighbors import Neighbors, is_periodic, neighbor_list
from lamkit.errors import UserError

# Two atoms closer than this (Å) have no direction between them in float32.
COINCIDENT = 1e-3


class Shape(NamedTuple):
    """Size of a padded batch, the dummy node and the dummy graph included."""

    n_atoms: int
    n_edges: int
    n_graphs: int

    def holds(self, n_atoms: int, n_edges: int, n_graphs: int) -> bool:
        """True where so many real atoms, edges and graphs fit beside the dummies."""
        return n_atoms < self.n_atoms and n_edges <= self.n_edges and n_graphs < self.n_graphs


class Graph(NamedTuple):
    """What the network and the loss need of one frame; labels are None where they are missing.

    Attributes:
        numbers: [n_atoms] int32 atomic numbers.
        senders, receivers: [n_edges] int32.
        vectors: [n_edges, 3] Å, receiver image minus sender.
        volume: Å³; 1 where nothing is periodic.
        arms: [n_atoms, 3] Å, positions minus their mean; zeros for a frame with a cell.
        torque_inverse: [3, 3] Å⁻², pseudo-inverse of ``sum r r^T - sum r^2 I``; zeros with a cell.
        energy: eV, total.
        forces: [n_atoms, 3] eV/Å.
        stress: [6] eV/Å³, Voigt; NaN components are unknown.
        cutoff: Å, with which the edges were made.
        charge: e, total charge of the frame; NaN where it is not stated.
        spin: multiplicity of the frame, 0 for "any"; NaN where it is not stated.
        atom_energies: [n_atoms] eV.
        hessian: [K, 2, n_atoms, 3], as ``Frame.hessian``.
    """

    numbers: NDArray[np.int32]
    senders: NDArray[np.int32]
    receivers: NDArray[np.int32]
    vectors: NDArray[np.floating]
    volume: float
    arms: NDArray[np.floating]
    torque_inverse: NDArray[np.floating]
    energy: float | None
    forces: NDArray[np.floating] | None
    stress: NDArray[np.floating] | None
    cutoff: float
    charge: float = np.nan
    spin: float = np.nan
    atom_energies: NDArray[np.floating] | None = None
    hessian: NDArray[np.floating] | None = None

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def n_edges(self) -> int:
        """Number of directed edges."""
        return len(self.senders)


class Batch(NamedTuple):
    """Several graphs in arrays of a fixed :class:`Shape` (N atoms, E edges, G graphs).

    Masks are 1 where a value is known and 0 elsewhere (padding, missing labels).

    Attributes:
        numbers: [N] int32, 0 for the dummy.
        node_graph: [N] int32, graph of each node.
        vectors: [E, 3] Å; padding edges are (2 cutoff, 0, 0) from the dummy to the dummy.
        senders, receivers: [E] int32.
        edge_graph: [E] int32.
        n_atoms: [G], 1 for dummies.
        volume: [G] Å³, 1 where nothing is periodic and for dummies.
        node_mask, graph_mask: [N], [G].
        arms: [N, 3] Å.
        torque_inverse: [G, 3, 3] Å⁻².
        charge, spin: [G] e and multiplicity; NaN where not stated, 0 for dummies.
        energy: [G] eV/atom, ``(E - sum of references) / n_atoms``.
        energy_mask: [G].
        forces: [N, 3] eV/Å.
        forces_mask: [N].
        stress: [G, 6] eV/Å³, Voigt.
        stress_mask: [G, 6].
        atom_energies, atom_energies_mask: [N] eV, less the references.
        directions: [N, 3], of each graph one of those in ``Frame.hessian``.
        products, products_mask: [N, 3] eV/Å², of the Hessian with it; [N].
    """

    numbers: NDArray[np.int32]
    node_graph: NDArray[np.int32]
    vectors: NDArray[np.floating]
    senders: NDArray[np.int32]
    receivers: NDArray[np.int32]
    edge_graph: NDArray[np.int32]
    n_atoms: NDArray[np.floating]
    volume: NDArray[np.floating]
    node_mask: NDArray[np.floating]
    graph_mask: NDArray[np.floating]
    arms: NDArray[np.floating]
    torque_inverse: NDArray[np.floating]
    charge: NDArray[np.floating]
    spin: NDArray[np.floating]
    energy: NDArray[np.floating]
    energy_mask: NDArray[np.floating]
    forces: NDArray[np.floating]
    forces_mask: NDArray[np.floating]
    stress: NDArray[np.floating]
    stress_mask: NDArray[np.floating]
    atom_energies: NDArray[np.floating]
    atom_energies_mask: NDArray[np.floating]
    directions: NDArray[np.floating]
    products: NDArray[np.floating]
    products_mask: NDArray[np.floating]

    @property
    def shape(self) -> Shape:
        """The padded size."""
        return Shape(len(self.numbers), len(self.senders), len(self.n_atoms))


def make_graph(
    frame: Frame,
    cutoff: float,
    max_neighbors: int | None,
    dtype: DTypeLike = np.float32,
    edges: Neighbors | None = None,
) -> Graph:
    """The graph of one frame.

    Args:
        frame: the structure with whatever labels it has.
        cutoff: Å.
        max_neighbors: nearest receivers kept per sender; None keeps all.
        dtype: of all real arrays; float64 for checks.
        edges: the neighbours within ``cutoff``, where they are known already.

    Raises:
        UserError: two atoms on one place, a position that is not finite, a broken cell.
    """
    if edges is None:
        try:
            edges = neighbor_list(frame.positions, frame.cell, frame.pbc, cutoff, max_neighbors)
        except UserError as error:
            raise UserError(f"{_where(frame)}{error}") from None
    if len(edges.distances) and edges.distances.min() < COINCIDENT:
        first = int(edges.distances.argmin())
        raise UserError(
            f"{_where(frame)}atoms {edges.senders[first]} and {edges.receivers[first]} are "
            f"{edges.distances[first]:.1e} Å apart (at least {COINCIDENT} Å is needed); "
            "remove one of them or check the cell"
        )
    arms, torque_inverse = _lever(np.asarray(frame.positions, np.float64), np.asarray(frame.cell))
    periodic = is_periodic(frame.cell, frame.pbc)
    size = volume(frame) if periodic else 0.0
    return Graph(
        numbers=np.asarray(frame.numbers, dtype=np.int32),
        senders=edges.senders,
        receivers=edges.receivers,
        vectors=edges.vectors.astype(dtype),
        volume=size if size > 0.0 else 1.0,
        arms=arms.astype(dtype),
        torque_inverse=torque_inverse.astype(dtype),
        energy=None if frame.energy is None else float(frame.energy),
        forces=None if frame.forces is None else np.asarray(frame.forces, dtype=dtype),
        stress=None if frame.stress is None or size == 0.0 else np.asarray(frame.stress, dtype=dtype),
        cutoff=float(cutoff),
        **conditions(frame),
        atom_energies=None if frame.atom_energies is None else np.asarray(frame.atom_energies, np.float64),
        hessian=None if frame.hessian is None else np.asarray(frame.hessian, dtype=dtype),
    )


def conditions(frame: Frame) -> dict[str, float]:
    """``charge`` and ``spin`` of a frame from its ``info``; NaN where it does not say.

    Raises:
        UserError: it says something that is no number.
    """
    found = {}
    for name in ("charge", "spin"):
        value = frame.info.get(name)
        try:
            found[name] = np.nan if value is None else float(value)
        except (TypeError, ValueError):
            raise UserError(f"{_where(frame)}info['{name}'] is {value!r}: it must be a number") from None
    return found


def require_conditions(batch: Batch) -> None:
    """Refuse a batch for a network that is conditioned on charge and spin where it does not state them.

    Raises:
        UserError: naming the first such graph.
    """
    for name in ("charge", "spin"):
        missing = np.flatnonzero(~np.isfinite(getattr(batch, name)) & (batch.graph_mask > 0))
        if len(missing):
            raise UserError(
                f"this model needs the total charge and the spin multiplicity of every structure, and structure "
                f"{missing[0]} of a batch has no {name}: set atoms.info['charge'] and atoms.info['spin'] "
                "(for example 0 and 1)"
            )


def _where(frame: Frame) -> str:
    return f"{frame.source}, frame {frame.step}: " if frame.source else ""


def _lever(positions: NDArray, cell: NDArray) -> tuple[NDArray, NDArray]:
    """Lever arms and inverse of the torque matrix of a frame without cell; zeros for one with a cell.

    M = sum r r^T - (sum |r|^2) I is singular for single atoms and linear molecules: hence the
    pseudo-inverse, with a threshold that also catches molecules that are linear up to rounding.
    """
    if np.any(cell != 0.0):
        return np.zeros_like(positions), np.zeros((3, 3))
    arms = positions - positions.mean(axis=0)
    matrix = arms.T @ arms - np.square(arms).sum() * np.eye(3)
    return arms, np.linalg.pinv(matrix, rcond=1e-10, hermitian=True)


def shape_of(graphs: Iterable[Graph]) -> Shape:
    """The smallest shape that holds all these graphs in one batch."""
    graphs = list(graphs)
    return Shape(sum(g.n_atoms for g in graphs) + 1, max(1, sum(g.n_edges for g in graphs)), len(graphs) + 1)


def collate(
    graphs: Sequence[Graph],
    shape: Shape,
    reference: NDArray[np.float64] | None = None,
    dtype: DTypeLike = np.float32,
    direction: int = 0,
) -> Batch:
    """Put graphs side by side and fill up to ``shape``.

    Args:
        graphs: at least one, all made with the same cutoff.
        shape: size of the batch.
        reference: [119] eV, energy per atom of each element, subtracted from the energies in float64;
            None subtracts nothing.
        dtype: of all real arrays.
        direction: which one of each graph's directions is taken, counted on from the first after the last.

    Raises:
        UserError: the graphs do not fit the shape; with the numbers.
    """
    atoms = np.array([g.n_atoms for g in graphs], dtype=np.int64)
    edges = np.array([g.n_edges for g in graphs], dtype=np.int64)
    if not shape.holds(int(atoms.sum()), int(edges.sum()), len(graphs)):
        raise UserError(
            f"{len(graphs)} graphs with {atoms.sum()} atoms and {edges.sum()} edges do not fit a batch of "
            f"{shape.n_graphs - 1} graphs, {shape.n_atoms - 1} atoms and {shape.n_edges} edges "
            f"(largest graph: {atoms.max(initial=0)} atoms, {edges.max(initial=0)} edges); "
            "raise train.batch_atoms or lower the cutoff or max_neighbors"
        )
    topology = _topology(graphs, shape, atoms, edges, dtype)
    labels = _labels(graphs, shape, atoms, reference, dtype)
    return Batch(**topology, **labels, **atom_labels(graphs, shape.n_atoms, reference, dtype, direction))


def _topology(
    graphs: Sequence[Graph], shape: Shape, atoms: NDArray, edges: NDArray, dtype: DTypeLike
) -> dict[str, NDArray]:
    """The inputs of the network."""
    n_atoms, n_edges, n_graphs = int(atoms.sum()), int(edges.sum()), len(graphs)
    dummy_node, dummy_graph = shape.n_atoms - 1, shape.n_graphs - 1
    offsets = np.repeat(np.cumsum(atoms) - atoms, edges)
    vectors = np.zeros((shape.n_edges, 3), dtype)
    vectors[n_edges:, 0] = 2.0 * (graphs[0].cutoff if graphs else 1.0)
    return {
        "numbers": _filled([g.numbers for g in graphs], shape.n_atoms, 0, np.int32),
        "node_graph": _filled([np.repeat(np.arange(n_graphs), atoms)], shape.n_atoms, dummy_graph, np.int32),
        "vectors": _overwrite(vectors, [g.vectors for g in graphs]),
        "senders": _shifted([g.senders for g in graphs], offsets, shape.n_edges, dummy_node),
        "receivers": _shifted([g.receivers for g in graphs], offsets, shape.n_edges, dummy_node),
        "edge_graph": _filled([np.repeat(np.arange(n_graphs), edges)], shape.n_edges, dummy_graph, np.int32),
        "n_atoms": _filled([atoms], shape.n_graphs, 1, dtype),
        "volume": _filled([np.array([g.volume for g in graphs])], shape.n_graphs, 1, dtype),
        "node_mask": _filled([np.ones(n_atoms)], shape.n_atoms, 0, dtype),
        "graph_mask": _filled([np.ones(n_graphs)], shape.n_graphs, 0, dtype),
        "arms": _overwrite(np.zeros((shape.n_atoms, 3), dtype), [g.arms for g in graphs]),
        "torque_inverse": _overwrite(
            np.zeros((shape.n_graphs, 3, 3), dtype), [g.torque_inverse[None] for g in graphs]
        ),
        "charge": _filled([np.array([g.charge for g in graphs])], shape.n_graphs, 0, dtype),
        "spin": _filled([np.array([g.spin for g in graphs])], shape.n_graphs, 0, dtype),
    }


def _labels(
    graphs: Sequence[Graph], shape: Shape, atoms: NDArray, reference: NDArray | None, dtype: DTypeLike
) -> dict[str, NDArray]:
    """The labels and their masks; what is missing is 0 with mask 0."""
    batch = {
        "energy": np.zeros(shape.n_graphs, dtype),
        "energy_mask": np.zeros(shape.n_graphs, dtype),
        "forces": np.zeros((shape.n_atoms, 3), dtype),
        "forces_mask": np.zeros(shape.n_atoms, dtype),
        "stress": np.zeros((shape.n_graphs, 6), dtype),
        "stress_mask": np.zeros((shape.n_graphs, 6), dtype),
    }
    start = 0
    for i, (graph, count) in enumerate(zip(graphs, atoms, strict=True)):
        if graph.energy is not None:
            baseline = 0.0 if reference is None else float(reference[graph.numbers].sum())
            batch["energy"][i] = (graph.energy - baseline) / count
            batch["energy_mask"][i] = 1.0
        if graph.forces is not None:
            batch["forces"][start : start + count] = graph.forces
            batch["forces_mask"][start : start + count] = 1.0
        if graph.stress is not None:
            known = np.isfinite(graph.stress)
            batch["stress"][i] = np.where(known, graph.stress, 0.0)
            batch["stress_mask"][i] = known
        start += count
    return batch


def _overwrite(target: NDArray, pieces: Sequence[NDArray]) -> NDArray:
    """``target`` with its first rows replaced by the pieces, one after another."""
    if pieces:
        joined = np.concatenate(pieces)
        target[: len(joined)] = joined
    return target


def _filled(pieces: Sequence[NDArray], length: int, fill: float, dtype: DTypeLike) -> NDArray:
    return _overwrite(np.full(length, fill, dtype), pieces)


def _shifted(pieces: Sequence[NDArray], offsets: NDArray, length: int, fill: int) -> NDArray:
    """Atom indices counted over the whole batch."""
    target = np.full(length, fill, np.int32)
    if pieces:
        target[: len(offsets)] = np.concatenate(pieces) + offsets
    return target


def random_rotations(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """[n, 3, 3] proper rotations, uniform over all of them (from random unit quaternions)."""
    q = rng.normal(size=(n, 4))
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def rotate(batch: Batch, rotations: NDArray) -> Batch:
    """The batch with every graph turned: x -> R x, forces alike, stress -> R s R^T.

    A graph whose stress is known only in part stays as it is: rotation would mix known components with
    unknown ones.

    Args:
        batch: any batch.
        rotations: [3, 3] for all graphs or [G, 3, 3] for each.
    """
    partly = (batch.stress_mask.sum(axis=1) > 0) & (batch.stress_mask.sum(axis=1) < 6)
    full = np.broadcast_to(rotations, (len(batch.n_atoms), 3, 3))
    turn = np.where(partly[:, None, None], np.eye(3), full).astype(batch.vectors.dtype)
    of_edge, of_node = turn[batch.edge_graph], turn[batch.node_graph]
    return batch._replace(
        vectors=_turned(of_edge, batch.vectors),
        arms=_turned(of_node, batch.arms),
        forces=_turned(of_node, batch.forces),
        stress=to_voigt(turn @ from_voigt(batch.stress) @ turn.swapaxes(1, 2)).astype(turn.dtype),
        torque_inverse=turn @ batch.torque_inverse @ turn.swapaxes(1, 2),
        directions=_turned(of_node, batch.directions),
        products=_turned(of_node, batch.products),
    )


def _turned(turn: NDArray, vectors: NDArray) -> NDArray:
    return np.einsum("nij,nj->ni", turn, vectors)
