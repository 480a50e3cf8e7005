"""Low-rank adaptation of the trunk's matrices, written on the gradient's side.

With W = W₀ + B A the chain rule gives dL/dB = G Aᵀ and dL/dA = Bᵀ G from the gradient G = dL/dW of the plain
matrix. So the network computes with plain matrices W as ever, whatever kernels it uses; only the update knows
of A and B, and writes W = W₀ + B A after each step. A begins at random, B at zero (Hu et al., ICLR 2022), and the
product is not scaled. Clipping goes by the norm of G.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from lamkit.train.config import TrainConfig

EPSILON = 1e-8
STREAM = 81  # name of the random sequence that the A are drawn from


class Adapters(nn.Cell):
    """A and B of every adapted matrix, their moments, and their step.

    Args:
        weights: the matrices, with the values that they begin with.
        averages: the same in the network of averaged weights.
        rank: of the products.
        config: moments, decay and seed.
    """

    def __init__(
        self, weights: Sequence[Parameter], averages: Sequence[Parameter], rank: int, config: TrainConfig
    ) -> None:
        super().__init__(auto_prefix=False)
        rng = np.random.default_rng([config.seed, STREAM])
        down = [rng.normal(0.0, p.shape[1] ** -0.5, (rank, p.shape[1])) for p in weights]
        up = [np.zeros((p.shape[0], rank)) for p in weights]
        self.weights, self.averages = ParameterTuple(weights), ParameterTuple(averages)
        self.start = _parameters("lora.start", [p.asnumpy() for p in weights], weights)
        self.a, self.b = _parameters("lora.a", down, weights), _parameters("lora.b", up, weights)
        empty = [np.zeros_like(x) for x in down], [np.zeros_like(x) for x in up]
        self.a_m, self.b_m = (
            _parameters(f"lora.m.{k}", v, weights) for k, v in zip("ab", empty, strict=True)
        )
        self.a_v, self.b_v = (
            _parameters(f"lora.v.{k}", v, weights) for k, v in zip("ab", empty, strict=True)
        )
        self.beta1, self.beta2, self.decay = config.beta1, config.beta2, config.weight_decay
        self.adam = ops.Adam()

    def construct(
        self, loss: Tensor, gradients: tuple[Tensor, ...], scale: Tensor, numbers: Tensor
    ) -> Tensor:
        """AdamW on A and B, then the matrices and their averages.

        Args:
            loss: returned, so that nothing is left out of the graph.
            gradients: of the matrices.
            scale: factor of clipping.
            numbers: as in :meth:`lamkit.train.step.TrainStep.construct`.
        """
        rate, power1, power2, average = numbers[0], numbers[1], numbers[2], numbers[5]
        beta1, beta2 = ops.full_like(rate, self.beta1), ops.full_like(rate, self.beta2)
        epsilon, kept = ops.full_like(rate, EPSILON), 1.0 - rate * self.decay
        for i in range(len(self.weights)):
            gradient = gradients[i] * scale
            of_a = ops.matmul(ops.transpose(self.b[i], (1, 0)), gradient)
            of_b = ops.matmul(gradient, ops.transpose(self.a[i], (1, 0)))
            loss = ops.depend(loss, ops.assign(self.a[i], self.a[i] * kept))
            loss = ops.depend(loss, ops.assign(self.b[i], self.b[i] * kept))
            loss = ops.depend(
                loss,
                self.adam(
                    self.a[i], self.a_m[i], self.a_v[i], power1, power2, rate, beta1, beta2, epsilon, of_a
                ),
            )
            loss = ops.depend(
                loss,
                self.adam(
                    self.b[i], self.b_m[i], self.b_v[i], power1, power2, rate, beta1, beta2, epsilon, of_b
                ),
            )
            new = self.start[i] + ops.matmul(self.b[i], self.a[i])
            loss = ops.depend(loss, ops.assign(self.weights[i], new))
            mixed = self.averages[i] * average + new * (1.0 - average)
            loss = ops.depend(loss, ops.assign(self.averages[i], mixed))
        return loss

    def parameters(self) -> list[Parameter]:
        """What a resumed run needs beside the matrices."""
        groups = (self.a, self.b, self.a_m, self.b_m, self.a_v, self.b_v)
        return [p for group in groups for p in group]


def _parameters(prefix: str, values: Sequence[np.ndarray], names: Sequence[Parameter]) -> ParameterTuple:
    return ParameterTuple(
        [
            Parameter(Tensor(v.astype(np.float32)), name=f"{prefix}.{p.name}", requires_grad=False)
            for v, p in zip(values, names, strict=True)
        ]
    )
