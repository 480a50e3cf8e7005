"""Small frames made in memory for the tests of the data room."""

from __future__ import annotations

import numpy as np

from lamkit.data.frame import Frame, make_frame


def random_frame(seed: int, *, n_atoms: int = 4, stress=True, **fields) -> Frame:
    """A periodic frame with random labels and atoms well apart; ``stress`` True makes a random one."""
    rng = np.random.default_rng(seed)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)])[:n_atoms]
    labels = {
        "energy": -7.0 * n_atoms + rng.normal(),
        "forces": rng.normal(size=(n_atoms, 3)),
        "stress": rng.normal(size=6) * 0.01 if stress is True else stress,
        "source": "memory",
        "step": seed,
        "group": f"run {seed // 5}",
    }
    return make_frame(
        fields.pop("numbers", rng.choice([1, 8, 22], n_atoms)),
        grid * 2.5 + rng.normal(size=(n_atoms, 3)) * 0.1,
        fields.pop("cell", 7.5 * np.eye(3) + rng.normal(size=(3, 3)) * 0.2),
        fields.pop("pbc", True),
        **{**labels, **fields},
    )


def frames(n: int, **fields) -> list[Frame]:
    """``n`` random frames, five to a group."""
    return [random_frame(i, **fields) for i in range(n)]


def read_all(fmt: str, path, **options) -> list:
    """Everything that a reader yields for one file."""
    from lamkit.data.formats import ReadOptions, get_format, plain_file

    with plain_file(path) as file:
        return list(get_format(fmt).read(file, str(path), ReadOptions(**options)))


def kept(things: list) -> list[Frame]:
    """Only the frames of what a reader yields."""
    return [thing for thing in things if isinstance(thing, Frame)]
