"""What the training verbs have in common: reading their options, guarding the output folder."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lamkit import config
from lamkit.console import log
from lamkit.errors import UserError
from lamkit.files import require_writable

M = TypeVar("M", bound=config.Model)
# What a run that was stopped before it began to train has left: converted data are taken as they are, frames that the
# starting model has labelled are of no use to another one.
CONVERTED, LABELLED = "data", "retention"


def options(
    cls: type[M],
    args: argparse.Namespace,
    given: Mapping[str, Any],
    presets_of: Mapping[str, str],
) -> M:
    """Options of a stage: the CONFIG file, then ``--set``, then the flags that were given.

    Args:
        cls: the stage's ``Options``.
        args: parsed arguments with ``config``, ``overrides``, ``seed``, ``device``, ``resume``.
        given: options that stand on the command line as flags; None means not given.
        presets_of: key → preset that holds where neither file nor flags choose one; ``--set`` changes its keys. No
            preset holds for the trunk of a run that begins from weights: they bring theirs.
    """
    if (
        os.environ.get("MS_ROLE") == "MS_SCHED"
    ):  # msrun starts the same command once more, for the ranks to meet
        from lamkit.train.world import schedule

        schedule()
        raise SystemExit(0)
    data: dict[str, Any] = {}
    lines: Mapping[Any, int] = {}
    origin = "command line"
    if getattr(args, "config", None):
        data, lines, origin = _contents(cls, args, given)
        data.pop("verb", None)  # config.yaml of an earlier run may be used as it is
        data.pop("began_as", None)
    for key, value in given.items():
        if value is not None:
            data[key] = value
    bring = data.get("init") is not None and "trunk" in presets_of and "trunk" not in data
    for key, preset in presets_of.items():
        if key != "trunk" or not bring:
            data.setdefault(key, {"preset": preset})
    if bring and (keys := [o for o in args.overrides if o.startswith("trunk.")]):
        raise UserError(
            f"--set {keys[0]}: the weights of {data['init']} bring their trunk along, which cannot be changed; leave "
            "this away, or begin without weights"
        )
    data = config.override(data, args.overrides)
    if args.seed is not None:
        data = config.override(data, [f"train.seed={args.seed}"])
    if getattr(args, "ranks", None) is not None:
        data = config.override(data, [f"train.ranks={args.ranks}"])
    for name in ("nodes", "node", "master"):  # where this process stands is no option of the run
        if getattr(args, name, None) is not None:
            os.environ[f"LAMKIT_{name.upper()}"] = str(getattr(args, name))
    data["device"] = args.device
    data["resume"] = args.resume
    return config.parse(cls, data, origin=origin, lines=lines)


def _contents(
    cls: type[M], args: argparse.Namespace, given: Mapping[str, Any]
) -> tuple[dict[str, Any], Mapping[Any, int], str]:
    """Keys of the CONFIG file, the lines they stand on, and its name; DeePMD's ``input.json`` is translated.

    Raises:
        UserError: it cannot be read.
    """
    from lamkit import presets
    from lamkit.stages import deepmd_input, deepmd_keys

    path = presets.find("configs", args.config)
    lines: Mapping[Any, int] = {}
    if path.suffix == ".json":
        data = deepmd_keys.read(path)
    else:
        data, lines = config.read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}:1: expected 'key: value' lines, found {type(data).__name__}")
    if not deepmd_input.recognise(data):
        return data, lines, str(path)
    finetune = "head" in cls.model_fields
    named = given.get("head" if finetune else "heads")
    names = [named] if isinstance(named, str) else list(named or ())
    found = deepmd_input.translate(
        data, str(path), finetune=finetune, head=names[0] if len(names) == 1 else None
    )
    deepmd_input.report(found, str(path))
    if found.multitask and hasattr(args, "multitask"):
        args.multitask = True  # the file says it
    return found.options, {}, str(path)


def run_folder(args: argparse.Namespace, default: str) -> Path:
    """The output folder; one that holds something is only taken with ``--resume``.

    ``args.made`` is the folder where it was not there before: the command line removes it if nothing comes into it.

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
    # A machine beside the first, or a rank of msrun's beside the first, finds what that has begun.
    under_msrun = os.environ.get("MS_ROLE") == "MS_WORKER" and os.environ.get("MS_NODE_ID", "0") != "0"
    another = (getattr(args, "node", None) or 0) > 0 or under_msrun
    if out.is_dir() and not another:
        if any(p.name not in (CONVERTED, LABELLED) for p in out.iterdir()):
            raise UserError(
                f"{out}: already holds a run; --resume goes on with it, --out DIR starts another one"
            )
        shutil.rmtree(out / LABELLED, ignore_errors=True)
    if not out.exists():
        args.made = out
    require_writable(out)
    if args.out is None:
        log.info("writing to %s (--out DIR for another folder)", out)
    return out
