"""One training step as one compiled graph: loss, gradient, clipping, AdamW, weight average.

Heads are stacked along a leading axis. The step takes the slices of the head that is drawn, differentiates
with respect to them, updates them and writes them back; the slices of the other heads, their moments and
their averages are not touched, so a head that is not drawn neither decays nor drifts.

AdamW: m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², θ ← θ − lr(m̂/(√v̂ + ε) + λθ), with the bias corrections taken
from each head's own number of steps (Loshchilov and Hutter, ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from numpy.typing import NDArray

from lamkit.model.base import Headed
from lamkit.train.config import TrainConfig
from lamkit.train.lora import Adapters
from lamkit.train.objective import Objective
from lamkit.train.tune import Lora, trained

EPSILON = 1e-8


def _zeros_like(parameters: list[Parameter], prefix: str) -> ParameterTuple:
    return ParameterTuple(
        [
            Parameter(Tensor(np.zeros(p.shape, np.float32)), name=f"{prefix}.{p.name}", requires_grad=False)
            for p in parameters
        ]
    )


class TrainStep(nn.Cell):
    """The whole step. Called directly in graph mode; one compilation per batch shape.

    Args:
        potential: the network that is trained.
        average: a second network of the same shape whose parameters hold the moving average.
        config: loss kind, moments, decay, clipping.
    """

    def __init__(self, potential: Headed, average: Headed, config: TrainConfig) -> None:
        super().__init__()
        self.objective = Objective(potential, config.loss)
        self.trunk = ParameterTuple(trained(potential, config.tune))
        self.heads = ParameterTuple(potential.head_parameters())
        self.on_trunk, self.adapted = len(self.trunk) > 0, isinstance(config.tune, Lora)
        self.gradient = ops.value_and_grad(
            self.objective, 0, self.trunk if self.on_trunk else None, has_aux=True
        )
        self.trunk_average = ParameterTuple(trained(average, config.tune))
        self.heads_average = ParameterTuple(average.head_parameters())
        if isinstance(config.tune, Lora):
            self.adapters = Adapters(self.trunk, self.trunk_average, config.tune.lora, config)
        moving = [] if self.adapted else list(self.trunk)
        self.trunk_m, self.trunk_v = _zeros_like(moving, "m"), _zeros_like(moving, "v")
        self.heads_m = _zeros_like(list(self.heads), "m")
        self.heads_v = _zeros_like(list(self.heads), "v")
        self.trunk_decays = tuple(_decays(p.name, p.shape) for p in self.trunk)
        self.heads_decays = tuple(_decays(p.name, p.shape[1:]) for p in self.heads)
        self.beta1, self.beta2 = config.beta1, config.beta2
        self.decay, self.clip = config.weight_decay, config.clip_norm
        self.adam = ops.Adam()
        self.put = ops.ScatterUpdate()

    def construct(
        self, head: Tensor, numbers: Tensor, weights: Tensor, units: Tensor, *batch: Tensor
    ) -> tuple[Tensor, ...]:
        """One step on one batch of one head.

        Args:
            head: scalar int32.
            numbers: [7] learning rate, β₁ᵗ and β₂ᵗ of the trunk, the same two of the head, averaging decays of
                trunk and head.
            weights: weights of the loss's terms, in the order of ``objective.loss.names``.
            units: [3] units of the errors.
            batch: from :func:`lamkit.train.objective.tensors`.

        Returns:
            loss, gradient norm, mean squared errors of energy per atom, forces and stress.
        """
        slices = self.objective.potential.head_slices(head)
        outputs, of_slices, of_trunk = self.differentiate(slices, head, weights, units, *batch)
        norm = self._norm(of_slices, of_trunk)
        scale = self.clipping(norm)
        loss = self.update_trunk(outputs[0], of_trunk, scale, numbers)
        loss = self.update_head(loss, head, slices, of_slices, scale, numbers)
        return loss, norm, outputs[1], outputs[2], outputs[3]

    def differentiate(
        self, slices: tuple[Tensor, ...], head: Tensor, weights: Tensor, units: Tensor, *batch: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Loss and mean squared errors, gradients by the slices of a head, gradients by the trunk."""
        outputs, gradients = self.gradient(slices, head, weights, units, *batch)
        of_slices, of_trunk = gradients if self.on_trunk else (gradients, ())
        return outputs[:4], of_slices, of_trunk

    def clipping(self, norm: Tensor) -> Tensor:
        """Factor that brings a gradient of this norm down to the largest allowed; 0 if it is not finite."""
        scale = ops.minimum(ops.ones_like(norm), self.clip / (norm + 1e-12))
        return ops.select(ops.isfinite(norm), scale, ops.zeros_like(scale))

    def update_trunk(
        self, loss: Tensor, gradients: tuple[Tensor, ...], scale: Tensor, numbers: Tensor
    ) -> Tensor:
        """Move what is trained of the trunk; returns ``loss``, which depends on it."""
        if self.adapted:
            return self.adapters(loss, gradients, scale, numbers)
        return self._update_trunk(loss, gradients, scale, numbers)

    def _norm(self, of_slices: tuple[Tensor, ...], of_trunk: tuple[Tensor, ...]) -> Tensor:
        total = ops.square(of_slices[0]).sum()
        for gradient in of_slices[1:]:
            total = total + ops.square(gradient).sum()
        for gradient in of_trunk:
            total = total + ops.square(gradient).sum()
        return ops.sqrt(total)

    def _update_trunk(
        self, loss: Tensor, gradients: tuple[Tensor, ...], scale: Tensor, numbers: Tensor
    ) -> Tensor:
        rate, power1, power2, average = numbers[0], numbers[1], numbers[2], numbers[5]
        beta1, beta2 = ops.full_like(rate, self.beta1), ops.full_like(rate, self.beta2)
        epsilon = ops.full_like(rate, EPSILON)
        for i in range(len(self.trunk)):
            if self.trunk_decays[i]:
                loss = ops.depend(loss, ops.assign(self.trunk[i], self.trunk[i] * (1.0 - rate * self.decay)))
            updated = self.adam(
                self.trunk[i], self.trunk_m[i], self.trunk_v[i],
                power1, power2, rate, beta1, beta2, epsilon, gradients[i] * scale,
            )  # fmt: skip
            loss = ops.depend(loss, updated)
            mixed = self.trunk_average[i] * average + self.trunk[i] * (1.0 - average)
            loss = ops.depend(loss, ops.assign(self.trunk_average[i], mixed))
        return loss

    def update_head(
        self,
        loss: Tensor,
        head: Tensor,
        slices: tuple[Tensor, ...],
        gradients: tuple[Tensor, ...],
        scale: Tensor,
        numbers: Tensor,
    ) -> Tensor:
        """Move the head that was drawn; returns ``loss``, which depends on it."""
        rate, power1, power2, average = numbers[0], numbers[3], numbers[4], numbers[6]
        where = ops.reshape(head, (1,))
        for i in range(len(self.heads)):
            gradient = gradients[i] * scale
            m = self.beta1 * ops.gather(self.heads_m[i], head, 0) + (1 - self.beta1) * gradient
            v = self.beta2 * ops.gather(self.heads_v[i], head, 0) + (1 - self.beta2) * ops.square(gradient)
            step = (m / (1.0 - power1)) / (ops.sqrt(v / (1.0 - power2)) + EPSILON)
            decay = self.decay if self.heads_decays[i] else 0.0
            new = slices[i] - rate * (step + decay * slices[i])
            mean = ops.gather(self.heads_average[i], head, 0) * average + new * (1.0 - average)
            loss = ops.depend(loss, self.put(self.heads_m[i], where, ops.expand_dims(m, 0)))
            loss = ops.depend(loss, self.put(self.heads_v[i], where, ops.expand_dims(v, 0)))
            loss = ops.depend(loss, self.put(self.heads[i], where, ops.expand_dims(new, 0)))
            loss = ops.depend(loss, self.put(self.heads_average[i], where, ops.expand_dims(mean, 0)))
        return loss

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Raw weights and moments by name, for ``optimizer.safetensors``."""
        return {name: p.asnumpy().copy() for name, p in self._kept()}

    def load_state(self, state: dict[str, NDArray[np.float32]]) -> None:
        """Inverse of :meth:`state`; every array must be there with its shape.

        Raises:
            KeyError: an array is missing.
        """
        for name, p in self._kept():
            p.set_data(Tensor(state[name]))

    def _kept(self) -> Iterator[tuple[str, Parameter]]:
        """Everything that changes in a step, less the averages, which a checkpoint holds as its weights."""
        yield from ((f"w.{p.name}", p) for p in (*self.trunk, *self.heads))
        moments = (*self.trunk_m, *self.trunk_v, *self.heads_m, *self.heads_v)
        yield from ((p.name, p) for p in (*moments, *(self.adapters.parameters() if self.adapted else ())))


def _decays(name: str, shape: tuple[int, ...]) -> bool:
    """Weight decay acts on weight matrices only: not on biases, norms or the table of elements."""
    return len(shape) >= 2 and min(shape) > 1 and "emb" not in name
