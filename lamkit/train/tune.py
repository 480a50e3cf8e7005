"""Which weights a training run changes: all, only the heads, the layers above some depth, or low-rank adapters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from lamkit import config
from lamkit.errors import UserError

if TYPE_CHECKING:
    from mindspore import Parameter

    from lamkit.model.base import Headed

LAYER = "model.gnn_stacks."  # what the public names of the interaction layers begin with


class Freeze(config.Model):
    """Keep the lower part of the trunk as it is.

    Attributes:
        freeze: interaction layers that stay, counted from the atoms; element table and encoders stay as well.
    """

    freeze: int = pydantic.Field(ge=0)


class Lora(config.Model):
    """Low-rank adaptation (Hu et al., ICLR 2022): W = W₀ + B A for the matrices of the trunk.

    Biases, norms, gates and the element table stay; heads are trained in full. Checkpoints hold W, so that
    nothing that reads them needs to know.

    Attributes:
        lora: rank, the number of rows of A and of columns of B.
    """

    lora: int = pydantic.Field(ge=1)


KINDS: dict[str, type[Freeze | Lora]] = {"freeze": Freeze, "lora": Lora}


def _one_of(value: Any) -> Any:
    """Let a wrong value be reported in one line, not once for each alternative."""
    if isinstance(value, Freeze | Lora) or value in ("full", "heads"):
        return value
    if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in KINDS:
        kind = KINDS[next(iter(value))]
        try:
            return kind.model_validate(value)
        except pydantic.ValidationError as error:
            raise ValueError(f"{dict(value)}: {error.errors()[0]['msg']}") from None
    raise ValueError("expected full, heads, {freeze: LAYERS} or {lora: RANK}")


Tune = Annotated[Literal["full", "heads"] | Freeze | Lora, pydantic.BeforeValidator(_one_of)]


def from_text(text: str) -> Any:
    """``heads``, ``freeze=2`` or ``lora=8`` of the command line as the value of ``train.tune``.

    Raises:
        UserError: neither of these.
    """
    name, equals, number = text.partition("=")
    if not equals and name in ("full", "heads"):
        return name
    if name in ("freeze", "lora") and number.isdigit():
        return {name: int(number)}
    raise UserError(f"--tune {text}: expected full, heads, freeze=LAYERS or lora=RANK")


def changes_trunk(tune: Tune) -> bool:
    """Whether heads that are not trained come to stand on another trunk."""
    return tune != "heads"


def changes_elements(tune: Tune) -> bool:
    """Whether the rows of the element table are trained."""
    return tune == "full"


def describe(tune: Tune) -> str:
    """What is trained, in words."""
    if isinstance(tune, Freeze):
        return f"heads and the trunk above layer {tune.freeze}"
    if isinstance(tune, Lora):
        return f"heads and adapters of rank {tune.lora} on the trunk"
    return "heads only, on a frozen trunk" if tune == "heads" else "heads and the whole trunk"


def trained(potential: Headed, tune: Tune) -> list[Parameter]:
    """Those of the trunk's parameters that a step changes, in the trunk's order.

    Raises:
        UserError: more layers are to be frozen than there are, or a rank is larger than every matrix.
    """
    everything = potential.trunk_parameters()
    if tune == "full":
        return everything
    if tune == "heads":
        return []
    names = {id(p): name for name, p in potential._named()}
    named = [(names[id(p)], p) for p in everything]
    if isinstance(tune, Freeze):
        depth = 1 + max((_layer(name) for name, _ in named), default=-1)
        if tune.freeze > depth or not depth:
            raise UserError(
                f"train.tune: {tune.freeze} layers are to be frozen, the trunk has {depth}; take heads for all"
            )
        return [p for name, p in named if _layer(name) >= tune.freeze]
    found = [p for name, p in named if _is_matrix(name, p.shape)]
    if not any(min(p.shape) > tune.lora for p in found):
        raise UserError(
            f"train.tune: a rank of {tune.lora} is no less than the width of any matrix of the trunk; take a smaller "
            "one, or tune: full"
        )
    return [p for p in found if min(p.shape) > tune.lora]


def _layer(name: str) -> int:
    """Interaction layer of a parameter; -1 for what comes before."""
    return int(name.removeprefix(LAYER).partition(".")[0]) if name.startswith(LAYER) else -1


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Weight of a linear layer; gates have a single row, and the table of elements is no layer."""
    return len(shape) == 2 and min(shape) > 1 and "emb" not in name
