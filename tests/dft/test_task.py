"""Task folders: whole or not there, run a limited number of times, stopped without leaving anything behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from ase.build import bulk

from lamkit.data.formats import Dropped
from lamkit.data.frame import from_atoms, make_frame
from lamkit.data.heads import LevelOfTheory
from lamkit.dft import task
from lamkit.dft.pool import run_local
from lamkit.errors import UserError


class Spring:
    """A "DFT program": atoms on springs, in reverse order, by a line of shell that may also do other things."""

    name: ClassVar[str] = "Spring"

    def __init__(self, line: str = "true") -> None:
        self.line = line

    def check(self) -> None:
        pass

    def order(self, frame):
        return list(range(len(frame)))[::-1]

    def inputs(self, frame):
        rows = {"numbers": frame.numbers[::-1].tolist(), "positions": frame.positions[::-1].tolist()}
        return {"in.json": json.dumps({**rows, "cell": frame.cell.tolist()}).encode()}

    def script(self) -> list[str]:
        return ["rm -f out.json", self.line, "cp in.json out.json", "touch big.wfn"]

    def products(self) -> list[str]:
        return ["out.json"]

    def read(self, folder: Path) -> Iterator:
        file = folder / "out.json"
        if not file.is_file():
            raise UserError(f"{file}: not there")
        found = json.loads(file.read_text())
        if self.line.startswith("echo unconverged"):
            yield Dropped("electronic steps did not converge")
            return
        positions = np.array(found["positions"])
        yield make_frame(
            found["numbers"], positions, found["cell"], energy=float(-1 - (positions**2).sum()),
            forces=2 * positions + np.array([0.1, 0, 0]), stress=np.zeros(6),
        )  # fmt: skip

    def rubbish(self) -> list[str]:
        return ["*.wfn"]

    def level(self) -> LevelOfTheory:
        return LevelOfTheory(method="springs", functional="harmonic")


@pytest.fixture
def frame():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.positions += 0.1
    return from_atoms(atoms, source="salt", step=3, group="g", info={"temperature": 300.0})


def run(folder: Path, **more) -> None:
    assert list(run_local([folder], jobs=1, **more)) == [folder]


def test_labels_come_back_in_the_order_of_the_frame(frame, tmp_path):
    program, folder = Spring(), tmp_path / "t"
    task.prepare(frame, program, folder)
    assert task.state(folder) == "prepared"
    run(folder)
    assert task.state(folder) == "ran"
    outcome = task.collect(folder, program, attempts=1)
    np.testing.assert_allclose(outcome.frame.forces, 2 * frame.positions + np.array([0.1, 0, 0]))
    assert (outcome.frame.group, outcome.frame.step) == ("g", 3)
    assert outcome.frame.info["temperature"] == 300.0
    assert task.state(folder) == "over"
    assert not (folder / "big.wfn").exists()
    stored = task.load(folder).frame
    np.testing.assert_array_equal(stored.forces, outcome.frame.forces)
    np.testing.assert_array_equal(stored.positions, frame.positions)


def test_a_task_that_is_there_is_not_written_again_but_for_its_command(frame, tmp_path):
    folder = tmp_path / "t"
    task.prepare(frame, Spring(), folder)
    before = (folder / task.TASK).stat().st_mtime_ns
    task.prepare(frame, Spring("exit 1"), folder)
    assert (folder / task.TASK).stat().st_mtime_ns == before
    assert "exit 1" in (folder / "run.sh").read_text()
    assert not list(tmp_path.glob(".*"))


def test_a_crash_is_tried_again_up_to_the_limit_and_told_with_the_programs_words(frame, tmp_path):
    program, folder = Spring("echo segmentation fault; exit 3"), tmp_path / "t"
    task.prepare(frame, program, folder)
    for _ in range(2):
        assert task.has_to_run(folder, program, attempts=2)
        run(folder)
        outcome = task.collect(folder, program, attempts=2)
    assert not task.has_to_run(folder, program, attempts=2)
    assert task.starts(folder) == 2
    assert outcome.frame is None
    assert "exit code 3; it said: segmentation fault" in outcome.reason
    assert task.load(folder).reason == outcome.reason


def test_a_program_that_is_not_there_stops_the_run_and_blames_no_frame(frame, tmp_path):
    program, folder = Spring("no_such_program || exit $?"), tmp_path / "t"
    task.prepare(frame, program, folder)
    run(folder)
    with pytest.raises(UserError, match=r"cannot be started; it said: .*no_such_program.* check 'command'"):
        task.collect(folder, program, attempts=1)
    task.prepare(frame, Spring(), folder)
    assert task.has_to_run(folder, Spring(), attempts=1)
    run(folder)
    assert task.collect(folder, Spring(), attempts=1).frame is not None


def test_what_did_not_converge_is_not_tried_again(frame, tmp_path):
    program, folder = Spring("echo unconverged"), tmp_path / "t"
    task.prepare(frame, program, folder)
    run(folder)
    assert "did not converge" in task.collect(folder, program, attempts=5).reason
    assert not task.has_to_run(folder, program, attempts=5)


def test_an_output_of_another_structure_gives_no_label(frame, tmp_path):
    moved = Spring("sed -i 's/: \\[\\[0.1/: [[0.3/; s/\\], \\[0.1,/], [0.3,/' in.json")
    folder = tmp_path / "t"
    task.prepare(frame, moved, folder)
    run(folder)
    outcome = task.collect(folder, moved, attempts=1)
    assert outcome.frame is None
    assert "another structure" in outcome.reason


def test_atoms_on_the_other_side_of_the_cell_are_the_same(frame):
    import dataclasses

    wrapped = dataclasses.replace(frame, positions=frame.positions + frame.cell[0])
    assert task.not_the_same(frame, wrapped, np.arange(2)) == ""
    shifted = dataclasses.replace(frame, positions=frame.positions + np.array([[0, 0, 0.05], [0, 0, 0]]))
    assert "off by 0.050" in task.not_the_same(frame, shifted, np.arange(2))
    swapped = dataclasses.replace(frame, numbers=frame.numbers[::-1])
    assert task.not_the_same(frame, swapped, np.arange(2)) == "other atoms"


def test_a_task_that_takes_too_long_is_stopped_for_good(frame, tmp_path):
    program, folder = Spring("sleep 60"), tmp_path / "t"
    task.prepare(frame, program, folder)
    run(folder, timeout=0.3)
    assert "longer than the time allowed" in task.collect(folder, program, attempts=3).reason
    assert not task.has_to_run(folder, program, attempts=3)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_stopping_stops_the_program_and_does_not_count_as_a_start(frame, tmp_path):
    program, folder = Spring("echo $$ > mine; exec sleep 60"), tmp_path / "t"
    task.prepare(frame, program, folder)

    def folders() -> Iterator[Path]:
        yield folder
        while not (folder / "mine").is_file():
            time.sleep(0.02)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_local(folders(), jobs=2))
    assert not alive(int((folder / "mine").read_text()))
    assert task.starts(folder) == 0
    assert task.has_to_run(folder, program, attempts=1)


def killed_while_running(folder: Path, path: str) -> int:
    """Start a task from a process of its own and kill that; returns the id of the task's program."""
    code = "import sys; from pathlib import Path; from lamkit.dft.pool import run_local\n"
    code += "list(run_local([Path(sys.argv[1])], jobs=1))"
    command = [sys.executable, "-c", code, str(folder)]
    ours = subprocess.Popen(command, env={**os.environ, "PATH": path})
    while not (folder / "mine").is_file() or not (folder / "pid").is_file():
        time.sleep(0.02)
    ours.kill()
    ours.wait()
    return int((folder / "mine").read_text())


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (Linux)")
def test_a_killed_run_takes_its_programs_with_it_and_the_start_does_not_count(frame, tmp_path):
    program, folder = Spring("echo $$ > mine; sleep 60"), tmp_path / "t"
    task.prepare(frame, program, folder)
    pid = killed_while_running(folder, os.environ["PATH"])
    for _ in range(100):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)
    assert task.starts(folder) == 0
    assert task.state(folder) == "prepared"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_program_that_outlived_a_killed_run_is_stopped_before_its_task_starts_again(frame, tmp_path):
    program, folder = Spring("echo $$ > mine; sleep 60"), tmp_path / "t"
    task.prepare(frame, program, folder)
    (tmp_path / "bin").mkdir()
    for name in ("sh", "rm", "sleep", "cp", "touch", "mv"):  # all but setpriv
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    pid = killed_while_running(folder, str(tmp_path / "bin"))
    assert alive(pid)
    (folder / "run.sh").write_text("echo 0 > exit_code\n")
    run(folder)
    assert not alive(pid)


def test_a_task_that_never_comes_to_its_end_is_given_up(frame, tmp_path):
    program, folder = Spring(), tmp_path / "t"
    task.prepare(frame, program, folder)
    (folder / task.STARTS).write_text("started\n" * 4)
    assert task.has_to_run(folder, program, attempts=2)
    (folder / task.STARTS).write_text("started\n" * 5)
    assert not task.has_to_run(folder, program, attempts=2)
    assert "started 5 times" in task.load(folder).reason


def test_tasks_are_taken_only_as_there_is_room(frame, tmp_path):
    program = Spring()
    taken: list[int] = []

    def folders() -> Iterator[Path]:
        for k in range(8):
            taken.append(k)
            task.prepare(frame, program, tmp_path / str(k))
            yield tmp_path / str(k)

    done = 0
    for _ in run_local(folders(), jobs=2):
        done += 1
        assert len(taken) <= done + 2
    assert done == 8


def test_what_travels_to_another_machine_is_named(frame, tmp_path):
    program, folder = Spring(), tmp_path / "t"
    task.prepare(frame, program, folder)
    assert task.forward(folder) == ["in.json", "run.sh", "task.json"]
    assert {"exit_code", "run.log", "out.json"} <= set(task.backward(program))
