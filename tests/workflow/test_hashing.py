"""Content hashes of inputs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamkit.workflow import hashing
from lamkit.workflow.hashing import HashCache


def age(path: Path, seconds: float = 100.0) -> None:
    """Make a file look older than the resolution of time stamps."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_the_same_content_in_another_place_has_the_same_hash(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place / "data").mkdir(parents=True)
        (tmp_path / place / "data" / "x").write_text("1")
    one, two = (hashing.contents(str(tmp_path / place / "data"), HashCache()) for place in ("one", "two"))
    assert one == two


def test_a_renamed_or_changed_file_in_a_folder_changes_its_hash(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    before = hashing.contents(str(tmp_path), HashCache())
    (tmp_path / "x").write_text("2")
    changed = hashing.contents(str(tmp_path), HashCache())
    (tmp_path / "x").rename(tmp_path / "y")
    assert len({before, changed, hashing.contents(str(tmp_path), HashCache())}) == 3


def test_a_glob_means_all_its_files(tmp_path: Path) -> None:
    for name in ("OUTCAR-2", "OUTCAR-1", "other"):
        (tmp_path / name).write_text(name)
    found = hashing.locate(str(tmp_path / "OUTCAR*"))
    assert [path.name for path in found] == ["OUTCAR-1", "OUTCAR-2"]


def test_an_input_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(hashing.MissingInput, match=r"nothing\.extxyz does not exist"):
        hashing.contents(str(tmp_path / "nothing.extxyz"), HashCache())


def test_a_file_is_read_once_and_its_hash_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_text("1")
    age(path)
    cache = HashCache(tmp_path / "hashes")
    value = cache.file(path)
    cache.save()
    monkeypatch.setattr(hashing, "sha256", lambda path: pytest.fail("read again"))
    assert HashCache(tmp_path / "hashes").file(path) == value


def test_a_file_that_has_just_been_written_is_not_trusted_to_its_time_stamp(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("1")
    stamp = path.stat().st_mtime_ns
    cache = HashCache(tmp_path / "hashes")
    before = cache.file(path)
    path.write_text("2")
    os.utime(path, ns=(stamp, stamp))
    assert cache.file(path) != before


def test_a_broken_memory_of_hashes_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "hashes").write_text('{"a": [1,')
    (tmp_path / "x").write_text("1")
    age(tmp_path / "x")
    cache = HashCache(tmp_path / "hashes")
    cache.file(tmp_path / "x")
    cache.save()
    assert str(tmp_path / "x") in (tmp_path / "hashes").read_text()
