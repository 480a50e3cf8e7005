"""From an architecture to its network."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms

from lamkit.model.base import Headed
from lamkit.model.config import Architecture, DeepPotConfig
from lamkit.model.deeppot import DeepPot
from lamkit.model.potential import Potential


def build(config: Architecture, heads: Sequence[str], seed: int = 0, dtype: ms.Type = ms.float32) -> Headed:
    """A potential with starting weights; arguments as for :class:`Potential` and :class:`DeepPot`."""
    if isinstance(config, DeepPotConfig):
        return DeepPot(config, heads, seed, dtype)
    return Potential(config, heads, seed, dtype)
