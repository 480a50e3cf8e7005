"""Parts of a stage shared out among processes: each part to one of them, as they get free.

One lock file with a byte for each part. Locks of a process end with it, so a part whose process was killed can
be claimed again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

_FILE = ".claims"


def part(folder: Path, name: str) -> Path:
    """File that a part of a stage leaves when it is done."""
    return folder / "parts" / f"{name}.npz"


def missing(folder: Path, names: Sequence[str]) -> list[str]:
    """Parts that are not done yet."""
    return [name for name in names if not part(folder, name).is_file()]


def n_done(folder: Path) -> int:
    """How many parts are done; a look at the folder alone, quick for thousands of them."""
    home = folder / "parts"
    if not home.is_dir():
        return 0
    with os.scandir(home) as entries:
        return sum(entry.name.endswith(".npz") and not entry.name.startswith(".") for entry in entries)


def claim(folder: Path, names: Sequence[str]) -> Iterator[str]:
    """Give out every part that is neither done nor in the hands of another process; one at a time.

    A part stays in the hands of this process until the end, as it may be done together with later ones.
    """
    home = folder / "parts"
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home / _FILE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        for i, name in enumerate(names):
            if part(folder, name).is_file() or not _locked(descriptor, i):
                continue
            if not part(folder, name).is_file():  # done between the two lines above
                yield name
    finally:
        os.close(descriptor)


def _locked(descriptor: int, place: int) -> bool:
    """Lock one byte of the file; False when another process has it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except (BlockingIOError, PermissionError):
        return False
    return True
