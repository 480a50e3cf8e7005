"""All symmetry-distinct ways to put given numbers of species on the sites of a crystal.

Two occupations are the same if an operation of a permutation group (the crystal's space group with the
translations inside the supercell) carries one into the other. Each class of equal ones, an orbit, has a canonical
member, the one with the smallest key; from it follow

* the list of all orbits, by adding one atom at a time and keeping one member of each orbit: every occupation
  with an atom more comes from one with an atom less, so none is missed (orderly generation, R. C. Read 1978);
* multiplicities by the orbit-stabiliser theorem, ``|orbit| = |G| / |stabiliser|``;
* random orbits where there are too many to list.

The group is that of the supercell. Two occupations that repeat themselves inside of it can also be the same by an
operation that turns the supercell's lattice into another one; :func:`joined` finds those.

How many there are is known beforehand by Burnside's lemma with Pólya's generating function: the mean over
the group of the occupations that an operation leaves as they are.

An occupation is a row of small integers, one per site: 0 is the commonest species of the site's pool, ``l + 1``
the species of layer ``l``. A key is a row of float64, exact because each holds at most 48 binary digits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb, prod

import numpy as np
from numpy.typing import NDArray

from lamkit.crystal.symmetry import Turn
from lamkit.errors import LamkitError

DIGITS = 48  # sites in one word of a key
BLOCK = 4_000_000  # entries of the largest array while keys are worked out: 32 MB
TRIES = 200  # random occupations drawn for each one wanted, before giving up on new ones


@dataclass(frozen=True)
class Pool:
    """Sites among which species are dealt out.

    Attributes:
        sites: indices of the sites in the group's permutations.
        counts: species → number of sites that get it; adds up to ``len(sites)``.
    """

    sites: tuple[int, ...]
    counts: tuple[tuple[str, int], ...]

    @property
    def background(self) -> str:
        """The commonest species."""
        return max(self.counts, key=lambda item: item[1])[0]

    @property
    def others(self) -> list[tuple[str, int]]:
        """The other species, rarest first."""
        return sorted(((s, n) for s, n in self.counts if n and s != self.background), key=lambda i: i[1])


@dataclass(frozen=True)
class Layer:
    """One species that is put on sites of one pool."""

    pool: int
    species: str
    count: int


@dataclass(frozen=True)
class Orbits:
    """Distinct occupations.

    Attributes:
        occupations: ``[n, n_sites]``, canonical members in ascending order of their keys.
        multiplicities: how many equal ones each stands for, ``[n]``.
    """

    occupations: NDArray[np.int8]
    multiplicities: NDArray[np.int64]


def layers(pools: Sequence[Pool]) -> list[Layer]:
    """Species to be put on, in this order."""
    return [Layer(k, species, n) for k, pool in enumerate(pools) for species, n in pool.others]


def species(pools: Sequence[Pool], occupation: NDArray[np.int8]) -> dict[int, str]:
    """Site → species."""
    names = [layer.species for layer in layers(pools)]
    return {
        site: names[occupation[site] - 1] if occupation[site] else pool.background
        for pool in pools
        for site in pool.sites
    }


def n_total(pools: Sequence[Pool]) -> int:
    """Number of occupations, equal ones counted each: a product of multinomial coefficients."""
    result = 1
    for pool in pools:
        left = len(pool.sites)
        for _, n in pool.counts:
            result *= comb(left, n)
            left -= n
    return result


def n_distinct(pools: Sequence[Pool], group: NDArray[np.intp]) -> int:
    """Number of orbits, by Burnside's lemma; nothing is enumerated.

    Args:
        pools: sites and species.
        group: all operations as permutations, ``[n_operations, n_sites]``; closed, each once.
    """
    types: Counter[tuple[tuple[int, ...], ...]] = Counter(_cycle_types(pools, g) for g in group)
    fixed = sum(
        times * prod(_left_as_they_are(lengths, pool) for lengths, pool in zip(cycles, pools, strict=True))
        for cycles, times in types.items()
    )
    return _exact(fixed, len(group))


def _exact(number: int, divisor: int) -> int:
    if number % divisor:
        raise LamkitError(
            f"the operations do not form a group: {number} fixed occupations, {divisor} of them"
        )
    return number // divisor


def _cycle_types(pools: Sequence[Pool], g: NDArray[np.intp]) -> tuple[tuple[int, ...], ...]:
    """Lengths of the cycles of one permutation, for each pool."""
    result = []
    for pool in pools:
        lengths, seen = [], set()
        for first in pool.sites:
            site, length = first, 0
            while site not in seen:
                seen.add(site)
                site, length = int(g[site]), length + 1
            if length:
                lengths.append(length)
        result.append(tuple(sorted(lengths)))
    return tuple(result)


def _left_as_they_are(lengths: Sequence[int], pool: Pool) -> int:
    """Occupations of a pool with one species per cycle: a coefficient of Π_cycles Σ_species x_species^length."""
    counts = [n for _, n in pool.others]
    ways = np.zeros([n + 1 for n in counts], dtype=object)
    ways.flat[0] = 1
    for length in lengths:
        more = ways.copy()  # the cycle gets the background
        for axis, n in enumerate(counts):
            if length <= n:
                before = tuple(
                    slice(None) if a != axis else slice(0, n + 1 - length) for a in range(len(counts))
                )
                after = tuple(slice(None) if a != axis else slice(length, None) for a in range(len(counts)))
                more[after] += ways[before]
        ways = more
    return int(ways.flat[-1])


class _Keys:
    """Works out canonical keys."""

    def __init__(self, pools: Sequence[Pool], group: NDArray[np.intp]) -> None:
        self.n_sites, self.n_operations = group.shape[1], len(group)
        self.layers = layers(pools)
        # weights[word][site, g] = 2^(place of the site's image in this word), 0 if it lies in another word
        self.weights = []
        for start in range(0, self.n_sites, DIGITS):
            place = group.T.astype(np.float64) - start
            self.weights.append(np.where((place >= 0) & (place < DIGITS), np.exp2(place), 0.0))

    def canonical(self, occupations: NDArray[np.int8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Smallest key over the group of each row, ``[n, n_words]``, and how many operations reach it."""
        size = max(1, BLOCK // self.n_operations)
        blocks = [self._block(occupations[i : i + size]) for i in range(0, len(occupations), size)]
        return np.concatenate([k for k, _ in blocks]), np.concatenate([n for _, n in blocks])

    def _block(self, occupations: NDArray[np.int8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        smallest = np.ones((len(occupations), self.n_operations), dtype=bool)
        words = []
        for number in range(1, len(self.layers) + 1):
            there = (occupations == number).astype(np.float64)
            for weights in self.weights:
                word = np.where(smallest, there @ weights, np.inf)
                words.append(word.min(axis=1))
                smallest &= word == words[-1][:, None]
        return np.stack(words, axis=1), smallest.sum(axis=1)

    def decode(self, keys: NDArray[np.float64]) -> NDArray[np.int8]:
        """The occupations that keys stand for, ``[n, n_sites]``."""
        result = np.zeros((len(keys), self.n_sites), dtype=np.int8)
        n_words = len(self.weights)
        for number in range(len(self.layers)):
            for k, start in enumerate(range(0, self.n_sites, DIGITS)):
                word = keys[:, number * n_words + k].astype(np.int64)
                for site in range(start, min(start + DIGITS, self.n_sites)):
                    result[(word >> (site - start)) & 1 == 1, site] = number + 1
        return result


def enumerate_all(pools: Sequence[Pool], group: NDArray[np.intp]) -> Orbits:
    """Every orbit, once; time and memory grow with their number times sites times operations.

    Args:
        pools: sites and species.
        group: all operations as permutations, ``[n_operations, n_sites]``; closed, each once.
    """
    keys = _Keys(pools, group)
    found = np.zeros((1, group.shape[1]), dtype=np.int8)
    for number, layer in enumerate(keys.layers, start=1):
        sites = np.array(pools[layer.pool].sites)
        for _ in range(layer.count):
            found = keys.decode(_with_one_more(found, sites, number, keys))
    if not keys.layers:
        return Orbits(found, np.ones(1, dtype=np.int64))
    return _orbits(keys, keys.canonical(found)[0])


def _with_one_more(
    occupations: NDArray[np.int8], sites: NDArray[np.intp], number: int, keys: _Keys
) -> NDArray[np.float64]:
    """Canonical keys of all that come of one more atom of a layer, each once and sorted."""
    unique: list[NDArray[np.float64]] = []
    size = max(1, BLOCK // (len(sites) * keys.n_operations))
    for start in range(0, len(occupations), size):
        block = occupations[start : start + size]
        rows, columns = np.nonzero(block[:, sites] == 0)
        candidates = block[rows]
        candidates[np.arange(len(rows)), sites[columns]] = number
        unique.append(np.unique(keys.canonical(candidates)[0], axis=0))
    return np.unique(np.concatenate(unique), axis=0)


def _orbits(keys: _Keys, canonical: NDArray[np.float64]) -> Orbits:
    """Orbits of sorted canonical keys."""
    occupations = keys.decode(canonical)
    _, stabiliser = keys.canonical(occupations)
    return Orbits(occupations, keys.n_operations // stabiliser)


def draw(pools: Sequence[Pool], group: NDArray[np.intp], n: int, seed: int) -> Orbits:
    """``n`` different orbits at random (fewer if no more turn up), each as likely as its multiplicity says.

    That is the weight with which it appears in the ideally random alloy.

    Args:
        pools: sites and species.
        group: all operations as permutations, ``[n_operations, n_sites]``.
        n: how many.
        seed: of the draw.
    """
    keys = _Keys(pools, group)
    if not keys.layers:
        return enumerate_all(pools, group)
    rng = np.random.default_rng(seed)
    found: dict[bytes, NDArray[np.float64]] = {}
    for _ in range(TRIES):
        drawn = np.stack([_random(pools, group.shape[1], rng) for _ in range(n)])
        for key in keys.canonical(drawn)[0]:
            if len(found) < n:
                found.setdefault(key.tobytes(), key)
        if len(found) == n:
            break
    return _orbits(keys, np.unique(np.stack(list(found.values())), axis=0))


def joined(orbits: Orbits, pools: Sequence[Pool], group: NDArray[np.intp], turns: Sequence[Turn]) -> Orbits:
    """Orbits that are one crystal made one, with the sum of their multiplicities.

    Args:
        orbits: by the group of the supercell.
        pools: sites and species.
        group: that group.
        turns: operations of the crystal that do not keep the supercell's lattice.
    """
    keys = _Keys(pools, group)
    if not keys.layers or not turns:
        return orbits
    place = {row.tobytes(): k for k, row in enumerate(orbits.occupations)}
    first = np.arange(len(place))
    for turn in turns:
        same = np.all(
            [(orbits.occupations[:, p] == orbits.occupations).all(axis=1) for p in turn.repeats], axis=0
        )
        if not same.any():
            continue
        turned = keys.decode(keys.canonical(orbits.occupations[same][:, turn.origins])[0])
        for k, row in zip(np.nonzero(same)[0], turned, strict=True):
            other = place.get(row.tobytes(), k)  # of a random choice the other may be missing
            low, high = sorted((first[k], first[other]))
            first[first == high] = low
    kept = np.unique(first)
    sums = np.bincount(first, weights=orbits.multiplicities, minlength=len(first)).astype(np.int64)
    return Orbits(orbits.occupations[kept], sums[kept])


def _random(pools: Sequence[Pool], n_sites: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """One occupation, all equally likely."""
    result = np.zeros(n_sites, dtype=np.int8)
    number = 1
    for pool in pools:
        order = rng.permutation(np.array(pool.sites))
        ends = np.cumsum([0, *(n for _, n in pool.others)])
        for start, end in pairwise(ends):
            result[order[start:end]] = number
            number += 1
    return result


def canonical(
    pools: Sequence[Pool], group: NDArray[np.intp], occupation: NDArray[np.int8]
) -> NDArray[np.int8]:
    """The canonical member of an occupation's orbit: equal for two occupations if and only if they are the same."""
    keys = _Keys(pools, group)
    if not keys.layers:
        return occupation.copy()
    return keys.decode(keys.canonical(occupation[None])[0])[0]
