"""Elements that a trunk has never seen: what their rows of the element table begin as.

A row that was never trained is a random vector, and whatever stands on it is noise. So a new element begins as
the nearest element of its group of the periodic table that the trunk knows, and without one as the mean over
all that it knows; training then tells it apart. The references of the energies are fitted in any case.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from lamkit.data.frame import NUMBERS
from lamkit.train.checkpoint import Checkpoint

TABLE = "model.atom_emb.embeddings.weight"
# Groups, downwards; hydrogen resembles none, and the two rows of f elements are families of their own.
GROUPS = (
    "Li Na K Rb Cs Fr", "Be Mg Ca Sr Ba Ra", "Sc Y Lu Lr", "Ti Zr Hf Rf", "V Nb Ta Db", "Cr Mo W Sg",
    "Mn Tc Re Bh", "Fe Ru Os Hs", "Co Rh Ir Mt", "Ni Pd Pt Ds", "Cu Ag Au Rg", "Zn Cd Hg Cn",
    "B Al Ga In Tl Nh", "C Si Ge Sn Pb Fl", "N P As Sb Bi Mc", "O S Se Te Po Lv", "F Cl Br I At Ts",
    "He Ne Ar Kr Xe Rn Og", "La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb",
    "Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No",
)  # fmt: skip


def seen(start: Checkpoint) -> set[str]:
    """Symbols that occurred in the training of any head."""
    return {symbol for symbols in start.elements.values() for symbol in symbols}


def nearest(symbol: str, known: Iterable[str]) -> str | None:
    """The element of ``known`` that stands nearest in the group of ``symbol``, the lighter of two; None without."""
    group: Sequence[str] = next((g.split() for g in GROUPS if symbol in g.split()), ())
    candidates = [other for other in group if other in set(known) and other != symbol]
    return min(candidates, key=lambda other: abs(group.index(other) - group.index(symbol)), default=None)


def with_rows(start: Checkpoint, symbols: Iterable[str]) -> tuple[Checkpoint, dict[str, str]]:
    """``start`` with rows for elements that it has never seen.

    Args:
        start: the checkpoint; it is not changed.
        symbols: elements that are wanted.

    Returns:
        The checkpoint, and for each new element what its row is made of, in words.
    """
    known = seen(start)
    new = [s for s in dict.fromkeys(symbols) if s not in known]
    if not new or TABLE not in start.weights or not known:
        return start, {}
    table, said = start.weights[TABLE].copy(), {}
    mean = np.mean([table[NUMBERS[s]] for s in sorted(known)], axis=0)
    for symbol in new:
        like = nearest(symbol, known)
        table[NUMBERS[symbol]] = mean if like is None else start.weights[TABLE][NUMBERS[like]]
        said[symbol] = "the mean of all known elements" if like is None else like
    return replace(start, weights={**start.weights, TABLE: table}), said
