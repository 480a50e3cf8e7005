"""Export: a model in the form of another program."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from lamkit.config import InputPath, Model
from lamkit.errors import UserError, suggest
from lamkit.model.public.deepmd import Precision

# Form -> (module, one line). The module holds SUFFIX, the usual ending of the file, and
# run(model: Path, head: str | None, out: Path) -> dict, which writes the file ``out`` whole or not at all.
TARGETS: dict[str, tuple[str, str]] = {
    "deepmd": (
        "lamkit.stages.export_deepmd",
        "a DeepPot-SE student for DeePMD-kit, with an input for LAMMPS",
    ),
    "orb": ("lamkit.stages.export_orb", "weights that orb-models 0.5 loads"),
}


class Options(Model):
    """Options of ``lamkit export``.

    Attributes:
        model: checkpoint or run folder.
        to: one of the forms that ``lamkit export --help`` lists.
        head: which head; may be left out where the model has only one.
        structure: to deepmd: file or data set whose first structure the input for LAMMPS begins with; null takes one
            that the student was trained on, where it is still there.
        precision: to deepmd: of the networks. float64 (null, too) gives the model's energies to the last digit; float32
            is faster.
    """

    model: InputPath
    to: str
    head: str | None = None
    structure: InputPath | None = None
    precision: Precision | None = None


def run(options: Options, out: Path) -> dict[str, Any]:
    """Write the file ``out``, or in the folder ``out`` the file ``model.SUFFIX``.

    Raises:
        UserError: no such form, the model cannot take it, or the file exists or cannot be written.
    """
    if options.to not in TARGETS:
        raise UserError(
            f"to: no form '{options.to}'.{suggest(options.to, TARGETS)} Known: {', '.join(TARGETS)}"
        )
    structure = None if options.structure is None else Path(options.structure)
    given = {k: v for k, v in (("structure", structure), ("precision", options.precision)) if v is not None}
    if given and options.to != "deepmd":
        raise UserError(f"{' and '.join(given)}: for --to deepmd only, not for {options.to}")
    module = importlib.import_module(TARGETS[options.to][0])
    file = Path(out) / f"model{module.SUFFIX}" if Path(out).is_dir() else Path(out)
    if file.exists():
        raise UserError(f"{file}: already exists; --out names another file")
    try:
        result: dict[str, Any] = module.run(Path(options.model), options.head, file, **given)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror})") from None
    return {"to": options.to, "file": str(file), **result}
