"""A stage for tests: makes a product in steps and notes each step in a diary outside of the workflow."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Literal

from lamkit import config
from lamkit.config import InputPath
from lamkit.errors import UserError


class Inner(config.Model):
    """Nested options.

    Attributes:
        max_steps: How many steps to take.
    """

    max_steps: int = 1


class Options(config.Model):
    """Options of the fake stage."""

    diary: str
    name: str = ""
    reads: tuple[InputPath, ...] = ()
    train: Inner = Inner()
    pause: float = 0.0
    fails_at: int = 0
    ending: Literal["good", "user", "error", "kill", "kill-once"] = "good"
    resume: bool = False


def run(options: Options, out: Path) -> dict:
    note(options, "start resume" if options.resume else "start")
    done = sorted(out.glob("step-*"))
    for step in range(len(done), options.train.max_steps):
        time.sleep(options.pause)
        (out / f"step-{step}").write_text("x")
        note(options, f"step {step}")
        print(f"step {step + 1} of {options.train.max_steps}", flush=True)
        end_badly(options, out)
    if options.fails_at == options.train.max_steps:
        raise UserError("the tooth of the wheel is missing")
    text = "".join(read(Path(path)) for path in options.reads)
    (out / "product.txt").write_text(f"{text}{options.name};")
    note(options, "end")
    return {"steps": options.train.max_steps}


def end_badly(options: Options, out: Path) -> None:
    if options.ending == "user":
        raise UserError("frame 3 has no energy; give one")
    if options.ending == "error":
        raise RuntimeError("the matrix is singular")
    if options.ending == "kill" or (options.ending == "kill-once" and not options.resume):
        os.kill(os.getpid(), signal.SIGKILL)


def read(path: Path) -> str:
    return (path / "product.txt" if path.is_dir() else path).read_text()


def note(options: Options, text: str) -> None:
    with open(options.diary, "a") as stream:
        stream.write(f"{options.name} {text}\n")
