"""What every reader of weight files gives: arrays by name, loaded when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LazyArray:
    """An array of a file.

    Attributes:
        shape: its shape.
        dtype: its element type once loaded.
        load: reads it; raises :class:`lamkit.errors.UserError` where the file is damaged.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], NDArray[Any]]


def shown(name: object, width: int = 90) -> str:
    """A name of a foreign file for a message: control characters escaped, long ones cut."""
    text = str(name) if isinstance(name, str) and name.isprintable() else ascii(name)[:width]
    return text if len(text) <= width else text[: width - 1] + "…"


def listed(names: Iterable[object], most: int = 10) -> str:
    """Names one below the other for a message, at most ``most`` of them."""
    names = list(names)
    lines = [f"\n  {shown(name)}" for name in names[:most]]
    return "".join(lines) + (f"\n  and {len(names) - most} more" if len(names) > most else "")
