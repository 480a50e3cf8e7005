"""The keys of a DeePMD ``input.json``: each is taken once, or listed in the end with why it has no counterpart."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lamkit.errors import UserError

# Keys that stand for all below them, and why they have no counterpart.
GROUPS = {
    "model.descriptor": "LAMKit's trunk takes its place: --trunk, lamkit ls configs",
    "model.shared_dict": "all heads share LAMKit's trunk: --trunk, lamkit ls configs",
    "model.fitting_net": "a head is one hidden layer here: trunk.head_hidden",
    "model.type_embedding": "part of LAMKit's trunk",
    "optimizer": "AdamW: train.beta1, train.beta2, train.weight_decay",
    "nvnmd": "no counterpart",
}
# Other keys; the longest that a key begins with is said.
REASONS = {
    "model": "LAMKit has a network of its own: --trunk",
    "learning_rate": "the rate falls smoothly here: train.decay, train.final_learning_rate",
    "learning_rate.decay_steps": "the rate falls with every step, not in stairs; start and end are the same",
    "loss": "not trained on: energies, forces and stresses are",
    "training.training_data.auto_prob": "all frames of a head are drawn alike, as with prob_sys_size",
    "training.training_data.sys_probs": "all frames of a head are drawn alike, as with prob_sys_size",
    "training.validation_data.numb_btch": "train.valid_frames frames are validated on",
    "training.validation_data.batch_size": "train.valid_frames frames are validated on",
    "training.disp_file": "always lcurve.out in the run folder",
    "training.save_ckpt": "checkpoints/last and checkpoints/best in the run folder",
    "training.stat_file": "statistics are kept with the data set",
    "training.disp_training": "the progress is always shown",
    "training.time_training": "the progress is always shown",
}


def read(path: Path) -> Any:
    """Contents of a JSON file; comments (keys with ``_`` before) are left out, other keys may stand once.

    Raises:
        UserError: not JSON, or a key given twice.
    """

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key.startswith("_"):
                continue
            if key in result:
                raise UserError(f"{path}: key '{key}' is given twice; keep one")
            result[key] = value
        return result

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None


class InputFile:
    """Contents of the file.

    Args:
        data: contents.
        origin: the file, for messages.

    Attributes:
        taken: (key there, value, key here) of what was carried over.
        left: (key there, why it has no counterpart) of what was found while taking.
    """

    def __init__(self, data: Mapping[str, Any], origin: str) -> None:
        self.data, self.origin = copy.deepcopy(dict(data)), origin
        self.taken: list[tuple[str, str, str]] = []
        self.left: list[tuple[str, str]] = []
        self._used: set[str] = set()

    def peek(self, place: str) -> Any:
        """The value at ``a.b.c``; None where there is none."""
        found: Any = self.data
        for key in place.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def take(self, place: str, default: Any, here: str | None = None) -> Any:
        """Take the value at ``a.b.c`` out, noting the key that it means ``here``."""
        *parents, last = place.split(".")
        holder = self.peek(".".join(parents)) if parents else self.data
        if not isinstance(holder, dict) or last not in holder:
            return default
        value = holder.pop(last)
        if here is not None:
            shown = json.dumps(value)
            self.taken.append((place, shown if len(shown) <= 40 else f"{shown[:39]}…", here))
        return value

    def number(self, place: str, default: float, here: str | None = None) -> float:
        """As :meth:`take`, for a number.

        Raises:
            UserError: it is none.
        """
        value = self.take(place, default, here)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{self.origin}: {place}: expected a number, found {value!r}")
        return value

    def whole(self, place: str, default: int, here: str | None = None) -> int:
        """As :meth:`number`, for a whole one.

        Raises:
            UserError: it is none.
        """
        value = self.number(place, default, here)
        if value != int(value):
            raise UserError(f"{self.origin}: {place}: expected a whole number, found {value!r}")
        return int(value)

    def shared(self, name: str) -> Any:
        """An entry of ``model.shared_dict``, which then counts as taken; None where there is none."""
        self._used.add(f"model.shared_dict.{name}")
        return self.peek(f"model.shared_dict.{name}")

    def rest(self) -> list[tuple[str, str]]:
        """Keys that nobody took, each with why; those of several tasks as one."""
        return list(dict.fromkeys(self._rest(self.data, "")))

    def _rest(self, value: Any, place: str) -> Iterator[tuple[str, str]]:
        plain, starred = _plain(place)
        if place in self._used or value in ({}, []):
            return
        if plain in GROUPS:
            if not (isinstance(value, Mapping) and all(f"{place}.{key}" in self._used for key in value)):
                yield starred, GROUPS[plain]
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                if not str(key).startswith("_"):
                    yield from self._rest(inner, f"{place}.{key}" if place else str(key))
        else:
            begins = [key for key in REASONS if plain.startswith(key)]
            yield starred, REASONS[max(begins, key=len)] if begins else "no counterpart"


def _plain(place: str) -> tuple[str, str]:
    """A key of one task of several as it would be with a single one; and with a star for the task's name."""
    parts = place.split(".")
    starred = list(parts)
    for group, at in (("model_dict", 1), ("data_dict", 1), ("loss_dict", 0)):
        if len(parts) > at + 1 and parts[at] == group:
            starred[at + 1] = "*"
            parts = [*parts[:at], *(["loss"] if group == "loss_dict" else []), *parts[at + 2 :]]
            break
    return ".".join(parts), ".".join(starred)
