"""Labels by a DFT program: VASP played by a stand-in that gives recorded outputs back, good and bad ones."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest

from lamkit.cli import main
from lamkit.data.dataset import open_dataset
from lamkit.data.formats import ReadOptions
from lamkit.data.formats.vasp import read_outcar
from lamkit.data.frame import Frame, to_atoms
from lamkit.dft.vasp import Vasp
from lamkit.errors import UserError
from lamkit.stages import label

# recorded single points: good ones, one whose stress is not computed, unconverged ones, a band structure
GOOD = ["dpgen_post_fp_task0__OUTCAR", "OUTCAR.Ge.vdw", "isif1__OUTCAR"]
BAD = ["elec-unconverged__OUTCAR", "OUTCAR.ch4.1step", "test_bands_wc__OUTCAR"]
STAND_IN = """#!/bin/sh
echo run >> {log}
key=$(md5sum POSCAR | cut -c1-32)
test -f {recorded}/$key || {{ echo forrtl: severe; exit 174; }}
sleep {sleep}
cp {recorded}/$key OUTCAR
"""


def frame_in(path: Path) -> Frame:
    """The structure of a recorded run."""
    return next(thing for thing in read_outcar(path, str(path), ReadOptions()) if isinstance(thing, Frame))


class Bench:
    """Structures, inputs and a stand-in executable."""

    def __init__(self, folder: Path, shared: Path, names: list[str], sleep: float = 0) -> None:
        self.folder, self.log = folder, folder / "calls"
        recorded, potcars = folder / "recorded", folder / "potcars"
        recorded.mkdir()
        potcars.mkdir()
        (folder / "INCAR").write_text("NSW = 0\nKSPACING = 0.3\nENCUT = 400\n")
        vasp = folder / "vasp_std"
        vasp.write_text(STAND_IN.format(log=self.log, recorded=recorded, sleep=sleep))
        vasp.chmod(0o755)
        self.vasp = Vasp(command=str(vasp), incar=str(folder / "INCAR"), potcars=str(potcars))
        self.frames = []
        for name in names:
            source = shared / "data/vasp" / name
            frame = frame_in(source)
            self.frames.append(frame)
            for symbol, _ in self.vasp.species(frame):
                (potcars / f"POTCAR.{symbol}").write_text(symbol)
            key = hashlib.md5(self.vasp.poscar(frame).encode()).hexdigest()
            (recorded / key).write_bytes(source.read_bytes())
        ase.io.write(folder / "frames.traj", [to_atoms(f) for f in self.frames])

    def options(self, **more) -> label.Options:
        return label.Options(data=str(self.folder / "frames.traj"), vasp=self.vasp, max_failed=0.9, **more)

    @property
    def calls(self) -> int:
        return self.log.read_text().count("run") if self.log.is_file() else 0


def test_good_runs_become_labels_and_bad_ones_a_reason(shared, tmp_path):
    bench = Bench(tmp_path, shared, [*GOOD, *BAD])
    result = label.run(bench.options(jobs=2), tmp_path / "out")
    assert (result["n_frames"], result["n_failed"]) == (3, 3)
    assert [f["frame"] for f in result["failed"]] == [3, 4, 5]
    reasons = sorted(result["reasons"])
    assert len(reasons) == 2
    assert "did not converge" in reasons[0]
    assert "not self-consistent" in reasons[1]
    assert bench.calls == 6  # none of them was tried again
    data = open_dataset(result["data"])
    stored = {round(data.frame(i).energy, 6): data.frame(i) for i in range(len(data))}
    for frame in bench.frames[:3]:
        labelled = stored[round(frame.energy, 6)]
        np.testing.assert_allclose(labelled.forces, frame.forces, atol=1e-9)
    assert sum(f.stress is None for f in stored.values()) == 1  # ISIF = 1: only the trace is computed
    assert data.facts.level_of_theory.code.startswith("VASP")


def test_a_crash_is_tried_again_and_then_given_up(shared, tmp_path):
    bench = Bench(tmp_path, shared, GOOD[:2])
    for path in (tmp_path / "recorded").iterdir():
        if b"Ge" in path.read_bytes()[:4000]:
            path.unlink()
    result = label.run(bench.options(attempts=3), tmp_path / "out")
    assert (result["n_frames"], result["n_failed"]) == (1, 1)
    assert "exit code 174; it said: forrtl: severe" in next(iter(result["reasons"]))
    assert bench.calls == 1 + 3


def test_a_mistyped_command_is_mended_on_resume(shared, tmp_path):
    bench = Bench(tmp_path, shared, GOOD[:2])
    right = bench.vasp
    bench.vasp = right.model_copy(update={"command": "vasp_sdt"})
    with pytest.raises(
        UserError, match=r"VASP cannot be started; .*vasp_sdt.*; check 'command', then --resume"
    ):
        label.run(bench.options(), tmp_path / "out")
    bench.vasp = right
    assert label.run(bench.options(resume=True, attempts=1), tmp_path / "out")["n_frames"] == 2


def test_all_frames_lost_is_an_error_that_names_reason_and_folder(shared, tmp_path):
    bench = Bench(tmp_path, shared, BAD[:1])
    with pytest.raises(UserError, match=r"1 of 1 frames could not be labelled by VASP; 1 times: .* converge"):
        label.run(bench.options(), tmp_path / "out")
    assert not (tmp_path / "out/data").exists()


def test_parts_done_elsewhere_are_put_together(shared, tmp_path):
    """What a cluster does: names of the parts, some done by one process, the others by another."""
    bench, out = Bench(tmp_path, shared, GOOD), tmp_path / "out"
    options = bench.options(resume=True)
    names = label.part_names(options)
    assert len(names) == 3
    assert label.cores_per_part(options) == 1
    for share in (names[1:], names):
        label.do_parts(options, out, (n for n in share if not (out / "parts" / f"{n}.npz").is_file()))
    assert bench.calls == 3
    assert label.run(options, out)["n_frames"] == 3
    assert bench.calls == 3


@pytest.mark.parametrize(
    ("command", "cores"), [("vasp_std", 1), ("mpirun -np 8 vasp_std", 8), ("srun --ntasks=32 vasp_std", 32)]
)
def test_the_cores_of_a_task_follow_from_its_command(command, cores):
    options = label.Options(data="x", cp2k={"command": command, "threads": 2})
    assert label.cores_per_part(options) == 2 * cores


def test_a_killed_run_goes_on_and_computes_nothing_twice(shared, tmp_path):
    bench, out = Bench(tmp_path, shared, GOOD, sleep=0.3), tmp_path / "out"
    config = tmp_path / "label.yaml"
    config.write_text(
        f"vasp: {{command: {bench.vasp.command}, incar: {bench.vasp.incar}, potcars: {bench.vasp.potcars}}}\n"
    )
    command = [sys.executable, "-m", "lamkit", "label", str(config), "--data", str(tmp_path / "frames.traj")]
    process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.DEVNULL)
    while bench.calls < 2:
        time.sleep(0.02)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert main([*command[3:], "--out", str(out), "--resume", "-q"]) == 0
    assert len(open_dataset(out / "data")) == 3
    assert bench.calls <= 4  # the one that was under way may have run twice
    assert main([*command[3:], "--out", str(out), "--resume", "-q"]) == 0  # nothing to do
    assert bench.calls <= 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"calculator": "ase.calculators.emt:EMT"}, "choose between calculator and vasp"),
        ({"vasp": None}, "give either a checkpoint"),
    ],
)
def test_labels_come_from_one_source(shared, tmp_path, more, message):
    bench = Bench(tmp_path, shared, GOOD[:1])
    with pytest.raises(UserError, match=message):
        label.run(bench.options().model_copy(update=more), tmp_path / "out")
    assert not (tmp_path / "out").exists()
