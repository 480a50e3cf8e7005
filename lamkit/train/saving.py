"""The checkpoints of one run folder: the last, the one before it, the best and those kept now and then."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lamkit.console import log
from lamkit.errors import UserError
from lamkit.files import recover
from lamkit.train import checkpoint
from lamkit.train.checkpoint import Checkpoint

Arrays = dict[str, NDArray[Any]]


class Saver:
    """Writes and finds the checkpoints of a run.

    Args:
        out: run folder.
        keep: how many ``step-N`` stay.
        clear: put right what a killed process left; not while another process may be writing here.
    """

    def __init__(self, out: Path, keep: int, *, clear: bool = True) -> None:
        self.folder, self.keep, self.clear = out / "checkpoints", keep, clear
        if clear:
            recover(self.folder)

    def last(self, saved: Checkpoint, optimizer: Mapping[str, NDArray[Any]]) -> None:
        """Write ``last``; what was there becomes ``previous``.

        Raises:
            LamkitError: the disk is full or cannot be written.
        """
        previous = self.folder / "previous"
        checkpoint.write(self.folder / "last", saved, optimizer, previous=previous)

    def best(self, saved: Checkpoint) -> None:
        """Write ``best``, without what only training needs.

        Raises:
            LamkitError: as for :meth:`last`.
        """
        checkpoint.write(self.folder / "best", saved)

    def step(self, saved: Checkpoint, optimizer: Mapping[str, NDArray[Any]], step: int) -> None:
        """Write ``step-N`` and remove the oldest beyond ``keep``; nothing where none are kept.

        Raises:
            LamkitError: as for :meth:`last`.
        """
        if not self.keep:
            return
        checkpoint.write(self.folder / f"step-{step}", saved, optimizer)
        for path in self._steps()[: -self.keep]:
            shutil.rmtree(path)

    def _steps(self) -> list[Path]:
        numbered = {int(p.name[5:]): p for p in self.folder.glob("step-*") if p.name[5:].isdigit()}
        return [numbered[n] for n in sorted(numbered)]

    def newest(self) -> tuple[Checkpoint, Arrays] | None:
        """The newest checkpoint to go on from, and its optimizer; None where the run has saved none.

        One that is damaged is named, set aside, and the one before it taken.

        Raises:
            UserError: all of them are damaged.
        """
        names = [self.folder / "last", self.folder / "previous", *reversed(self._steps())]
        problems: list[str] = []
        damaged: list[Path] = []
        for folder in (n for n in names if n.is_dir()):
            try:
                found = checkpoint.read(folder), checkpoint.read_optimizer(folder)
            except UserError as error:
                problems.append(str(error))
                damaged.append(folder)
                log.warning("%s", error)
                continue
            if problems:
                log.warning("going on from %s (step %d) instead", folder, found[0].state.get("step", 0))
                self._set_aside(damaged)
            return found
        if problems:
            raise UserError(
                f"{self.folder}: no checkpoint to go on from is whole ({problems[-1]}). "
                "Start anew with another --out; --from takes the weights of 'best', if that is whole"
            )
        return None

    def _set_aside(self, damaged: Sequence[Path]) -> None:
        """Take them out of the way: the next ``last`` must not make a ``previous`` of one that is of no use."""
        for folder in damaged if self.clear else ():
            aside = folder.with_name(f"damaged-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.replace(aside)
