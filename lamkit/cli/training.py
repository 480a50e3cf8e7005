"""What the training verbs have in common: reading their options, guarding the output folder."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lamkit import config
from lamkit.console import log
from lamkit.errors import UserError
from lamkit.files import require_writable

M = TypeVar("M", bound=config.Model)


def options(
    cls: type[M], args: argparse.Namespace, given: Mapping[str, Any], presets_of: Mapping[str, str]
) -> M:
    """Options of a stage: the CONFIG file, then ``--set``, then the flags that were given.

    Args:
        cls: the stage's ``Options``.
        args: parsed arguments with ``config``, ``overrides``, ``seed``, ``device``, ``resume``.
        given: options that stand on the command line as flags; None means not given.
        presets_of: key → preset that holds where neither file nor flags choose one; ``--set`` changes its keys.
    """
    data: dict[str, Any] = {}
    lines: Mapping[Any, int] = {}
    origin = "command line"
    if getattr(args, "config", None):
        from lamkit import presets

        path = presets.find("configs", args.config)
        data, lines = config.read_yaml(path)
        origin = str(path)
        if not isinstance(data, dict):
            raise UserError(f"{path}:1: expected 'key: value' lines, found {type(data).__name__}")
        data.pop("verb", None)  # config.yaml of an earlier run may be used as it is
        data.pop("began_as", None)
    for key, value in given.items():
        if value is not None:
            data[key] = value
    for key, preset in presets_of.items():
        data.setdefault(key, {"preset": preset})
    data = config.override(data, args.overrides)
    if args.seed is not None:
        data = config.override(data, [f"train.seed={args.seed}"])
    data["device"] = args.device
    data["resume"] = args.resume
    return config.parse(cls, data, origin=origin, lines=lines)


def run_folder(args: argparse.Namespace, default: str) -> Path:
    """The output folder; one that holds something is only taken with ``--resume``.

    Raises:
        UserError: it is not empty, or cannot be written.
    """
    out = Path(args.out or default)
    if args.resume:
        if not out.is_dir():
            raise UserError(f"{out}: no run to resume; leave --resume away to start one")
        return out
    if out.is_file():
        raise UserError(f"{out}: is a file; --out names a folder")
    if out.is_dir() and any(p.name != "data" for p in out.iterdir()):
        raise UserError(f"{out}: already holds a run; --resume goes on with it, --out DIR starts another one")
    require_writable(out)
    if args.out is None:
        log.info("writing to %s (--out DIR for another folder)", out)
    return out
