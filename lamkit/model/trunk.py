"""The Orb trunk: atomic numbers and edge vectors in, one feature vector per atom out.

Encoder and L attention-gated interaction layers; formulas and names follow the public Orb models. The
denoising decoder of the public checkpoints is here, too: a force field makes no use of it.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from lamkit.model.conditioning import ChargeSpin
from lamkit.model.config import TrunkConfig
from lamkit.model.features import FEATURES, Envelope
from lamkit.model.gradients import Gather, SegmentSum
from lamkit.model.layers import Linear, Mlp, Named, uniform
from lamkit.model.native import cells, predict

# Rows of the embedding table: atomic number is the index, 0 is the dummy of padding.
N_ELEMENTS = 119


class Interaction(nn.Cell):
    """One message-passing layer.

    With c_ij the envelope, e_ij the edge and n_i the node features:
    a_ij = sigmoid(w e_ij + b) c_ij (one gate for each direction), de_ij = MLP([e_ij, n_i, n_j]),
    R_k = sum over received a^r de, S_k = sum over sent a^s de, dn_k = MLP([n_k, R_k, S_k]).
    Gates see the edge before its update, messages are the update without the residual. Where the trunk is
    conditioned, it adds :attr:`condition` of charge and spin to the nodes first.
    """

    def __init__(
        self, config: TrunkConfig, rng: np.random.Generator, dtype: ms.Type, native: bool = False
    ) -> None:
        super().__init__()
        width, twice = config.latent, config.conservative
        rows, edges = ("rows", "edges") if native else ("", "")
        self.width = width
        self.edge_mlp = Mlp(
            3 * width, config.hidden, width, config.version, rng, dtype, native=edges, twice=twice
        )
        self.node_mlp = Mlp(
            3 * width, config.hidden, width, config.version, rng, dtype, native=rows, twice=twice
        )
        if native:
            self.exchange = cells.Exchange(config.version, dtype)
            self.exchange_pull = cells.ExchangePull(config.version, dtype)
        self.receive_gate = Linear(width, 1, rng, dtype)
        self.send_gate = Linear(width, 1, rng, dtype)
        self.conditioned = config.conditioning
        if config.conditioning:
            self.condition = Linear(width, width, rng, dtype)
        self.gather = Gather()
        self.sum = SegmentSum()

    def construct(
        self, nodes: Tensor, edges: Tensor, cutoff: Tensor, senders: Tensor, receivers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From nodes [n_atoms, D], edges [n_edges, D] and cutoff [n_edges, 1] to updated nodes and edges."""
        like = ops.stop_gradient(nodes)
        gates = ops.sigmoid(self._gate_layer(edges)) * cutoff
        update = self.edge_mlp.rest(self._first_edge_layer(nodes, edges, senders, receivers))
        gathered = self.sum(gates[:, :1] * update, receivers, like)
        scattered = self.sum(gates[:, 1:] * update, senders, like)
        nodes = nodes + self.node_mlp(ops.concat((nodes, gathered, scattered), 1))
        return nodes, edges + update

    def kept(
        self, nodes: Tensor, edges: Tensor, cutoff: Tensor, senders: Tensor, receivers: Tensor
    ) -> tuple[Tensor, Tensor, Any]:
        """As :meth:`construct` by C++ operators, with what :meth:`pull` needs."""
        update, of_update = self.edge_mlp.kept(edges, nodes, senders, receivers)
        weight, bias = self._gates()
        gated = (edges, update, cutoff, senders, receivers, weight, bias)
        messages, after = self.exchange(nodes, *gated)
        change, of_change = self.node_mlp.kept(ops.concat((nodes, messages), 1))
        return nodes + change, after, (gated, of_update, of_change)

    def pull(self, d_nodes: Tensor, d_edges: Tensor, kept: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients with respect to nodes, edges and cutoff from those of the updated nodes and edges."""
        gated, of_update, of_change = kept
        d_input = self.node_mlp.pull(d_nodes, of_change)
        d_nodes = d_nodes + d_input[:, : self.width]
        by_gates, d_update, d_cutoff = self.exchange_pull(d_input[:, self.width :], d_edges, *gated)
        by_update, at_nodes = self.edge_mlp.pull(d_update, of_update, d_nodes, gated[3], gated[4])
        return d_nodes + at_nodes, by_gates + by_update, d_cutoff

    def make_lean(self, name: str, config: TrunkConfig, dtype: ms.Type) -> predict.Layer:
        """Make the cells of :meth:`predicted`; returned is the one whose memory counts."""
        version, width, hidden, pulled = config.version, config.latent, config.hidden, config.conservative
        self.packed_edges = predict.Layer(
            version, dtype, f"{name}.edges", (width, width, hidden, width), pulled
        )
        self.packed_nodes = predict.Rows(
            version, dtype, f"{name}.nodes", (3 * width, 0, hidden, width), pulled
        )
        self.packed_nodes.keep_all()
        return self.packed_edges

    def pack(self) -> None:
        """Take the weights as they are now for :meth:`predicted`."""
        self.packed_edges.fill(self.edge_mlp.weights())
        self.packed_nodes.fill(self.node_mlp.weights())

    def predicted(
        self,
        nodes: Tensor,
        edges: Tensor,
        cutoff: Tensor,
        senders: Tensor,
        receivers: Tensor,
        live: Tensor,
        every: Tensor,
    ) -> tuple[Tensor, Tensor, Any]:
        """As :meth:`kept` for prediction; ``live`` edges and ``every`` node are real (int32 [1])."""
        messages, after, of_edges = self.packed_edges(
            nodes, edges, cutoff, senders, receivers, self._gates(), live
        )
        change, of_nodes = self.packed_nodes(ops.concat((nodes, messages), 1), every)
        return nodes + change, after, (of_edges, of_nodes)

    def predicted_pull(self, d_nodes: Tensor, d_edges: Tensor, kept: Any) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`pull`, for :meth:`predicted`."""
        of_edges, of_nodes = kept
        d_input = self.packed_nodes.pull(d_nodes, of_nodes)
        d_nodes = d_nodes + d_input[:, : self.width]
        d_edges, d_cutoff, at_nodes = self.packed_edges.pull(d_input[:, self.width :], d_edges, of_edges)
        return d_nodes + at_nodes, d_edges, d_cutoff

    def _gates(self) -> tuple[Tensor, Tensor]:
        """Weights [2, D] and biases [2] of both gates, receive and send."""
        weight = ops.concat((self.receive_gate.weight, self.send_gate.weight), 0)
        return weight, ops.concat((self.receive_gate.bias, self.send_gate.bias), 0)

    def _gate_layer(self, edges: Tensor) -> Tensor:
        """Both gates in one product: [n_edges, D] -> [n_edges, 2], receive and send."""
        weight, bias = self._gates()
        return ops.dense(edges, weight, bias)

    def _first_edge_layer(self, nodes: Tensor, edges: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """W [e, n_i, n_j] + b with W in three parts, the node parts once per node instead of per edge."""
        of_edge, of_sender, of_receiver = ops.split(self.edge_mlp.first.weight, self.width, 1)
        at_sender = self.gather(ops.dense(nodes, of_sender, self.edge_mlp.first.bias), senders)
        at_receiver = self.gather(ops.dense(nodes, of_receiver), receivers)
        return ops.dense(edges, of_edge) + at_sender + at_receiver

    def named(self, prefix: str) -> Named:
        """Parameters under their public names."""
        yield from self.node_mlp.named(f"{prefix}._node_mlp")
        yield from self.edge_mlp.named(f"{prefix}._edge_mlp")
        yield from self.receive_gate.named(f"{prefix}._receive_attn")
        yield from self.send_gate.named(f"{prefix}._send_attn")
        if self.conditioned:
            yield from self.condition.named(f"{prefix}._cond_node_proj")


class Trunk(nn.Cell):
    """Encoder and interaction layers.

    Args:
        config: sizes and version.
        rng: draws the starting weights.
        dtype: float32; float64 for checks.
    """

    def __init__(self, config: TrunkConfig, rng: np.random.Generator, dtype: ms.Type = ms.float32) -> None:
        super().__init__()
        width, hidden, version = config.latent, config.hidden, config.version
        self.embedding = uniform(rng, (N_ELEMENTS, width), 3.0**0.5, dtype)
        self.features: Any = FEATURES[version](config, dtype)
        self.envelope = Envelope(config.cutoff, dtype)
        self.native, self.lean = cells.available(version, dtype), False
        self.config, self.dtype = config, dtype
        self.every = Tensor([2**31 - 1], ms.int32)
        rows, twice = "rows" if self.native else "", config.conservative
        self.node_encoder = Mlp(width, hidden, width, version, rng, dtype, native=rows)
        self.edge_encoder = Mlp(
            config.n_edge_inputs, hidden, width, version, rng, dtype, native=rows, twice=twice
        )
        self.layers = nn.CellList(
            [Interaction(config, rng, dtype, self.native) for _ in range(config.layers)]
        )
        self.depth = config.layers
        self.geometry_gradient = ms.grad(self.weighted_geometry, grad_position=0)
        self.conditioned, self.denoises = config.conditioning, config.decoder
        if config.conditioning:
            self.conditioner = ChargeSpin(width, rng, dtype)
        if config.decoder:
            self.decoder = Mlp(width, hidden, 3, version, rng, dtype, normed=False)

    def construct(
        self,
        numbers: Tensor,
        vectors: Tensor,
        senders: Tensor,
        receivers: Tensor,
        node_graph: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> Tensor:
        """Node features.

        Args:
            numbers: [n_atoms] atomic numbers.
            vectors: [n_edges, 3] Å, receiver image minus sender, none of length zero.
            senders: [n_edges].
            receivers: [n_edges].
            node_graph: [n_atoms], graph of each atom.
            charge: [n_graphs] e; read where the trunk is conditioned.
            spin: [n_graphs] multiplicity; likewise.

        Returns:
            [n_atoms, D].
        """
        if self.native:
            return self.kept(numbers, vectors, senders, receivers, node_graph, charge, spin)[0]
        nodes, edges, cutoff = self.encode(numbers, vectors)
        for layer in self.layers:
            nodes = self.conditioned_nodes(layer, nodes, node_graph, charge, spin)
            nodes, edges = layer(nodes, edges, cutoff, senders, receivers)
        return nodes

    def encode(self, numbers: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First nodes [n_atoms, D] and edges [n_edges, D], and the envelope of each edge [n_edges, 1]."""
        features, cutoff = self.geometry(vectors)
        nodes = self.node_encoder(ops.gather(self.embedding, numbers, 0))
        return nodes, self.edge_encoder(features), cutoff

    def geometry(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is told of edge vectors [n_edges, 3] Å: features and envelope [n_edges, 1]."""
        r = ops.sqrt(ops.sum(vectors * vectors, 1))
        envelope = self.envelope(r)
        features = self.features(r, vectors / ops.expand_dims(r, 1), envelope)
        return features, ops.expand_dims(envelope, 1)

    def weighted_geometry(self, vectors: Tensor, of_features: Tensor, of_cutoff: Tensor) -> Tensor:
        """Sum of features and envelope, each times a weight: its gradient pulls weights back to vectors."""
        features, cutoff = self.geometry(vectors)
        return ops.sum(features * of_features) + ops.sum(cutoff * of_cutoff)

    def kept(
        self,
        numbers: Tensor,
        vectors: Tensor,
        senders: Tensor,
        receivers: Tensor,
        node_graph: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> tuple[Tensor, Any]:
        """As :meth:`construct` by C++ operators, with what :meth:`pull` needs."""
        if self.lean:
            return self._predicted(numbers, vectors, senders, receivers, node_graph, charge, spin)
        features, cutoff = self.geometry(vectors)
        nodes, _ = self.node_encoder.kept(ops.gather(self.embedding, numbers, 0))
        edges, first = self.edge_encoder.kept(features)
        trail = ()
        for layer in self.layers:
            nodes = self.conditioned_nodes(layer, nodes, node_graph, charge, spin)
            nodes, edges, step = layer.kept(nodes, edges, cutoff, senders, receivers)
            trail = (*trail, step)  # type: ignore[assignment]  # graph mode
        return nodes, (first, trail, edges, cutoff)

    def _predicted(
        self,
        numbers: Tensor,
        vectors: Tensor,
        senders: Tensor,
        receivers: Tensor,
        node_graph: Tensor,
        charge: Tensor,
        spin: Tensor,
    ) -> tuple[Tensor, Any]:
        features, cutoff = self.geometry(vectors)
        # The edges of padding are the last, from the dummy node, which is the last one.
        real = ops.cast(senders < numbers.shape[0] - 1, ms.float32)
        live = ops.cast(ops.reshape(ops.sum(real), (1,)), ms.int32)
        nodes, _ = self.packed_nodes(ops.gather(self.embedding, numbers, 0), self.every)
        edges, first = self.packed_edges(features, live)
        trail = ()
        for layer in self.layers:
            nodes = self.conditioned_nodes(layer, nodes, node_graph, charge, spin)
            nodes, edges, step = layer.predicted(nodes, edges, cutoff, senders, receivers, live, self.every)
            trail = (*trail, step)  # type: ignore[assignment]  # graph mode
        return nodes, (first, trail, edges, cutoff)

    def pull(self, d_nodes: Tensor, kept: Any, vectors: Tensor) -> Tensor:
        """Gradient with respect to the edge vectors [n_edges, 3] from that of the final node features."""
        first, trail, edges, cutoff = kept
        # Zeros are constants of the compiled graph, which holds them for good: behind the last layer a row will do.
        d_edges, d_cutoff = ops.zeros_like(edges[:1] if self.lean else edges), ops.zeros_like(cutoff)
        for k in range(self.depth - 1, -1, -1):
            if self.lean:
                d_nodes, d_edges, more = self.layers[k].predicted_pull(d_nodes, d_edges, trail[k])
            else:
                d_nodes, d_edges, more = self.layers[k].pull(d_nodes, d_edges, trail[k])
            d_cutoff = d_cutoff + more
        if self.lean:
            d_features = self.packed_edges.pull(d_edges, first)
        else:
            d_features = self.edge_encoder.pull(d_edges, first)
        return self.geometry_gradient(vectors, d_features, d_cutoff)

    def predict_only(self) -> None:
        """Predict with the weights as they are now; keep nothing that only training needs."""
        if not self.native:
            return
        if not self.lean:
            self._make_lean()
        self.packed_nodes.fill(self.node_encoder.weights())
        self.packed_edges.fill(self.edge_encoder.weights())
        for layer in self.layers:
            layer.pack()

    def _make_lean(self) -> None:
        config, dtype = self.config, self.dtype
        width, hidden = config.latent, config.hidden
        self.packed_nodes = predict.Rows(
            config.version, dtype, "packed.nodes", (width, 0, hidden, width), pulled=False
        )
        self.packed_edges = predict.Rows(
            config.version,
            dtype,
            "packed.edges",
            (config.n_edge_inputs, 0, hidden, width),
            config.conservative,
        )
        found = [layer.make_lean(f"packed.{k}", config, dtype) for k, layer in enumerate(self.layers)]
        if config.conservative:
            # Of each edge: its features in every layer, in passing gradients and what the geometry takes; twice,
            # because MindSpore's memory has gaps (measured).
            others = (2 * config.layers + 7) * width + 6 * config.n_edge_inputs
            predict.share([self.packed_edges, *found], predict.room(), others)
        self.lean = True

    def conditioned_nodes(
        self, layer: Interaction, nodes: Tensor, node_graph: Tensor, charge: Tensor, spin: Tensor
    ) -> Tensor:
        """Nodes [n_atoms, D] as a layer starts from them: shifted by the layer's view of charge and spin."""
        if not self.conditioned:
            return nodes
        return nodes + ops.gather(layer.condition(self.conditioner(charge, spin)), node_graph, 0)

    def denoised(self, nodes: Tensor) -> Tensor:
        """What the decoder makes of final node features [n_atoms, D]: the noise of the positions, [n_atoms, 3]."""
        return self.decoder(nodes)

    def named(self, prefix: str = "model") -> Named:
        """Parameters and constants of a force field under their public names."""
        yield f"{prefix}.atom_emb.embeddings.weight", self.embedding
        yield from self.features.named(f"{prefix}.rbf_transform")
        if self.conditioned:
            yield from self.conditioner.named(f"{prefix}.conditioner")
        yield from self.node_encoder.named(f"{prefix}._encoder._node_fn")
        yield from self.edge_encoder.named(f"{prefix}._encoder._edge_fn")
        for i, layer in enumerate(self.layers):
            yield from layer.named(f"{prefix}.gnn_stacks.{i}")

    def named_decoder(self, prefix: str = "model") -> Named:
        """Parameters of the denoising network, if there is one."""
        if self.denoises:
            yield from self.decoder.named(f"{prefix}._decoder.node_fn")
