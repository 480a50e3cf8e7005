"""How fast and how large: `lamkit data convert` beside ASE's and dpdata's own readers on the same files.

    python benchmarks/make_mptrj.py --frames 20000 --out /tmp/mptrj.json
    python benchmarks/convert.py --shared ../shared --json /tmp/mptrj.json

The other readers only read. LAMKit is timed twice: what one worker does in one process (reading, every check,
statistics, and writing what it read), and the whole command on all cores, from its start to the finished data set
with duplicates, report and checksums. Memory is the largest sum of the resident sets of all its processes, shared
pages counted in each. Ratios are those of one worker to the other reader, each on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from lamkit.console import table

MOST_PIECES = 25  # of a big file that one worker reads, 8 MiB each
MIXED_FRAMES = 3000  # frames of the comparison on DeePMD folders


def resident(pid: int) -> int:
    """Resident bytes of a process and of those that it started."""
    total = 0
    with contextlib.suppress(OSError, IndexError, ValueError):  # it may end while it is looked at
        total = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(resident(int(child)) for child in (task / "children").read_text().split())
    return total


def convert(sources: list[str], out: Path, *words: str) -> tuple[float, int, int]:
    """Seconds, frames kept and largest resident bytes of a conversion."""
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "lamkit",
        "data",
        "convert",
        *sources,
        "--out",
        str(out),
        "--json",
        "-q",
        *words,
    ]
    begin, most = time.perf_counter(), 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            most = max(most, resident(process.pid))
            time.sleep(0.1)
        seconds = time.perf_counter() - begin
        said.seek(0)
        return seconds, json.loads(said.read())["kept"], most


def one_worker(sources: list[str], folder: Path) -> tuple[float, int]:
    """Seconds and frames of reading and checking in this process."""
    from lamkit.data.intake import SHARDS, Intake, Settings
    from lamkit.data.pieces import plan
    from lamkit.data.sources import expand

    work = folder / "work"
    (work / SHARDS).mkdir(parents=True)
    intake = Intake(Settings(work=str(work), neighbors_every=10))
    begin = time.perf_counter()
    n = sum(intake.read(piece) for piece in itertools.islice(plan(expand(sources), None, work), MOST_PIECES))
    seconds = time.perf_counter() - begin
    shutil.rmtree(work)
    return seconds, n


def timed(frames: Iterator[object]) -> tuple[float, int]:
    """Seconds and number of what comes."""
    begin = time.perf_counter()
    n = sum(1 for _ in frames)
    return time.perf_counter() - begin, n


def with_ase(files: list[Path], form: str) -> Iterator[object]:
    import ase.io

    for file in files:
        with contextlib.suppress(Exception):  # files that ASE does not read count as no frames
            yield from ase.io.iread(file, index=":", format=form)


def with_dpdata(files: list[Path], form: str) -> Iterator[object]:
    import dpdata

    for file in files:
        with (
            contextlib.suppress(Exception),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield from range(len(dpdata.LabeledSystem(str(file), fmt=form)))


def with_dpdata_mixed(folder: Path) -> Iterator[object]:
    import dpdata

    for system in dpdata.MultiSystems().load_systems_from_file(str(folder), fmt="deepmd/npy/mixed"):
        yield from range(len(system))


def row(
    what: str, sources: list[str], out: Path, workers: int, others: dict[str, tuple[float, int]]
) -> tuple[str, ...]:
    """One line of the table."""
    alone, n_alone = one_worker(sources, out.parent)
    seconds, n, most = convert(sources, out, "--workers", str(workers))
    words = [what, str(n), f"{n_alone / alone:.0f}", f"{n / seconds:.0f}", f"{most / 2**20:.0f}"]
    for name in ("ASE", "dpdata"):
        if name not in others or not others[name][1]:
            words += ["–", "–"]
            continue
        rate = others[name][1] / others[name][0]
        words += [f"{rate:.0f}", f"{n_alone / alone / rate:.2f}"]
    return tuple(words)


def first_frames(path: Path, n: int, folder: Path) -> Path:
    """The first frames of an MPtrj file as extended XYZ, written by ASE."""
    import ase.io

    from lamkit.data.formats import ReadOptions, mptrj
    from lamkit.data.frame import to_atoms

    file = folder / "frames.xyz"
    frames = itertools.islice(mptrj.read(path, "", ReadOptions()), n)
    ase.io.write(file, [to_atoms(frame) for frame in frames], format="extxyz")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder of third-party data")
    parser.add_argument("--json", type=Path, required=True, help="file of make_mptrj.py")
    parser.add_argument("--frames", type=int, default=10_000, help="of the file in other formats")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        size = args.json.stat().st_size / 1e9
        rows.append(row(f"MPtrj JSON, {size:.1f} GB", [str(args.json)], folder / "json", args.workers, {}))
        shutil.rmtree(folder / "json")
        file = first_frames(args.json, args.frames, folder)
        others = {"ASE": timed(with_ase([file], "extxyz"))}
        rows.append(row("the same as extended XYZ", [str(file)], folder / "xyz", args.workers, others))
        mixed = folder / "few"
        convert([str(first_frames(args.json, MIXED_FRAMES, folder))], mixed)
        others = {"dpdata": timed(with_dpdata_mixed(mixed))}
        rows.append(row("the same as deepmd/npy/mixed", [str(mixed)], folder / "npy", args.workers, others))
        for name, pattern, ase, dpdata in (
            ("VASP OUTCAR", "**/*OUTCAR*", "vasp-out", "vasp/outcar"),
            ("VASP vasprun.xml", "vasp/*vasprun*", "vasp-xml", "vasp/xml"),
        ):
            files = [f for f in sorted((args.shared / "data").glob(pattern)) if f.suffix != ".gz"]
            others = {"ASE": timed(with_ase(files, ase)), "dpdata": timed(with_dpdata(files, dpdata))}
            out = folder / name.replace(" ", "-")
            rows.append(
                row(f"{name}, {len(files)} files", [str(f) for f in files], out, args.workers, others)
            )
    headers = ("files", "frames", "one worker frames/s", "whole frames/s", "MiB", "ASE frames/s", "ratio",
               "dpdata frames/s", "ratio")  # fmt: skip
    print(table(rows, headers))


if __name__ == "__main__":
    main()
