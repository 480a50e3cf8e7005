"""Import: a public Orb file (torch or MindSpore) as a checkpoint that every other stage takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from lamkit import config, presets
from lamkit.config import InputPath, Model
from lamkit.console import log
from lamkit.data.frame import NUMBERS, SYMBOLS
from lamkit.data.heads import HeadConfig, load_head
from lamkit.errors import UserError, suggest
from lamkit.files import sha256
from lamkit.model.public import known
from lamkit.model.public.arrays import shown
from lamkit.model.public.infer import Untold
from lamkit.model.public.load import PublicModel, load, notes
from lamkit.model.public.names import N_REFERENCES, N_ROWS, REFERENCE, lamkit_name

DEFAULT_HEAD = "orb"
NAME = r"[\w-]{1,64}"


class Options(Model):
    """Options of ``lamkit import``.

    Attributes:
        file: ``.ckpt`` of orb-models or of MindSpore.
        head: name that the model's head gets; null takes that of its data (``omat24``, ``mptrj`` …), or ``orb``.
            A name of ``heads/`` brings its level of theory with it.
        max_neighbors: nearest neighbours that count; needed where the file's name is not a public one.
        cutoff: Å; needed for an orb-v2 whose name is not a public one.
        output: conservative or direct; needed for a file without heads.
        repulsion: whether the pair repulsion is added; null means in v3 yes, in v2 no.
        elements: symbols that the model was trained on; null takes those of its data, or all.
        layers: keep only the first so many interaction layers.
        skip_reference: leave the energies per element out (all zero then; ``lamkit rebias`` fits new ones).
        partial_heads: let arrays of heads be missing (they begin at random) or unknown (they are left out).
    """

    file: InputPath
    head: str | None = None
    max_neighbors: int | None = pydantic.Field(None, ge=1)
    cutoff: float | None = pydantic.Field(None, gt=0)
    output: Literal["conservative", "direct"] | None = None
    repulsion: bool | None = None
    elements: list[str] | None = None
    layers: int | None = pydantic.Field(None, ge=1)
    skip_reference: bool = False
    partial_heads: bool = False

    @pydantic.field_validator("head")
    @classmethod
    def _usable_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(NAME, value):
            raise ValueError(f"'{value}' must be made of letters, digits, - and _")
        return value

    @pydantic.field_validator("elements")
    @classmethod
    def _known_elements(cls, value: list[str] | None) -> list[str] | None:
        for symbol in value or ():
            if NUMBERS.get(symbol, N_REFERENCES) >= N_REFERENCES:
                raise ValueError(f"'{symbol}' is no element that Orb has.{suggest(symbol, NUMBERS)}")
        return value


def run(options: Options, out: Path) -> dict[str, Any]:
    """Write the checkpoint to ``out``; in a folder that holds something, to ``out/checkpoints/best``.

    Raises:
        UserError: the file is not such a model, or something about it must be told; nothing is written then.
    """
    from lamkit.train import checkpoint

    file = Path(options.file)
    untold = Untold(options.cutoff, options.max_neighbors, options.repulsion, options.output)
    model = load(
        file,
        untold,
        layers=options.layers,
        skip_reference=options.skip_reference,
        partial_heads=options.partial_heads,
    )
    facts = _facts(options, model)
    elements = _elements(options, model, facts)
    for line in notes(model):
        log.warning("%s: %s", file, line)
    weights = {lamkit_name(n, facts.name): array for n, array in model.arrays.items() if n != REFERENCE}
    if lacking := [name for name in model.missing if name != REFERENCE]:
        weights |= _begun(model, facts.name, {lamkit_name(name, facts.name) for name in lacking})
    place = (
        Path(out)
        if not (Path(out).exists() and any(Path(out).iterdir()))
        else Path(out) / "checkpoints" / "best"
    )
    made = checkpoint.Checkpoint(
        path=place,
        trunk=model.trunk,
        heads=(facts.name,),
        weights=weights,
        references={facts.name: _reference(model, facts.name)},
        head_configs={facts.name: facts},
        elements={facts.name: elements},
        config={"verb": "import", **config.dump(options), "sha256": sha256(file)},
        state={"step": 0},
    )
    try:
        checkpoint.write(place, made)
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror})") from None
    return _result(place, made, model)


def _result(place: Path, made: Any, model: PublicModel) -> dict[str, Any]:
    head, trunk = made.heads[0], made.trunk
    n_values = sum(int(array.size) for array in model.arrays.values())
    log.info(
        "%s: Orb %s %s, %d layers of width %d, %d neighbours within %g Å, %d numbers; head '%s' (%s)",
        place, trunk.version, trunk.output, trunk.layers, trunk.latent, trunk.max_neighbors, trunk.cutoff,
        n_values, head, made.head_configs[head].level_of_theory.functional,
    )  # fmt: skip
    return {
        "checkpoint": str(place),
        "head": head,
        "known_as": model.known.name if model.known else None,
        "trunk": config.dump(trunk),
        "n_values": n_values,
        "elements": made.elements[head],
        "missing": model.missing,
        "extra": model.extra,
        "left_out": model.left_out,
    }


def _facts(options: Options, model: PublicModel) -> HeadConfig:
    """The head: of a YAML where the name has one, of LAMKit's record, or what is known of the public file."""
    record = model.record.get("head")
    noted = config.parse(HeadConfig, record, origin=f"{options.file}: head") if record else None
    name = options.head or (noted.name if noted else model.known.data if model.known else DEFAULT_HEAD)
    if not re.fullmatch(NAME, name):  # it becomes the name of a file
        raise UserError(
            f"{options.file}: its head is named {shown(name)}; --head gives it a name of letters and digits"
        )
    if noted is not None and options.head in (None, noted.name):
        return noted
    if name in presets.files("heads"):
        return load_head(name)
    facts = known.head_facts(name, model.known, model.trunk)
    if facts.level_of_theory == known.UNKNOWN:
        log.warning(
            "%s does not say what it was trained on; --head NAME takes level of theory and citation from "
            "heads/NAME.yaml ('lamkit ls heads')",
            options.file,
        )
    return facts


def _elements(options: Options, model: PublicModel, facts: HeadConfig) -> list[str]:
    """Symbols that the head is taken to know."""
    if options.elements is not None:
        return sorted(set(options.elements), key=NUMBERS.__getitem__)
    recorded = model.record.get("elements")
    if isinstance(recorded, list) and recorded and all(s in NUMBERS for s in recorded):
        return list(recorded)
    if model.known is not None:
        return list(known.DATA[model.known.data][2])
    if facts.elements:
        return list(facts.elements)
    log.warning(
        "%s does not say which elements it was trained on: all are let through; --elements names them",
        options.file,
    )
    return list(SYMBOLS[1:N_REFERENCES])


def _reference(model: PublicModel, head: str) -> NDArray[np.float64]:
    """Energies per element [119] eV, in float64; zero where the file has none."""
    reference = np.zeros(N_ROWS)
    stored = model.arrays.get(REFERENCE)
    if stored is None:
        log.warning(
            "no energies per element: total energies are without them; 'lamkit rebias --head %s' fits some",
            head,
        )
    else:
        reference[:N_REFERENCES] = stored
    return reference


def _begun(model: PublicModel, head: str, names: set[str]) -> Mapping[str, NDArray[Any]]:
    """Starting values of the arrays of a new head."""
    from lamkit.model.runtime import setup

    setup("CPU")
    from lamkit.model.potential import Potential

    state = Potential(model.trunk, [head]).state()
    return {name: state[name] for name in names}
