"""What a DeepPot takes from its data, against dense sums over every place."""

from __future__ import annotations

import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from toy_data import TINY

from lamkit.data.frame import to_atoms
from lamkit.data.heads import HeadConfig, LevelOfTheory
from lamkit.model.config import DeepPotConfig, Surroundings, TrunkConfig
from lamkit.train.surroundings import settled, switch
from lamkit.train.tasks import make_task

CUTOFF, SMOOTH_FROM = 4.5, 2.0
HEAD = HeadConfig(name="alloy", level_of_theory=LevelOfTheory(method="empirical", functional="EMT"))
CONFIG = DeepPotConfig(version="deeppot-se", cutoff=CUTOFF, smooth_from=SMOOTH_FROM)


@pytest.fixture(scope="module")
def task(emt_data):
    return make_task("alloy", emt_data["alloy"], HEAD, valid_fraction=0.2, seed=0)


def dense(task, elements: list[str], slots: int):
    """Most neighbours of each element, smallest distance, and deviations from arrays with all their zeros."""
    most, nearest = np.zeros(len(elements), int), np.inf
    rows = {e: [] for e in elements}
    for frame in (task.train.frame(i) for i in range(len(task.train))):
        atoms = to_atoms(frame)
        i, j, r, d = neighbor_list("ijdD", atoms, CUTOFF)
        nearest = min(nearest, r.min())
        symbols = np.array(atoms.get_chemical_symbols())
        for a in range(len(atoms)):
            own = i == a
            most = np.maximum(most, [np.sum(symbols[j[own]] == e) for e in elements])
            w = switch(r[own], SMOOTH_FROM, CUTOFF)
            block = np.zeros((slots, 4))
            block[: own.sum(), 0] = w / r[own]
            block[: own.sum(), 1:] = d[own] * (w / r[own] ** 2)[:, None]
            rows[symbols[a]].append(block)
    deviations = []
    for e in elements:
        values = np.concatenate(rows[e])
        deviations.append((values[:, 0].std(), values[:, 1:].std()))
    return most, nearest, deviations


def test_facts_are_those_of_every_place_of_every_atom(task):
    found = settled(CONFIG, [task], None, seed=0).surroundings
    assert found.elements == ["Cu", "Ag"]
    most, nearest, deviations = dense(task, found.elements, found.slots)
    assert found.slots == sum(found.sel)
    for room, seen in zip(found.sel, most, strict=True):
        assert 1.25 * seen <= room < 1.25 * seen + 4
        assert room % 4 == 0
    assert found.min_distance == pytest.approx(nearest)
    np.testing.assert_allclose(found.deviations, deviations, rtol=1e-9)


def test_a_start_keeps_what_it_was_trained_with_and_learns_new_elements(task):
    known = Surroundings(
        elements=["Al", "Cu"], sel=[400, 4], slots=404, deviations=[(0.3, 0.2), (0.5, 0.4)], min_distance=0.5
    )
    start = CONFIG.model_copy(update={"surroundings": known})
    fresh = settled(CONFIG, [task], None, seed=0).surroundings
    found = settled(CONFIG, [task], start, seed=0).surroundings
    assert found.elements == ["Al", "Cu", "Ag"]
    assert found.slots == 404
    assert found.deviations[:2] == [(0.3, 0.2), (0.5, 0.4)]
    assert found.sel == [400, *fresh.sel]  # room grows where it must
    assert found.min_distance == 0.5


def test_an_orb_takes_nothing_from_its_data(task):
    trunk = TrunkConfig(**TINY)
    assert settled(trunk, [task], None, seed=0) is trunk


def test_switch_is_that_of_deepmd_kit():
    r = np.linspace(0.1, 6.0, 300)
    u = np.clip((r - SMOOTH_FROM) / (CUTOFF - SMOOTH_FROM), 0, 1)
    np.testing.assert_allclose(
        switch(r, SMOOTH_FROM, CUTOFF), 1 + u**3 * (-6 * u**2 + 15 * u - 10), atol=1e-15
    )
