"""Frames labelled by several processes, into one file; what the scripts that make data share."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ase import Atoms
from ase.io import write

Job = TypeVar("Job")
EVERY = 10  # jobs between two lines that say how far it is


def collect(label: Callable[[Job], list[Atoms]], jobs: Iterable[Job], processes: int, out: Path) -> None:
    """Perform ``jobs``, each of which gives some labelled frames, and write these to ``out`` (extended XYZ).

    ``out`` is there when all is done, or not at all.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the systems are too small for more
    frames: list[Atoms] = []
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, found in enumerate(pool.imap(label, jobs), start=1):
            frames += found
            if done % EVERY == 0:
                print(f"{done} runs, {len(frames)} frames", flush=True)
    temporary = out.with_name(f"{out.stem}.part{out.suffix}")
    write(temporary, frames, format="extxyz")
    temporary.rename(out)
    print(f"{out}: {len(frames)} frames")
