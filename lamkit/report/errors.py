"""The errors of an evaluation in words: LAMKit's table, and the same in the words of Orb and of ``dp test``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lamkit.console import table
from lamkit.metrics import orb_unit

Result = Mapping[str, Mapping[str, Any]]  # head -> what lamkit.stages.evaluate.run returns for it


def summary(result: Result) -> str:
    """Errors of every head with their 95 % intervals, in meV/atom, meV/Å and meV/Å³."""
    headers = [
        "head", "frames", "E MAE", "E RMSE", "F MAE", "F RMSE", "F RMSE 95 %", "F target rms", "F cosine",
        "F<0.03", "S MAE",
    ]  # fmt: skip
    rows = [
        [
            head, r["n_frames"], *(_milli(r[k]) for k in ("energy_mae", "energy_rmse", "forces_mae")),
            _milli(r["forces_rmse"]), _interval(r.get("intervals", {}), "forces_rmse"),
            _milli(r["forces_rms_target"]), _plain(r["forces_cosine"]), _plain(r["fwt_0.03"]),
            _milli(r["stress_mae"], 3),
        ]
        for head, r in result.items()
    ]  # fmt: skip
    note = (
        "E in meV/atom, F in meV/Å, S in meV/Å³. F target rms: error of a model of zero forces. "
        "F<0.03: part of the frames with every force component within 0.03 eV/Å."
    )
    return "\n".join([table(rows, headers), note, *_of_atoms(result), *_how_resampled(result)])


def _of_atoms(result: Result) -> list[str]:
    """Errors of labels that few data have."""
    words = {
        "atom_energies_rmse": "energies of atoms, RMSE {} meV",
        "hessian_rmse": "Hessian products, RMSE {} meV/Å²",
    }
    return [
        f"{head}: {'; '.join(found)}."
        for head, r in result.items()
        if (found := [text.format(_milli(r[k])) for k, text in words.items() if k in r])
    ]


def _how_resampled(result: Result) -> list[str]:
    found = {head: r.get("intervals", {}) for head, r in result.items()}
    by_group = [f"{head} ({i['n']})" for head, i in found.items() if i.get("by") == "group"]
    by_frame = [head for head, i in found.items() if i.get("by") == "frame"]
    lines = []
    if by_group:
        lines.append(f"95 % intervals: bootstrap over whole groups of frames: {', '.join(by_group)}.")
    if by_frame:
        lines.append(
            f"95 % intervals of {', '.join(by_frame)}: bootstrap over single frames, too narrow if these are of "
            "the same trajectory."
        )
    return lines


def intervals(result: Result) -> str:
    """Every error with its interval."""
    rows = []
    for head, r in result.items():
        found = r.get("intervals", {})
        for name in ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse", "stress_mae", "stress_rmse"):
            if r[name] is not None:
                digits = 4 if name.startswith("stress") else 2
                rows.append((head, name, _milli(r[name], digits), _interval(found, name, digits)))
    units = "energies in meV/atom, forces in meV/Å, stresses in meV/Å³"
    return "\n".join([table(rows, ("head", "error", "value", "95 %")), units, *_how_resampled(result)])


def orb(result: Result) -> str:
    """The errors under the names of orb-models, with their units."""
    rows = [
        (head, name, f"{value:.6g}", orb_unit(name))
        for head, r in result.items()
        for name, value in r["orb"].items()
    ]
    return table(rows, ("head", "orb-models", "value", "unit"))


def dp_test(result: Result) -> str:
    """The errors as ``dp test`` prints them."""
    return "\n".join(r["dp_test"] for r in result.values())


def by_element(result: Result) -> str:
    """Force errors by element."""
    rows = [
        (head, symbol, *_row(r))
        for head, found in result.items()
        for symbol, r in found["by_element"].items()
    ]
    return table(rows, ("head", "element", *_COLUMNS))


def by_force(result: Result) -> str:
    """Force errors by the size of the force in the data."""
    rows = [
        (head, f"{r['from']:g} – {'∞' if r['to'] is None else format(r['to'], 'g')}", *_row(r))
        for head, found in result.items()
        for r in found["by_force"]
    ]
    return table(rows, ("head", "|F| eV/Å", *_COLUMNS))


_COLUMNS = ("atoms", "F MAE meV/Å", "F RMSE meV/Å", "F target rms", "F cosine")


def _row(r: Mapping[str, Any]) -> tuple[Any, ...]:
    errors = (_milli(r[k]) for k in ("forces_mae", "forces_rmse", "forces_rms_target"))
    return r["n_atoms"], *errors, _plain(r["forces_cosine"])


def _interval(found: Mapping[str, Any], name: str, digits: int = 1) -> str:
    return " – ".join(_milli(v, digits) for v in found[name]) if name in found else "-"


def _milli(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{1000 * value:.{digits}f}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


WORDS: dict[str, Callable[[Result], str]] = {
    "table": summary,
    "intervals": intervals,
    "elements": by_element,
    "forces": by_force,
    "orb": orb,
    "dp": dp_test,
}
