"""What the verbs of single stages have in common: options from a file and flags, and the folder to write."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lamkit import config, presets
from lamkit.console import log
from lamkit.errors import UserError

M = TypeVar("M", bound=config.Model)


def options(cls: type[M], args: argparse.Namespace, out: Path, given: Mapping[str, Any]) -> M:
    """Options of a stage: the CONFIG file, then ``--set``, then the flags that were given.

    With ``--resume`` and no CONFIG the options are those that the run was begun with.

    Args:
        cls: the stage's ``Options``.
        args: parsed arguments with the flags of a training verb.
        out: run folder.
        given: option → value of its flag; None means not given. A dot reaches into a group.
    """
    path = _file(args, out)
    data: dict[str, Any] = {}
    lines: Mapping[Any, int] = {}
    if path is not None:
        data, lines = config.read_yaml(path)
        if not isinstance(data, dict):
            raise UserError(f"{path}:1: expected 'key: value' lines, found {type(data).__name__}")
    for key, value in {**given, "seed": args.seed}.items():
        if value is not None:
            _put(data, key, value)
    data = config.override(data, args.overrides)  # after the flags: it may change a key of a preset they name
    for key in {"device", "resume"} & set(cls.model_fields):
        data[key] = getattr(args, key)
    return config.parse(cls, data, origin=str(path or f"lamkit {args.verb}"), lines=lines)


def _file(args: argparse.Namespace, out: Path) -> Path | None:
    if args.config:
        return presets.find("configs", args.config)
    return out / "config.yaml" if args.resume else None


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    *groups, last = key.split(".")
    for group in groups:
        inner = data.setdefault(group, {})
        if not isinstance(inner, dict):
            inner = data[group] = {"preset": inner}
        data = inner
    data[last] = value


def run_folder(args: argparse.Namespace, default: str) -> Path:
    """The output folder; one that holds something is only taken with ``--resume``.

    Raises:
        UserError: it is not empty, or there is nothing to resume.
    """
    out = Path(args.out or default)
    if args.resume:
        if not (out / "config.yaml").is_file():
            raise UserError(f"{out}: no config.yaml, so no run to resume; leave --resume away to start one")
        return out
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out}: already exists; --resume goes on with it, --out DIR starts another one")
    if args.out is None:
        log.info("writing to %s (--out DIR for another folder)", out)
    return out


def numbers(flag: str, text: str | None) -> list[float] | None:
    """``300,600`` as numbers; None if the flag was not given.

    Raises:
        UserError: not numbers.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        raise UserError(f"{flag} {text}: expected numbers with commas between, for example 300,600") from None
