"""Conversions in pieces: the same whoever reads, and whole however often they are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import write
from frames import frames, random_frame

from lamkit.cli import main
from lamkit.data import intake, pieces, unfinished
from lamkit.data.dataset import open_dataset
from lamkit.data.frame import to_atoms
from lamkit.data.sources import expand
from lamkit.errors import UserError
from lamkit.lock import Lock
from lamkit.stages import convert

DRIVER = """
import sys
from lamkit.data import pieces
from lamkit.stages import convert
pieces.PIECE_BYTES = 20_000
convert.WORTH_WORKERS = 0
workers, out, *sources = sys.argv[1:]
convert.convert(convert.Options(sources=sources, workers=int(workers)), __import__("pathlib").Path(out))
"""


def mptrj(path, n_materials=24, seed=0):
    """A small file in MPtrj's form; some frames come twice, one is broken."""
    rng = np.random.default_rng(seed)
    data = {}
    for m in range(n_materials):
        records = {}
        for k in range(int(rng.integers(1, 9))):
            f = random_frame(1000 * m + k, n_atoms=int(rng.integers(2, 9)))
            structure = {
                "lattice": {"matrix": f.cell.tolist()},
                "sites": [
                    {"species": [{"element": s, "occu": 1}], "abc": abc.tolist()}
                    for s, abc in zip(
                        to_atoms(f).get_chemical_symbols(), f.positions @ np.linalg.inv(f.cell), strict=True
                    )
                ],
            }
            records[f"mp-{m}-0-{k}"] = {
                "structure": structure, "uncorrected_total_energy": f.energy, "mp_id": f"mp-{m}",
                "force": f.forces.tolist(), "stress": [[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]],
            }  # fmt: skip
        data[f"mp-{m}"] = records
    data["mp-again"] = {"mp-again-0": data["mp-3"]["mp-3-0-0"]}
    data["mp-5"]["mp-5-0-0"]["force"][0] = [float("nan"), 0, 0]
    path.write_text(json.dumps(data))
    return sum(map(len, data.values()))


def contents(path):
    """Every file of a data set, but what names the time and the place."""
    facts = open_dataset(path).facts
    report = json.loads((path / "report.json").read_text())
    return facts.checksums, facts.labels, facts.notes, report["kept"], report["dropped"]


def driver(*words):
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *map(str, words)], stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "traj.json"
    mptrj(path)
    return path


@pytest.fixture(scope="module")
def whole(source):
    """The same conversion in this process, in one piece."""
    out = source.parent / "whole"
    convert.convert(convert.Options(sources=[str(source)]), out)
    return out


def test_every_frame_is_there_once(source, whole):
    records = json.loads(source.read_text())
    dataset = open_dataset(whole)
    n = sum(map(len, records.values()))
    assert len(dataset) == n - 2  # one duplicate, one without sound forces
    broken = [k for r in records.values() for k in r].index("mp-5-0-0")
    assert sorted(dataset.steps.tolist()) == [k for k in range(n - 1) if k != broken]
    report = json.loads((whole / "report.json").read_text())
    assert report["dropped"] == {"duplicate of an earlier frame": 1, "NaN or infinite forces": 1}


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_pieces_and_workers_change_nothing(source, whole, tmp_path, workers):
    process = driver(workers, tmp_path / "d", source)
    assert process.wait(120) == 0, process.stderr.read()
    assert contents(tmp_path / "d") == contents(whole)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_conversion_killed_again_and_again_loses_and_doubles_nothing(source, whole, tmp_path):
    out, chance = tmp_path / "d", random.Random(5)
    killed = 0
    while killed < 8:
        process = driver(2, out, source)
        try:
            # The first one dies before it can be done; a fast machine needs not many.
            code = process.wait(chance.uniform(0.3, 1.5) if killed else 0.25)
        except subprocess.TimeoutExpired:
            if chance.random() < 0.5:  # the parent alone, or all of its processes
                os.kill(process.pid, signal.SIGKILL)
            else:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            continue
        said = process.stderr.read()
        assert code == 0 or b"already exists" in said, said  # killed after the last step
        break
    if not out.exists():
        assert driver(2, out, source).wait(120) == 0
    assert killed > 0
    assert contents(out) == contents(whole)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_workers_end_when_their_parent_is_killed(source, tmp_path):
    process = driver(2, tmp_path / "d", source)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    work = unfinished.work_folder(tmp_path / "d")
    deadline = time.monotonic() + 60
    while not list(work.glob("shards/*.npz")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = [int(pid) for pid in children.read_text().split()]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(workers) == 2
    while any(_alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _alive(pid):
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_piece_with_many_atoms_is_written_in_several_files(source, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(intake, "SHARD_ATOMS", 60)
    convert.convert(convert.Options(sources=[str(source)]), tmp_path / "d")
    assert contents(tmp_path / "d") == contents(whole)


@pytest.mark.parametrize("ending", ["xyz", "xyz.gz"])
def test_an_xyz_file_and_a_data_set_are_read_in_parts_too(tmp_path, monkeypatch, ending):
    given = [random_frame(i, n_atoms=2 + i % 7) for i in range(60)]
    file = tmp_path / f"a.{ending}"
    write(file, [to_atoms(f) for f in given], format="extxyz")
    convert.convert(convert.Options(sources=[str(file)]), tmp_path / "whole")
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3000)
    assert len(list(pieces.plan(expand([str(file)]), None, tmp_path / "w"))) > 5
    convert.convert(convert.Options(sources=[str(file)]), tmp_path / "parts")
    convert.convert(convert.Options(sources=[str(tmp_path / "whole")]), tmp_path / "again")
    whole, parts, again = (open_dataset(tmp_path / name) for name in ("whole", "parts", "again"))
    assert whole.facts.checksums == parts.facts.checksums
    assert len(whole) == len(again) == 60
    for i in range(60):
        a, b = whole.frame(i), again.frame(i)
        assert (a.energy, a.step, a.source, a.group) == (b.energy, b.step, b.source, b.group)
        assert (a.forces == b.forces).all()


def test_an_xyz_file_that_breaks_off_or_goes_wrong_keeps_what_is_sound(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3000)
    file = tmp_path / "a.xyz"
    write(file, [to_atoms(random_frame(i)) for i in range(40)], format="extxyz")
    lines = file.read_text().splitlines(keepends=True)
    for name, text in (
        ("short", "".join(lines[:-2])),
        ("wrong", "".join([*lines[:180], "what?\n", *lines[180:]])),
    ):
        (tmp_path / f"{name}.xyz").write_text(text)
        main(["data", "convert", str(tmp_path / f"{name}.xyz"), "--out", str(tmp_path / name), "--json"])
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (
            result["kept"] == {"short": 39, "wrong": 29}[name]
        )  # the line may belong to the frame before it
        assert result["files"][0]["error"]


def test_a_conversion_of_other_files_begins_anew(source, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 20_000)
    out = tmp_path / "d"
    work = unfinished.work_folder(out)
    shards = work / "shards"
    shards.mkdir(parents=True)
    (work / "plan.json").write_text("{}")
    (shards / "00000000.0000000000000000.npz").write_text("of another conversion")
    convert.convert(convert.Options(sources=[str(source)]), out)
    assert open_dataset(out).facts.n_frames > 50


def test_two_conversions_to_one_place_are_refused_and_the_first_loses_nothing(source, tmp_path):
    work = unfinished.work_folder(tmp_path / "d")
    work.mkdir()
    (work / "piece").write_text("of the first")
    with Lock(work), pytest.raises(UserError, match="another run is at work"):
        convert.convert(convert.Options(sources=[str(source)]), tmp_path / "d")
    assert (work / "piece").read_text() == "of the first"


def test_a_broken_part_of_a_big_file_costs_only_what_is_broken(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 20_000)
    text = source.read_text()
    place = text.index('"abc"', len(text) // 2)
    broken = tmp_path / "broken.json"
    broken.write_text(text[:place] + "@@@@@" + text[place + 5 :])
    code = main(["data", "convert", str(broken), "--out", str(tmp_path / "d"), "--json"])
    result = json.loads(capsys.readouterr().out)
    whole = sum(map(len, json.loads(text).values()))
    assert code == 0
    assert whole - 25 < result["kept"] < whole - 2
    assert "not valid JSON" in result["files"][0]["error"]


def test_frames_of_another_data_set_count_as_duplicates(tmp_path, capsys):
    write(tmp_path / "a.xyz", [to_atoms(f) for f in frames(6)], format="extxyz")
    write(tmp_path / "b.xyz", [to_atoms(f) for f in frames(10)], format="extxyz")
    main(["data", "convert", str(tmp_path / "a.xyz"), "--out", str(tmp_path / "a")])
    words = ["data", "convert", str(tmp_path / "b.xyz"), "--out", str(tmp_path / "b")]
    assert main([*words, "--against", str(tmp_path / "a"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["kept"] == 4
    assert result["dropped"] == {"duplicate of a frame in another data set": 6}
    assert main([*words[:-1], str(tmp_path / "c"), "--against", str(tmp_path / "none")]) == 2
