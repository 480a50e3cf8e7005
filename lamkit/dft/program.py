"""What a DFT program has to offer so that frames can be labelled by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from lamkit.data.formats import Dropped, Remark

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lamkit.data.frame import Frame
    from lamkit.data.heads import LevelOfTheory


class Outcome(NamedTuple):
    """What came of one task.

    Attributes:
        frame: with labels; None if there are none.
        reason: why there are none; empty if there are.
        final: running it again is of no use.
    """

    frame: Frame | None
    reason: str = ""
    final: bool = True


class Program(Protocol):
    """A DFT program with its settings; the settings are a frozen model, and this is what it can do."""

    name: ClassVar[str]

    def check(self) -> None:
        """Look at the settings as far as this machine can tell.

        Raises:
            UserError: a file is missing or a setting makes no sense.
        """

    def inputs(self, frame: Frame) -> dict[str, bytes]:
        """Input files by name; atoms may be in another order, see :meth:`order`."""

    def order(self, frame: Frame) -> list[int]:
        """Indices of the frame's atoms in the order of the inputs."""

    def script(self) -> list[str]:
        """Lines of shell that run the program in the folder of its inputs."""

    def products(self) -> list[str]:
        """Names of the files that hold the result."""

    def read(self, folder: Path) -> Iterable[Frame | Dropped | Remark]:
        """What the program computed.

        Raises:
            UserError: nothing that can be read.
        """

    def rubbish(self) -> list[str]:
        """Patterns of large files that nobody needs once the labels are there."""

    def level(self) -> LevelOfTheory:
        """Level of theory as far as the settings say; the outputs may know more."""
