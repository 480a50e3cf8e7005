"""Distinct occupations: against brute force, against Burnside's count, and the sixteen of a known perovskite."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from hypothesis import given, settings
from hypothesis import strategies as st

from lamkit.crystal import occupations, symmetry
from lamkit.crystal.occupations import Pool
from lamkit.errors import LamkitError


def ring(n: int, mirrors: bool = True) -> np.ndarray:
    """Rotations of a necklace of ``n`` beads, and its mirrors."""
    turns = [(np.arange(n) + k) % n for k in range(n)]
    return np.unique([*turns, *(t[::-1] for t in turns if mirrors)], axis=0)


def pool(start: int = 0, **counts: int) -> Pool:
    return Pool(tuple(range(start, start + sum(counts.values()))), tuple(counts.items()))


def brute_force(pools: list[Pool], group: np.ndarray) -> list[set[tuple[str, ...]]]:
    """Orbits of all occupations as tuples of species, by applying every operation to every one."""
    words = [sorted(set(itertools.permutations([s for s, n in p.counts for _ in range(n)]))) for p in pools]
    left = {sum(parts, ()) for parts in itertools.product(*words)}
    orbits = []
    while left:
        one = next(iter(left))
        orbit = set()
        for g in group:
            moved = [""] * len(one)
            for site, species in enumerate(one):
                moved[g[site]] = species
            orbit.add(tuple(moved))
        left -= orbit
        orbits.append(orbit)
    return orbits


def as_words(pools: list[Pool], row: np.ndarray) -> tuple[str, ...]:
    return tuple(name for _, name in sorted(occupations.species(pools, row).items()))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=3).filter(lambda c: 2 <= sum(c) <= 7), st.booleans())
def test_orbits_are_those_of_brute_force(counts, mirrors):
    pools = [pool(**dict(zip("ABC", counts, strict=False)))]
    group = ring(sum(counts), mirrors)
    expected = brute_force(pools, group)
    found = occupations.enumerate_all(pools, group)
    assert len(found.occupations) == len(expected) == occupations.n_distinct(pools, group)
    sizes = {word: len(orbit) for orbit in expected for word in orbit}
    words = [as_words(pools, row) for row in found.occupations]
    assert [sizes[word] for word in words] == found.multiplicities.tolist()
    assert len({frozenset(next(o for o in expected if w in o)) for w in words}) == len(expected)


def test_two_pools_are_turned_together():
    group = np.array([np.concatenate([g, g + 4]) for g in ring(4)])
    pools = [pool(A=2, B=2), pool(4, C=3, D=1)]
    found = occupations.enumerate_all(pools, group)
    assert len(found.occupations) == len(brute_force(pools, group))
    assert found.multiplicities.sum() == occupations.n_total(pools) == comb(4, 2) * 4


def test_more_sites_than_a_word_has_digits():
    """Two foreign beads on a ring of 100 differ only by how far apart they are: 1 to 50."""
    pools, group = [pool(A=98, B=2)], ring(100)
    found = occupations.enumerate_all(pools, group)
    assert len(found.occupations) == occupations.n_distinct(pools, group) == 50
    gaps = [np.diff(np.nonzero(row)[0])[0] for row in found.occupations]
    assert sorted(min(g, 100 - g) for g in gaps) == list(range(1, 51))


def test_a_count_needs_no_enumeration():
    """Necklaces of 60 beads, half of them black: far too many to list."""
    pools, group = [pool(A=30, B=30)], ring(60)
    distinct = occupations.n_distinct(pools, group)
    assert occupations.n_total(pools) / 120 < distinct < 1.0001 * occupations.n_total(pools) / 120


def test_what_is_no_group_is_noticed():
    with pytest.raises(LamkitError, match="do not form a group"):
        occupations.n_distinct([pool(A=2, B=2)], ring(4)[:3])


def test_random_orbits_are_different_and_weighted_right():
    pools, group = [pool(A=6, B=6)], ring(12)
    everything = occupations.enumerate_all(pools, group)
    weights = {r.tobytes(): m for r, m in zip(everything.occupations, everything.multiplicities, strict=True)}
    drawn = occupations.draw(pools, group, 10, seed=3)
    assert len({row.tobytes() for row in drawn.occupations}) == 10
    assert [weights[r.tobytes()] for r in drawn.occupations] == drawn.multiplicities.tolist()
    again = occupations.draw(pools, group, 10, seed=3)
    np.testing.assert_array_equal(again.occupations, drawn.occupations)
    n_all = len(everything.occupations)
    assert len(occupations.draw(pools, group, n_all + 5, seed=0).occupations) == n_all


def test_nothing_to_share_out_is_one_occupation():
    found = occupations.enumerate_all([pool(A=5)], ring(5))
    assert found.occupations.tolist() == [[0] * 5]
    assert found.multiplicities.tolist() == [1]


@pytest.fixture(scope="module")
def perovskite():
    """A 2x2x2 cell of ABO3 with its A and B sites, their pools and the group."""
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    atoms = Atoms("BaTiO3", scaled_positions=sites, cell=[4.0] * 3, pbc=True).repeat(2)
    where = np.concatenate([np.nonzero(atoms.symbols == s)[0] for s in ("Ba", "Ti")])
    pools = [pool(Ba=4, Na=2, Bi=2), pool(8, Ti=7, Zr=1)]
    return atoms, where, pools, symmetry.permutations(atoms, atoms.numbers, where)


def test_the_perovskite_of_eight_cells_has_sixteen_arrangements(perovskite):
    _, _, pools, group = perovskite
    assert len(group) == 48 * 8  # Pm-3m times the translations inside the cell
    assert occupations.n_distinct(pools, group) == 16
    found = occupations.enumerate_all(pools, group)
    assert len(found.occupations) == 16
    assert found.multiplicities.sum() == occupations.n_total(pools) == 8 * 420


def test_they_are_the_sixteen_files_of_the_known_example_one_to_one(perovskite, shared):
    """Each POSCAR lies on the same sites; the canonical member of its orbit says which arrangement it is."""
    atoms, where, pools, group = perovskite
    ours = {row.tobytes() for row in occupations.enumerate_all(pools, group).occupations}
    theirs = []
    for k in range(1, 17):
        known = read(shared / f"data/pfd_BNBZTO/POSCAR-{k:02d}", format="vasp")
        cations = known[[s != "O" for s in known.get_chemical_symbols()]]
        difference = atoms.get_scaled_positions()[where][:, None] - cations.get_scaled_positions()[None]
        distances = np.linalg.norm(difference - np.round(difference), axis=2)
        assert distances.min(axis=1).max() < 1e-6
        symbols = np.array(cations.get_chemical_symbols())[distances.argmin(axis=1)]
        order = [layer.species for layer in occupations.layers(pools)]
        row = np.array([order.index(s) + 1 if s in order else 0 for s in symbols], dtype=np.int8)
        theirs.append(occupations.canonical(pools, group, row).tobytes())
    assert len(set(theirs)) == 16
    assert set(theirs) == ours
