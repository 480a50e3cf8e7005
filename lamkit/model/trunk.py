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

    def __init__(self, config: TrunkConfig, rng: np.random.Generator, dtype: ms.Type) -> None:
        super().__init__()
        width = config.latent
        self.width = width
        self.edge_mlp = Mlp(3 * width, config.hidden, width, config.version, rng, dtype)
        self.node_mlp = Mlp(3 * width, config.hidden, width, config.version, rng, dtype)
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

    def _gate_layer(self, edges: Tensor) -> Tensor:
        """Both gates in one product: [n_edges, D] -> [n_edges, 2], receive and send."""
        weight = ops.concat((self.receive_gate.weight, self.send_gate.weight), 0)
        bias = ops.concat((self.receive_gate.bias, self.send_gate.bias), 0)
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
        self.node_encoder = Mlp(width, hidden, width, version, rng, dtype)
        self.edge_encoder = Mlp(config.n_edge_inputs, hidden, width, version, rng, dtype)
        self.layers = nn.CellList([Interaction(config, rng, dtype) for _ in range(config.layers)])
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
        nodes, edges, cutoff = self.encode(numbers, vectors)
        for layer in self.layers:
            nodes = self.conditioned_nodes(layer, nodes, node_graph, charge, spin)
            nodes, edges = layer(nodes, edges, cutoff, senders, receivers)
        return nodes

    def encode(self, numbers: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First nodes [n_atoms, D] and edges [n_edges, D], and the envelope of each edge [n_edges, 1]."""
        r = ops.sqrt(ops.sum(vectors * vectors, 1))
        unit = vectors / ops.expand_dims(r, 1)
        envelope = self.envelope(r)
        nodes = self.node_encoder(ops.gather(self.embedding, numbers, 0))
        edges = self.edge_encoder(self.features(r, unit, envelope))
        return nodes, edges, ops.expand_dims(envelope, 1)

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
