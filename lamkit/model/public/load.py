"""A public Orb file, whoever wrote it, as an architecture and its arrays under public names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit import config
from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.model.public import known, mindspore_ckpt
from lamkit.model.public.arrays import LazyArray, listed
from lamkit.model.public.infer import Untold, infer
from lamkit.model.public.names import COUNTER, REFERENCE, canonical, public_shapes, refuse_mismatch
from lamkit.model.public.torch_zip import TorchFile

RECORD = "lamkit.json"  # what LAMKit's own export adds to a file: all that names and shapes do not tell
MAX_RECORD = 1 << 20
R_MAX = "model.rbf_transform.r_max"


@dataclass(frozen=True)
class PublicModel:
    """What a file holds.

    Attributes:
        trunk: architecture.
        arrays: public name → numbers, float32 or float64, counters int64, in the published shapes.
        known: the public model that the file's name means; None for others.
        record: what LAMKit's export noted in the file; empty for others.
        missing: arrays of heads that the file lacks.
        extra: arrays of heads that no such model has, left out.
        left_out: reason → names in the file that were left out on purpose.
    """

    trunk: TrunkConfig
    arrays: dict[str, NDArray[Any]]
    known: known.PublicFile | None
    record: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)


def load(
    path: str | Path,
    untold: Untold | None = None,
    *,
    layers: int | None = None,
    skip_reference: bool = False,
    partial_heads: bool = False,
) -> PublicModel:
    """Read a file of torch or MindSpore.

    Args:
        path: the file.
        untold: what the user says of the model; the file's name and LAMKit's own record fill the gaps.
        layers: keep only the first so many interaction layers.
        skip_reference: leave the energies per element out.
        partial_heads: let arrays of heads be missing or unknown; they are listed in the result.

    Raises:
        UserError: not an Orb file, damaged, hostile, or not the model that its name says.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: {'is a folder' if path.is_dir() else 'no such file'}; a file of weights is needed"
        )
    where, recognised = str(path), known.recognise(path.name)
    with ExitStack() as stack:
        stored, record = _opened(path, stack)
        names, left_out = canonical(stored, layers=layers, where=where)
        if skip_reference:
            skipped = [name for name in names if "reference" in name]
            left_out["element references, as asked"] = [names.pop(name) for name in skipped]
        found = {name: stored[original] for name, original in names.items()}
        shapes = {name: array.shape for name, array in found.items()}
        r_max = float(_numbers(R_MAX, found[R_MAX], (), where)) if R_MAX in found else None
        trunk = infer(shapes, r_max, _filled(untold or Untold(), recognised, record, where), where)
        if skip_reference:
            shapes[REFERENCE] = public_shapes(trunk)[REFERENCE]
        trunk, found = _recorded(trunk, record, found, left_out, names)
        shapes = {name: shape for name, shape in shapes.items() if name in found or name == REFERENCE}
        missing, extra = refuse_mismatch(shapes, trunk, partial_heads=partial_heads, where=where)
        if recognised is not None and (text := recognised.disagreement(trunk, truncated=layers is not None)):
            raise UserError(
                f"{path}: named as the public {recognised.name}, but it holds {text}; if it is another model, "
                "rename the file"
            )
        expected = public_shapes(trunk)
        arrays = {n: _numbers(n, a, expected[n], where) for n, a in found.items() if n in expected}
    return PublicModel(trunk, arrays, recognised, record, missing, extra, left_out)


def _opened(path: Path, stack: ExitStack) -> tuple[Mapping[str, LazyArray], dict[str, Any]]:
    """Arrays of a file under the names that it has, and LAMKit's record; ``stack`` closes the file."""
    if mindspore_ckpt.is_mindspore(path):
        return mindspore_ckpt.public_names(mindspore_ckpt.read_mindspore(path), str(path)), {}
    file = stack.enter_context(TorchFile(path))
    return file.arrays, _record(file)


def _filled(
    untold: Untold, recognised: known.PublicFile | None, record: Mapping[str, Any], where: str
) -> Untold:
    """What the user said, completed by LAMKit's record or the file's name."""
    if record:
        trunk = config.parse(TrunkConfig, record["trunk"], origin=f"{where}: {RECORD}")
        told = Untold(trunk.cutoff, trunk.max_neighbors, trunk.repulsion, None, trunk.stress)
    elif recognised is not None:
        told = Untold(known.CUTOFF, recognised.max_neighbors)
    else:
        return untold
    gaps = {
        name: getattr(told, name)
        for name in ("cutoff", "max_neighbors", "repulsion", "stress")
        if getattr(untold, name) is None
    }
    return replace(untold, **gaps)


def _recorded(
    trunk: TrunkConfig,
    record: Mapping[str, Any],
    found: dict[str, LazyArray],
    left_out: dict[str, list[str]],
    names: Mapping[str, str],
) -> tuple[TrunkConfig, dict[str, LazyArray]]:
    """Without the decoder of zeros that the export of a model without one adds for orb-models."""
    if not record or record["trunk"].get("decoder", True) or not trunk.decoder:
        return trunk, found
    dropped = [name for name in found if name.startswith("model._decoder.")]
    left_out["the unused decoder that the export added"] = [names[name] for name in dropped]
    kept = {name: array for name, array in found.items() if name not in dropped}
    return trunk.model_copy(update={"decoder": False}), kept


def _record(file: TorchFile) -> dict[str, Any]:
    """LAMKit's own record in a file; empty if there is none."""
    data = file.record(RECORD)
    if data is None:
        return {}
    try:
        found = json.loads(data) if len(data) <= MAX_RECORD else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("trunk"), dict):
        raise UserError(f"{file.path}: its record {RECORD} is damaged; export the model again")
    return found


def _numbers(name: str, array: LazyArray, shape: tuple[int, ...], where: str) -> NDArray[Any]:
    """Numbers of one array in its published shape and kind, none of them NaN or infinite.

    Raises:
        UserError: of a wrong kind, not finite, or a variance that is not positive.
    """
    counter = name.endswith(COUNTER)
    if array.dtype.kind not in ("iuf" if counter else "f"):
        raise UserError(f"{where}: {name} is of type {array.dtype}, floating point is needed")
    if int(np.prod(array.shape)) != int(np.prod(shape)):
        raise UserError(f"{where}: {name} has shape {array.shape}, {shape} is needed")
    numbers = array.load().reshape(shape)
    if bad := int(np.count_nonzero(~np.isfinite(numbers))):
        raise UserError(f"{where}: {name} holds {bad} numbers that are NaN or infinite; the file is damaged")
    if name.endswith("running_var") and not (numbers > 0).all():
        raise UserError(f"{where}: {name} is {float(numbers.min())}; a variance must be positive")
    return numbers.astype(np.int64) if counter else numbers


def notes(model: PublicModel) -> list[str]:
    """Everything of the file that is not in the model or the reverse, in sentences."""
    lines = [f"left out, {reason}:{listed(names, 4)}" for reason, names in model.left_out.items() if names]
    if model.extra:
        lines.append(f"left out, arrays of heads that this model does not have:{listed(model.extra)}")
    if model.missing:
        lines.append(f"missing in the file, begin as in a new model:{listed(model.missing)}")
    return lines
