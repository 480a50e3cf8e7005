"""From a checkpoint on disk to a network with its weights."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms

from lamkit.errors import UserError
from lamkit.model import build as models
from lamkit.model.base import Headed
from lamkit.model.runtime import setup
from lamkit.train.checkpoint import Checkpoint


def build(
    checkpoint: Checkpoint,
    device: str = "CPU",
    heads: Sequence[str] | None = None,
    dtype: ms.Type = ms.float32,
) -> Headed:
    """The network of ``checkpoint`` with its weights; with ``heads`` only those, in that order.

    Raises:
        UserError: a head is not there, or the weights do not fit the architecture.
    """
    setup(device)
    names = list(checkpoint.heads if heads is None else [checkpoint.head(h) for h in heads])
    potential = models.build(checkpoint.trunk, names, dtype=dtype)
    wanted = tuple(f"heads.{name}." for name in names)
    weights = {
        name: array
        for name, array in checkpoint.weights.items()
        if not name.startswith("heads.") or name.startswith(wanted)
    }
    try:
        potential.load_state(weights)
    except UserError as error:
        raise UserError(f"{checkpoint.path}: {error}") from None
    return potential
