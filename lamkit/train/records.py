"""What a training run writes as it goes: ``lcurve.out``, ``metrics.csv``, ``versions.json``."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lamkit
from lamkit.files import atomic_write

METRICS = (
    "step",
    "head",
    "split",
    "energy_mae_meV_atom",
    "energy_rmse_meV_atom",
    "forces_mae_meV_A",
    "forces_rmse_meV_A",
    "stress_mae_meV_A3",
    "seconds",
)
# Terms of the loss that few runs have -> DeePMD's name of the error, our name of it, and its column of metrics.csv.
EXTRA = {
    "atom_energy": ("ae", "atom_energies_rmse", "atom_energies_rmse_meV"),
    "hessian": ("h", "hessian_rmse", "hessian_rmse_meV_A2"),
}
PACKAGES = ("mindspore", "numpy", "ase", "dpdata", "networkx", "pyyaml", "pydantic", "vesin", "safetensors")


def versions() -> dict[str, Any]:
    """LAMKit, Python, machine and the packages that numbers may depend on."""
    found: dict[str, Any] = {
        "lamkit": lamkit.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "command": sys.argv,
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def write_versions(folder: Path) -> None:
    """``versions.json`` in a run folder."""
    atomic_write(folder / "versions.json", json.dumps(versions(), indent=1))


class LearningCurve:
    """``lcurve.out`` in DeePMD's column grammar: step, per head val and trn RMSE, learning rate.

    Energies are per atom in eV, forces in eV/Å. ``rmse_trn`` is over the training batches since the last line,
    as drawn, without averaging of weights; a head without validation frames has no val columns. A head that
    was not drawn since the last line has nan.

    Args:
        path: the file.
        heads: name of each, and whether it has validation frames.
        extra: those of :data:`EXTRA` that the loss has; their RMSE is that of the validation only.
        keep_until: lines up to this step stay; None begins anew.
    """

    def __init__(
        self,
        path: Path,
        heads: Sequence[tuple[str, bool]],
        *,
        extra: Sequence[str] = (),
        keep_until: int | None = None,
    ) -> None:
        self.path, self.heads, self.extra = path, list(heads), list(extra)
        if keep_until is None or not path.exists():
            atomic_write(path, self._header())
        else:
            lines = path.read_text().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]  # the last one may be torn
            kept = [line for line in whole if line.startswith("#") or _step(line) <= keep_until]
            atomic_write(path, "".join(kept))

    def _header(self) -> str:
        columns = ["step"]
        for head, valid in self.heads:
            for quantity in ("rmse", "rmse_e", "rmse_f"):
                columns += [f"{quantity}_val_{head}"] if valid else []
                columns += [f"{quantity}_trn_{head}"]
            columns += [f"rmse_{EXTRA[term][0]}_val_{head}" for term in self.extra if valid]
        columns.append("lr")
        text = "# " + "  ".join(columns) + "\n"
        return text + "# If there is no available reference data, rmse_*_{val,trn} will print nan\n"

    def write(
        self,
        step: int,
        valid: Mapping[str, Sequence[float]],
        train: Mapping[str, Sequence[float]],
        rate: float,
    ) -> None:
        """Append one line; values per head are (total, energy per atom, forces), of ``valid`` also the extra ones."""
        nan = (math.nan,) * (3 + len(self.extra))
        values: list[float] = []
        for head, has_valid in self.heads:
            for k in range(3):
                values += [valid.get(head, nan)[k]] if has_valid else []
                values += [train.get(head, nan)[k]]
            values += valid.get(head, nan)[3:] if has_valid else ()
        line = f"{step:7d}  " + "  ".join(f"{v:11.4e}" for v in values) + f"  {rate:10.3e}\n"
        with open(self.path, "a") as stream:
            stream.write(line)


def _step(line: str) -> int:
    try:
        return int(line.split()[0])
    except (IndexError, ValueError):
        return 1 << 62


class MetricsFile:
    """``metrics.csv``: one row per validation, head and part, in meV units.

    Args:
        path: the file.
        extra: those of :data:`EXTRA` that the loss has, which get columns before the last.
        keep_until: rows up to this step stay; None begins anew.
    """

    def __init__(self, path: Path, *, extra: Sequence[str] = (), keep_until: int | None = None) -> None:
        self.path, self.extra = path, list(extra)
        columns = [*METRICS[:-1], *(EXTRA[term][2] for term in extra), METRICS[-1]]
        rows: list[list[str]] = []
        if keep_until is not None and path.exists():
            with open(path, newline="") as stream:
                rows = [r for r in list(csv.reader(stream))[1:] if len(r) == len(columns)]
            rows = [r for r in rows if int(r[0]) <= keep_until]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([columns, *rows])
        atomic_write(path, text.getvalue())

    def write(self, step: int, head: str, split: str, errors: Mapping[str, Any], seconds: float) -> None:
        """Append one row; ``errors`` as from :meth:`lamkit.metrics.ErrorSums.result`."""
        names = ["energy_mae", "energy_rmse", "forces_mae", "forces_rmse", "stress_mae"]
        names += [EXTRA[term][1] for term in self.extra]
        values = ["" if errors.get(n) is None else f"{1000 * errors[n]:.6g}" for n in names]
        with open(self.path, "a", newline="") as stream:
            csv.writer(stream).writerow([step, head, split, *values, f"{seconds:.1f}"])
