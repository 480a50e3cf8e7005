"""The processes that train together, seen from one of them: who it is, sums over all, what each one holds.

MindSpore's own collectives (on CPU over TCP, on accelerators their libraries) do the sums; the processes find each
other by MindSpore's environment variables, which :mod:`lamkit.train.launch`, ``msrun`` or a cluster's script sets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from mindspore import Tensor, nn, ops
from numpy.typing import NDArray

from lamkit.errors import LamkitError, UserError
from lamkit.model.runtime import setup

HALF = 1 << 12  # integers travel as float32 in parts of 12 bits, which are exact


class Sum(nn.Cell):
    """Sum of a flat tensor over all processes, in one collective."""

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.reduce = ops.AllReduce()

    def construct(self, flat: Tensor) -> Tensor:
        """``flat`` [n] summed."""
        return self.reduce(flat)


class World:
    """Rank of this process and the sums over all; alone there is nothing to sum.

    Args:
        rank: of this process, from 0.
        size: number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._sum = Sum() if size > 1 else None

    @property
    def leader(self) -> bool:
        """Whether this process writes the records and checkpoints."""
        return self.rank == 0

    def sum(self, flat: Tensor) -> Tensor:
        """``flat`` [n] summed over all processes; every process must call it.

        Raises:
            LamkitError: another process is gone.
        """
        if self._sum is None:
            return flat
        try:
            return self._sum(flat)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
            raise LamkitError(f"rank {self.rank}: another rank does not answer ({reason})") from None

    def gather(self, numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Integers from 0 to 2⁴⁸, of the same shape in every process, from each of them."""
        if self.size == 1:
            return [numbers]
        parts = np.stack([(numbers >> (12 * k)) % HALF for k in range(4)])
        mine = np.zeros((self.size, *parts.shape), np.float32)
        mine[self.rank] = parts
        found = self.sum(Tensor(mine.ravel())).asnumpy().reshape(mine.shape).astype(np.int64)
        return [sum(part[k] << (12 * k) for k in range(4)) for part in found]

    def agree(self, what: Mapping[str, int]) -> None:
        """Raise unless every process has the same numbers.

        Raises:
            UserError: naming what differs.
        """
        mine = np.array(list(what.values()), dtype=np.int64)
        for rank, other in enumerate(self.gather(mine)):
            differing = [name for name, a, b in zip(what, mine, other, strict=True) if a != b]
            if differing:
                raise UserError(
                    f"rank {rank} and rank {self.rank} differ in their {', '.join(differing)}: all ranks must read the "
                    "same data sets and the same checkpoint, with the same LAMKit"
                )


class Role(NamedTuple):
    """What the environment says of this process."""

    rank: int
    size: int


def role() -> Role | None:
    """Rank and size where this process is one of several, started by LAMKit or by msrun; None where it is not."""
    if os.environ.get("MS_ROLE") != "MS_WORKER" or int(os.environ.get("MS_WORKER_NUM", "1")) < 2:
        return None
    return Role(int(os.environ.get("MS_NODE_ID", "0")), int(os.environ["MS_WORKER_NUM"]))


def schedule() -> None:
    """Be the process through which the ranks find each other, until they have ended."""
    from mindspore.communication import init

    setup("CPU")
    init()


def join() -> World:
    """Meet the other processes, where there are any; MindSpore must have been set up.

    Raises:
        LamkitError: they cannot be reached.
    """
    if role() is None:
        return World()
    from mindspore.communication import get_group_size, get_rank, init

    try:
        init()
    except RuntimeError as error:
        raise LamkitError(
            f"the other ranks cannot be reached ({str(error).strip().splitlines()[0]}); scheduler at "
            f"{os.environ.get('MS_SCHED_HOST')}:{os.environ.get('MS_SCHED_PORT')}"
        ) from None
    return World(get_rank(), get_group_size())
