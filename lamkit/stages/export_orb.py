"""Export to orb-models: one head of a checkpoint as a file of public Orb weights."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from lamkit import __version__, config
from lamkit.console import log
from lamkit.data.frame import NUMBERS
from lamkit.errors import UserError
from lamkit.files import atomic_write
from lamkit.model.config import TrunkConfig
from lamkit.model.public.export import loading_code, public_arrays, refuse_inexpressible
from lamkit.model.public.load import RECORD
from lamkit.model.public.names import REFERENCE
from lamkit.model.public.torch_zip import write_torch

SUFFIX = ".ckpt"
FLOAT32_DIGITS = 1e-4  # eV; a rounding of the references above this is worth a warning


def run(model: Path, head: str | None, out: Path) -> dict[str, Any]:
    """Write ``out`` and say how to load it.

    Returns:
        ``head``; ``load_with``, Python lines for orb-models; ``float32_error``, what rounding an element's
        reference energy to single precision changes at most, eV per atom.

    Raises:
        UserError: no such model or head, or orb-models cannot express the model.
    """
    from lamkit.train import checkpoint

    found = checkpoint.read(model)
    name, where = found.head(head), str(found.path)
    if not isinstance(found.trunk, TrunkConfig):
        raise UserError(f"{where}: is no Orb but {found.trunk.version}; --to deepmd is for it")
    refuse_inexpressible(found.trunk, where)
    reference, elements = found.references[name], found.elements[name]
    arrays = public_arrays(found.trunk, found.weights, reference, name, where)
    record = {
        "lamkit": __version__,
        "trunk": config.dump(found.trunk),
        "head": config.dump(found.head_configs[name]),
        "elements": elements,
    }
    stream = io.BytesIO()
    write_torch(stream, arrays, {RECORD: json.dumps(record).encode()})
    atomic_write(out, stream.getvalue())
    rounding = np.abs(reference - reference.astype(np.float32))
    worst = float(max((rounding[NUMBERS[s]] for s in elements), default=0.0))
    if arrays[REFERENCE].dtype == np.float64 and worst > FLOAT32_DIGITS:
        log.warning(
            "reference energies of this size lose up to %.1e eV per atom where orb-models runs in float32; "
            'precision="float64" there keeps them',
            worst,
        )
    if not found.trunk.decoder:
        log.info(
            "the model has no denoising decoder; one of zeros, which nothing depends on, stands in the file"
        )
    code = loading_code(found.trunk, str(out))
    log.info("%s: head '%s' of %s. To load it:\n%s", out, name, where, code)
    return {"head": name, "float32_error": worst, "load_with": code}
