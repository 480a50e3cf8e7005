"""Prediction without gradients of weights: one compiled cell per potential, numpy in and numpy out."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from lamkit.data.batch import Batch, require_conditions
from lamkit.model.base import Headed

# What takes extra work or memory and is seldom wanted.
DETAILS = ("rotational_grad", "latents")


class Evaluator(nn.Cell):
    """Predictions of one head; each padded shape is compiled once.

    Args:
        potential: with its weights loaded.
        names: which of ``potential.output_names``.
    """

    def __init__(self, potential: Headed, names: tuple[str, ...]) -> None:
        super().__init__(auto_prefix=False)
        self.potential = potential
        self.names = names
        self.places = tuple(potential.output_names.index(name) for name in names)
        self.set_train(False)

    def construct(self, head: Tensor, *batch: Tensor) -> tuple[Tensor, ...]:
        """``head`` is a scalar int32, ``batch`` as from ``potential.inputs``; outputs as Potential.outputs."""
        slices = self.potential.head_slices(head)
        outputs = self.potential.outputs(slices, self.potential.head_scales(head), *batch)
        chosen = ()
        for place in self.places:
            chosen = (*chosen, outputs[place])  # type: ignore[assignment]  # graph mode
        return chosen


class Predictor:
    """Holds the compiled cells of a potential.

    Args:
        potential: from the first prediction on it is for nothing else. Its weights are put in order for that, once.
    """

    def __init__(self, potential: Headed) -> None:
        self.potential = potential
        self._edition: int | None = None
        names = potential.output_names
        self._evaluate = Evaluator(potential, tuple(n for n in names if n not in DETAILS))
        self._evaluate_all = Evaluator(potential, names)

    def refresh(self) -> None:
        """To be called when a compiled step has changed weights; ``load_state`` is noticed without."""
        self._edition = None

    def predict(self, batch: Batch, head: int, details: bool = False) -> dict[str, np.ndarray]:
        """Predictions for a padded batch.

        Args:
            batch: from :func:`lamkit.data.batch.collate`.
            head: index into ``potential.heads``.
            details: also what :data:`DETAILS` names.

        Returns:
            ``energy`` [G] eV/atom without the references, ``forces`` [N, 3] eV/Å, ``stress`` [G, 6] eV/Å³,
            ``confidence`` [N, 50] (probability of each class of force errors) where heads have it,
            ``atom_energies`` [N] eV without the references of models made of such; as details
            ``rotational_grad`` [G, 3, 3] eV of conservative models and ``latents`` [N, D], the trunk's final
            node features. Padded like the batch.

        Raises:
            UserError: the potential is conditioned on charge and spin, and the batch has none.
        """
        if self.potential.config.conditioning:
            require_conditions(batch)
        if self._edition != self.potential.edition:
            self.potential.predict_only()
            self._edition = self.potential.edition
        cell = self._evaluate_all if details else self._evaluate
        outputs = cell(Tensor(head, ms.int32), *self.potential.inputs(batch))
        result = {name: value.asnumpy() for name, value in zip(cell.names, outputs, strict=True)}
        if "confidence" in result:
            result["confidence"] = _softmax(result["confidence"])
        return result


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def predict_batch(potential: Headed, batch: Batch, head: int, details: bool = False) -> dict[str, np.ndarray]:
    """:meth:`Predictor.predict` for a single batch; keep a Predictor to predict many."""
    return Predictor(potential).predict(batch, head, details)
