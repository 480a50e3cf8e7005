"""Cutting a big JSON file: every record once, whatever stands in the strings, and errors that name the place."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamkit.data.formats import Dropped, ReadOptions, json_ranges, json_structures, mptrj
from lamkit.errors import UserError

NASTY = st.text(st.sampled_from('{}[]",:\\ a\u00e9\n'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | NASTY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
    max_leaves=6,
)
FILES = st.dictionaries(NASTY, st.dictionaries(NASTY, st.dictionaries(NASTY, VALUES, max_size=3), max_size=4),
                        max_size=5)  # fmt: skip


def all_records(path, n_bytes):
    ranges = list(json_ranges.cut(path, n_bytes))
    assert ranges[0].start == 0
    assert ranges[-1].stop == path.stat().st_size
    assert all(a.stop == b.start and a.first + a.n == b.first for a, b in pairwise(ranges))
    found = []
    for part in ranges:
        for key, records in json_ranges.records(path, part, "file"):
            found += [(key, name, record) for name, record in records.items()]
    return found, ranges


@settings(max_examples=300, deadline=None)
@given(FILES, st.integers(1, 200), st.sampled_from([None, 1]), st.booleans())
def test_every_record_is_found_once_wherever_the_cuts_fall(tmp_path_factory, data, n_bytes, indent, plain):
    path = tmp_path_factory.mktemp("j") / "a.json"
    path.write_text(json.dumps(data, indent=indent, ensure_ascii=not plain), encoding="utf-8")
    found, _ = all_records(path, n_bytes)
    assert found == [(k, name, record) for k, inner in data.items() for name, record in inner.items()]


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_size_of_the_chunks_does_not_matter(tmp_path, monkeypatch, chunk):
    data = {f'k{i}"\\': {f"r{j}}}{{": {"v": [j, '\\\\"']} for j in range(i % 4)} for i in range(20)}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    whole = list(json_ranges.cut(path, 50))
    monkeypatch.setattr(json_ranges, "_CHUNK", chunk)
    assert list(json_ranges.cut(path, 50)) == whole
    assert len(whole) > 5


def test_a_key_that_is_given_twice_counts_twice(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": {"x": {"v": 1}, "x": {"v": 2}}, "a": {"x": {"v": 3}}}')
    for n_bytes in (1, 1000):
        assert [record["v"] for _, _, record in all_records(path, n_bytes)[0]] == [1, 2, 3]


@pytest.mark.parametrize("text", ["[1, 2]", '{"a": 3}', '{"a": {"x": 3}}', "3"])
def test_other_json_is_no_mptrj(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)

    def read():
        things = list(mptrj.read(path, "file", ReadOptions()))
        if things and all(isinstance(thing, Dropped) for thing in things):
            raise UserError("dropped")

    with pytest.raises(UserError):
        read()


def test_numbers_that_are_not_finite_are_let_through_to_the_checks(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": {"x": {"v": NaN}}}')
    [(_, _, record)], _ = all_records(path, 1000)
    assert record["v"] != record["v"]


def test_a_truncated_file_gives_its_whole_records_and_says_where_it_ends(tmp_path):
    path = tmp_path / "a.json"
    text = json.dumps({f"k{i}": {f"r{j}": {"v": i} for j in range(3)} for i in range(30)})
    path.write_text(text[:-40])
    ranges = list(json_ranges.cut(path, 100))
    found = []

    def read():
        for part in ranges:
            for _, records in json_ranges.records(path, part, "file"):
                found.extend(records)

    with pytest.raises(UserError, match=f"file: bytes {ranges[-1].start} to .*truncated"):
        read()
    assert len(found) == text[:-40].count("}") - text[:-40].count("}}")


def test_ranges_of_mptrj_give_what_the_streaming_reader_gives(shared):
    path = shared / "data/mptrj/MPtrj_excerpt_EFS.json"
    whole, step = [], 0
    for mp_id, records in json_structures.stream(path, "", "s", pairs=True):
        whole += mptrj.frames_of(mp_id, records, "s", ReadOptions(), step)
        step += len(records)
    for n_bytes in (1, 30_000, 400_000):
        parts = [
            frame
            for part in json_ranges.cut(path, n_bytes)
            for frame in mptrj.read_range(path, part, "s", ReadOptions())
        ]
        assert len(parts) == len(whole) == 200
        for a, b in zip(parts, whole, strict=True):
            assert (a.step, a.group, a.energy, dict(a.info)) == (b.step, b.group, b.energy, dict(b.info))
            assert (a.positions == b.positions).all()
            assert (a.forces == b.forces).all()
            assert (a.stress == b.stress).all()
