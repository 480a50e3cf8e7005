"""Broken files: no traceback, no endless loop, and no label of one frame on another.

Each case breaks a small file at random and reads it as ``lamkit data convert`` does. A hundred cases of each
format run by default; ``LAMKIT_FUZZ`` sets how many in all the slow test reads (10,000).
"""

import os
import signal
from contextlib import contextmanager
from dataclasses import replace

import mutations
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamkit.data.formats import ReadOptions, plain_file, recognise
from lamkit.data.frame import Frame, from_voigt
from lamkit.data.quality import examine, rejected
from lamkit.errors import UserError

SECONDS = 20  # a case of a few kB takes milliseconds
NUMBERS_PER_BREAK = 5  # of the 40 of a frame: a number of the cell counts twice or three times
CASES = int(os.environ.get("LAMKIT_FUZZ", "10000"))


@contextmanager
def time_limit():
    def stop(*_):
        raise AssertionError(f"still reading after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read(path):
    """Sound frames of a file; errors that a user would get are swallowed, all others come through."""
    frames, said = [], path.name
    try:
        fmt = recognise(path)
        if fmt is not None:
            with plain_file(path) as file:
                for thing in fmt.read(file, str(path), ReadOptions()):
                    if isinstance(thing, Frame):
                        thing, findings = examine(thing)
                        if rejected(findings) is None:
                            frames.append(thing)
    except UserError as error:
        said = str(error)
    assert path.name in said
    return frames


def numbers_of(frame, with_stress):
    """Structure and labels of a frame as numbers that no rotation moves, in four ways.

    One break in the file changes few of them in one way: where one number of the cell changes, positions stay
    the same either in Å or in parts of the cell; where one atom moves, those seen from another atom do.
    """
    lengths = np.linalg.norm(frame.cell, axis=1)
    cell = [*lengths, *(frame.cell[i] @ frame.cell[j] for i, j in ((0, 1), (0, 2), (1, 2)))]
    labels = [*np.linalg.norm(frame.forces, axis=1), frame.energy]
    if with_stress:
        labels += [frame.stress[:3].sum(), np.linalg.norm(from_voigt(frame.stress))]
    rest = np.array([*labels, *cell, *frame.numbers])
    seen_from = [frame.positions - frame.positions[k] for k in (0, 1)]
    places = [*seen_from, *(apart @ np.linalg.inv(frame.cell) for apart in seen_from)]
    return [np.concatenate([np.linalg.norm(x, axis=1), rest]) for x in places]


def changed(frame, originals):
    """How many numbers of a frame are not those of the original frame that it is most like."""
    differences = [len(frame) * 3]
    with_stress = frame.stress is not None
    for original in originals:
        for mine, its in zip(numbers_of(frame, with_stress), numbers_of(original, with_stress), strict=True):
            if len(mine) == len(its):
                differences.append(int((~np.isclose(mine, its, rtol=1e-6, atol=2e-6)).sum()))
    return min(differences)


def check(name, data, n_mutations, folder, originals):
    """Read a broken file; fail if it hangs, raises, or gives a frame put together from two."""
    path = folder / name
    path.write_bytes(data)
    with time_limit():
        frames = read(path)
    for frame in frames:
        n = changed(frame, originals)
        assert n <= NUMBERS_PER_BREAK * n_mutations, f"{name}, step {frame.step}: {n} numbers of other frames"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The frames of the sound files."""
    folder = tmp_path_factory.mktemp("sound")
    found = {}
    for name, make in mutations.SEEDS.items():
        (folder / name).write_bytes(make())
        found[name] = read(folder / name)
        assert len(found[name]) == 4, name
    return found


def run(name, cases, folder, originals):
    data = mutations.SEEDS[name]()
    for case in cases:
        broken, n = mutations.mutate(data, np.random.default_rng([case, *name.encode()]))
        try:
            check(name, broken, n, folder, originals[name])
        except BaseException:
            print(f"case {case} of {name}")
            raise


@pytest.mark.parametrize("name", mutations.SEEDS)
def test_a_broken_file_gives_no_traceback_and_no_mixed_frame(name, tmp_path, originals):
    run(name, range(100), tmp_path, originals)


@pytest.mark.slow
@pytest.mark.parametrize("name", mutations.SEEDS)
def test_ten_thousand_broken_files(name, tmp_path, originals):
    run(name, range(100, 100 + CASES // len(mutations.SEEDS)), tmp_path, originals)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(mutations.SEEDS)),
    breaks=st.lists(
        st.tuples(
            st.sampled_from(mutations.WAYS),
            st.floats(0, 1, exclude_max=True),
            st.integers(1, 40),
            st.one_of(st.sampled_from(mutations.WORDS), st.binary(min_size=1, max_size=6)),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_any_bytes_anywhere_give_no_traceback(tmp_path_factory, originals, name, breaks):
    data = mutations.SEEDS[name]()
    for way, where, much, word in breaks:
        data = way(data, int(where * len(data)), much, word) if data else data
    check(name, data, len(breaks), tmp_path_factory.getbasetemp(), originals[name])


@pytest.mark.parametrize("name", mutations.SEEDS)
def test_random_bytes_under_a_known_name_are_refused(name, tmp_path):
    rng = np.random.default_rng(0)
    for n in (0, 1, 50, 5000):
        (tmp_path / name).write_bytes(rng.bytes(n))
        with time_limit():
            assert read(tmp_path / name) == []


def test_entities_that_multiply_are_refused(tmp_path):
    """A few lines of XML that would unfold to gigabytes."""
    bomb = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 12))
    text = f'<?xml version="1.0"?><!DOCTYPE modeling [<!ENTITY l0 "lol">{bomb}]><modeling><i>&l11;</i></modeling>'
    (tmp_path / "vasprun.xml").write_text(text)
    with time_limit():
        assert read(tmp_path / "vasprun.xml") == []


def test_a_frame_put_together_from_two_would_be_noticed(originals):
    one, two = originals["a.extxyz"][:2]
    for fields in ("forces", "positions"):
        mixed = replace(one, **{fields: getattr(two, fields)})
        assert changed(mixed, originals["a.extxyz"]) > NUMBERS_PER_BREAK
    half = np.vstack([one.forces[:6], two.forces[6:]])
    assert changed(replace(one, forces=half), originals["a.extxyz"]) > NUMBERS_PER_BREAK
    assert changed(one, originals["a.extxyz"]) == 0


@pytest.mark.parametrize("count", ["1999999999999999999992", "99999999", "2", "13", "-1", "1e2"])
def test_a_wrong_count_of_atoms_neither_hangs_nor_gives_part_of_a_frame(tmp_path, count):
    text = mutations.extxyz().decode().replace("12\n", f"{count}\n", 1)
    (tmp_path / "a.extxyz").write_text(text)
    with time_limit():
        assert read(tmp_path / "a.extxyz") == []
