"""Prediction without gradients of weights: one compiled cell per potential, numpy in and numpy out."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from lamkit.data.batch import Batch
from lamkit.model.potential import Potential, inputs


class Evaluator(nn.Cell):
    """Energies, forces and stresses of one head; each padded shape is compiled once.

    Args:
        potential: with its weights loaded.
    """

    def __init__(self, potential: Potential) -> None:
        super().__init__(auto_prefix=False)
        self.potential = potential
        self.set_train(False)

    def construct(self, head: Tensor, *batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``head`` is a scalar int32, ``batch`` as from :func:`inputs`; outputs as Potential.outputs."""
        slices = self.potential.head_slices(head)
        return self.potential.outputs(slices, self.potential.head_scales(head), *batch)


class LatentEvaluator(nn.Cell):
    """Final node features of the trunk."""

    def __init__(self, potential: Potential) -> None:
        super().__init__(auto_prefix=False)
        self.potential = potential
        self.set_train(False)

    def construct(self, numbers: Tensor, vectors: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """[N, D]."""
        return self.potential.node_features(numbers, vectors, senders, receivers)


class Predictor:
    """Holds the compiled cells of a potential.

    Args:
        potential: with its weights loaded.
    """

    def __init__(self, potential: Potential) -> None:
        self.potential = potential
        self._evaluate = Evaluator(potential)
        self._latents = LatentEvaluator(potential)

    def predict(self, batch: Batch, head: int, latents: bool = False) -> dict[str, np.ndarray]:
        """Predictions for a padded batch.

        Args:
            batch: from :func:`lamkit.data.batch.collate`.
            head: index into ``potential.heads``.
            latents: also give the final node features.

        Returns:
            ``energy`` [G] eV/atom without the references, ``forces`` [N, 3] eV/Å, ``stress`` [G, 6] eV/Å³
            and on request ``latents`` [N, D]; padded like the batch.
        """
        tensors = inputs(batch, self.potential.dtype)
        energy, forces, stress = self._evaluate(Tensor(head, ms.int32), *tensors)
        result = {"energy": energy.asnumpy(), "forces": forces.asnumpy(), "stress": stress.asnumpy()}
        if latents:
            result["latents"] = self._latents(*tensors[:4]).asnumpy()
        return result


def predict_batch(
    potential: Potential, batch: Batch, head: int, latents: bool = False
) -> dict[str, np.ndarray]:
    """:meth:`Predictor.predict` for a single batch; keep a Predictor to predict many."""
    return Predictor(potential).predict(batch, head, latents)
