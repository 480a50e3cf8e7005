"""Numbers as people read them."""

from __future__ import annotations

from typing import Any

import numpy as np


def number(value: float | None) -> str:
    """Three significant digits; powers of ten only for what is very small."""
    if value is None or not np.isfinite(value):
        return "–"
    if 0 < abs(value) < 1e-4:
        return f"{value:.1e}"
    digits = 0 if value == 0 else max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{min(digits, 6)}f}"


def count(value: Any) -> str:
    """``1234567`` → ``1 234 567``; a dash for None."""
    return "–" if value is None else f"{int(value):,}".replace(",", " ")


def share(part: float, whole: float) -> str:
    """A part as percent, never rounded to 0 or to 100 unless it is."""
    if not whole or part in (0, whole):
        return "0 %" if not part else "100 %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"
