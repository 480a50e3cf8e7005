"""Which stage may use which processor cores, so that stages at work together do not crowd the machine."""

from __future__ import annotations

import os

# A training uses many cores well and memory heavily, so it waits for this many (or all, where there are fewer)
# rather than run beside another one.
WANTED = {"pretrain": 8, "finetune": 8, "distill": 8}
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def available() -> list[int]:
    """Numbers of the cores that this process may use."""
    return (
        sorted(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else list(range(os.cpu_count() or 1))
    )


def environment(n_cores: int) -> dict[str, str]:
    """Variables that keep libraries from starting more threads than there are cores for them."""
    return dict.fromkeys(THREADS, str(n_cores))


def settle_on(cores: list[int]) -> None:
    """Let this process and all that it starts run on these cores only."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


class Cores:
    """The cores of this machine, granted to stages and given back.

    Args:
        places: How many stages may run at once; 0: as the cores suffice.
        cores: The cores; those of this process by default.
    """

    def __init__(self, places: int = 0, cores: list[int] | None = None) -> None:
        self.all = available() if cores is None else cores
        self.places = places
        self._users = dict.fromkeys(self.all, 0)
        self._granted = 0

    def grant(self, stage: str, waiting: int) -> list[int]:
        """Cores for a stage that is to start; none while it has to wait.

        Args:
            stage: Name of the stage.
            waiting: How many stages are ready to start, this one included.
        """
        if self.places:
            if self._granted >= self.places:
                return []
            n = max(1, len(self.all) // self.places)
        else:
            free = sum(not n for n in self._users.values())
            wanted = min(WANTED.get(stage, 1), len(self.all))
            if free < wanted:
                return []
            n = max(wanted, free // waiting)
        least_used = sorted(self.all, key=lambda core: (self._users[core], core))[:n]
        for core in least_used:
            self._users[core] += 1
        self._granted += 1
        return sorted(least_used)

    def give_back(self, cores: list[int]) -> None:
        """The stage is over."""
        for core in cores:
            self._users[core] -= 1
        self._granted -= 1
