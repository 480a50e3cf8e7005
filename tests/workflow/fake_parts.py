"""A stage for tests that is made of parts: each notes in a diary that it was done, and by which process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from lamkit import config
from lamkit.config import InputPath
from lamkit.errors import UserError
from lamkit.files import atomic_write


class Options(config.Model):
    """Options of the stage."""

    diary: str
    n: int = 6
    pause: float = 0.0
    reads: InputPath | None = None
    wrong: int = -1
    killed: int = -1
    resume: bool = False


def part_names(options: Options) -> list[str]:
    return [f"part-{k}" for k in range(options.n)]


def cores_per_part(options: Options) -> int:
    return 1


def do_parts(options: Options, out: Path, names: Iterable[str]) -> None:
    for name in names:
        time.sleep(options.pause)
        with open(options.diary, "a") as stream:
            stream.write(f"{name} {os.getpid()}\n")
        if name == f"part-{options.wrong}":
            raise UserError(f"{name} has no spokes")
        if name == f"part-{options.killed}":
            os.kill(os.getpid(), signal.SIGKILL)
        text = Path(options.reads).read_text() if options.reads else ""
        atomic_write(out / "parts" / f"{name}.npz", name + text)


def run(options: Options, out: Path) -> dict:
    missing = [n for n in part_names(options) if not (out / "parts" / f"{n}.npz").exists()]
    do_parts(options, out, missing)
    files = [out / "parts" / f"{n}.npz" for n in part_names(options)]
    (out / "product.txt").write_text(",".join(f.read_text() for f in files))
    return {"parts": len(files), "folder": str(out)}
