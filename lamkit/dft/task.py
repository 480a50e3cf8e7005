"""A DFT task: a folder that holds all that is needed to compute one frame, here or on another machine.

==============  ==============================================================================================
``task.json``   the frame, the program and the order of its atoms; written by :func:`prepare`
inputs          those of the program
``run.sh``      runs it; the command of every task is ``sh run.sh`` inside the folder
``starts``      a line for each time that ``run.sh`` was started
``exit_code``   written by ``run.sh`` at its very end
``result.json`` labels, or the reason why there are none; written by :func:`collect`, and then the task is over
==============  ==============================================================================================

A folder appears whole (it is renamed), and so does each of the last two files, so that a stop at any moment leaves
a task that is ready, has run, or is over.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lamkit.data.formats import Dropped
from lamkit.data.frame import SYMBOLS, Frame, make_frame
from lamkit.data.quality import Rules, examine, rejected, theory
from lamkit.dft.program import Outcome, Program
from lamkit.errors import UserError
from lamkit.files import atomic_write, replace_folder, temporary_folder

COMMAND = "sh run.sh"
TASK, STARTS, EXIT_CODE, RESULT, LOG = "task.json", "starts", "exit_code", "result.json", "run.log"
NOT_STARTED = ("126", "127")  # what shells return for a command that is not there or not executable
TIMEOUT = "timeout"  # in place of a number in EXIT_CODE
MOVED = 2e-3  # Å; outputs print positions with few digits
KILLS = 3  # starts beyond the attempts that may end without any end, as by a power cut
WORDS = 200  # characters of a program's last words


def prepare(frame: Frame, program: Program, folder: Path) -> None:
    """Write the folder of a task; if it is there, only the command in it is brought up to date.

    Raises:
        UserError: the program cannot do this frame (no pseudopotential of an element, for example).
    """
    if (folder / TASK).is_file():
        if (folder / "run.sh").read_text() != _script(program):
            atomic_write(folder / "run.sh", _script(program))
        return
    files = program.inputs(frame)
    made = temporary_folder(folder)
    for name, content in files.items():
        (made / name).write_bytes(content)
    (made / "run.sh").write_text(_script(program))
    (made / TASK).write_text(json.dumps({"program": program.name, "frame": _to_json(frame)}))
    replace_folder(made, folder)


def _script(program: Program) -> str:
    lines = "\n".join(program.script())
    return f"""#!/bin/sh
# Computes one frame; LAMKit reads what comes of it.
rm -f {EXIT_CODE}
echo started >> {STARTS}
# Stopped from outside: this start does not count, and nothing of the group goes on.
trap 'sed "\\$d" {STARTS} > {STARTS}.tmp; mv {STARTS}.tmp {STARTS}; kill -9 0' TERM
(
{lines}
) > {LOG} 2>&1 &
wait $!
echo $? > {EXIT_CODE}.tmp
mv {EXIT_CODE}.tmp {EXIT_CODE}
"""


def forward(folder: Path) -> list[str]:
    """Files that must be where the task is run."""
    return sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def backward(program: Program) -> list[str]:
    """Files that must come back from where it was run; after a failure some are missing."""
    return [EXIT_CODE, STARTS, LOG, *program.products()]


def state(folder: Path) -> str:
    """``missing``, ``prepared``, ``ran`` or ``over``."""
    for name, word in ((RESULT, "over"), (EXIT_CODE, "ran"), (TASK, "prepared")):
        if (folder / name).is_file():
            return word
    return "missing"


def starts(folder: Path) -> int:
    """How often the task was started."""
    path = folder / STARTS
    return path.read_text().count("\n") if path.is_file() else 0


def has_to_run(folder: Path, program: Program, attempts: int) -> bool:
    """Whether a task is to be started, for the first time or again; what is there is collected before.

    Args:
        folder: of a prepared task.
        program: what runs it.
        attempts: how often a task may be started that leaves no result.
    """
    if state(folder) == "ran":
        collect(folder, program, attempts)
    if state(folder) == "over":
        return False
    n = starts(folder)
    if n < attempts + KILLS:
        return True
    _give_up(folder, f"was started {n} times and never came to its end")
    return False


def collect(folder: Path, program: Program, attempts: int) -> Outcome:
    """Labels of a task that has run; a task that may be started again keeps no result.

    Args:
        folder: of a task whose command is over.
        program: what ran it.
        attempts: how often a task may be started that leaves no result.

    Raises:
        UserError: the program could not be started at all, which is nothing that the frame can help.
    """
    if (folder / RESULT).is_file():
        return load(folder)
    if _exit_code(folder) in NOT_STARTED:
        for name in (EXIT_CODE, STARTS):
            (folder / name).unlink(missing_ok=True)
        raise UserError(
            f"{program.name} cannot be started{last_words(folder)}; check 'command', then --resume"
        )
    outcome = _read(folder, program)
    if outcome.frame is None:
        if outcome.final or starts(folder) >= attempts:
            _give_up(folder, outcome.reason)
        return outcome
    frame = outcome.frame
    labels = {
        "energy": frame.energy,
        "forces": None if frame.forces is None else frame.forces.tolist(),
        "stress": None if frame.stress is None else frame.stress.tolist(),
        "info": dict(frame.info),
    }
    atomic_write(folder / RESULT, json.dumps({"labels": labels, "reason": ""}))
    for pattern in program.rubbish():
        for path in folder.glob(pattern):
            with suppress(OSError):
                path.unlink()
    return outcome


def _give_up(folder: Path, reason: str) -> None:
    atomic_write(folder / RESULT, json.dumps({"labels": None, "reason": reason}))


def load(folder: Path) -> Outcome:
    """The outcome of a task that is over."""
    stored = json.loads((folder / RESULT).read_text())
    if stored["labels"] is None:
        return Outcome(None, stored["reason"])
    frame = _from_json(json.loads((folder / TASK).read_text())["frame"])
    labels = stored["labels"]
    forces, stress = (None if labels[k] is None else np.array(labels[k]) for k in ("forces", "stress"))
    info = {**frame.info, **labels["info"]}
    return Outcome(replace(frame, energy=labels["energy"], forces=forces, stress=stress, info=info))


def _exit_code(folder: Path) -> str:
    path = folder / EXIT_CODE
    return path.read_text().strip() if path.is_file() else "none"


def _read(folder: Path, program: Program) -> Outcome:
    """What a run left behind."""
    code = _exit_code(folder)
    if code == TIMEOUT:
        return Outcome(None, f"{program.name} took longer than the time allowed")
    try:
        things = list(program.read(folder))
    except UserError as error:
        reason = str(error).replace(f"{folder}/", "")
        said = last_words(folder)
        return Outcome(None, f"{program.name}: {reason} (exit code {code}{said})", final=False)
    frames = [t for t in things if isinstance(t, Frame)]
    if not frames:
        dropped = [t.reason for t in things if isinstance(t, Dropped)]
        if dropped:  # a complete step, but not a good one: the same would come out again
            return Outcome(None, f"{program.name}: {dropped[-1]}", final="end of the file" not in dropped[-1])
        return Outcome(None, f"{program.name}: no result (exit code {code}{last_words(folder)})", final=False)
    if code != "0":
        return Outcome(None, f"{program.name}: exit code {code}{last_words(folder)}", final=False)
    asked = _from_json(json.loads((folder / TASK).read_text())["frame"])
    return _labels_of(frames, asked, program)


def _labels_of(frames: list[Frame], asked: Frame, program: Program) -> Outcome:
    """The labels for the frame that was asked for, checked as converted files are."""
    computed = frames[-1]
    if len(frames) > 1:
        return Outcome(None, f"{program.name}: {len(frames)} ionic steps; a label is one single point")
    order = np.array(program.order(asked))
    other = not_the_same(asked, computed, order)
    if other:
        return Outcome(None, f"{program.name}: its output is of another structure ({other})")
    computed, findings = examine(computed, Rules())
    reason = rejected(findings)
    if reason is not None:
        return Outcome(None, f"{program.name}: {reason}")
    forces = np.empty((len(asked), 3))
    forces[order] = computed.forces
    labelled = replace(asked, energy=computed.energy, forces=forces, stress=computed.stress)
    return Outcome(replace(labelled, info={**asked.info, **theory(computed)}))


def not_the_same(asked: Frame, computed: Frame, order: np.ndarray) -> str:
    """In what an output differs from the frame that was asked for; empty if it is the same."""
    if len(asked) != len(computed) or (asked.numbers[order] != computed.numbers).any():
        return "other atoms"
    difference = computed.positions - asked.positions[order]
    if not asked.pbc.any():
        difference -= difference.mean(axis=0)
    elif np.abs(asked.cell - computed.cell).max() > MOVED:
        return "another cell"
    else:
        fractions = difference @ np.linalg.inv(asked.cell)
        difference = (fractions - np.round(fractions)) @ asked.cell
    worst = float(np.linalg.norm(difference, axis=1).max()) if len(asked) else 0.0
    return f"an atom is off by {worst:.3f} Å" if worst > MOVED else ""


def last_words(folder: Path) -> str:
    """The end of what the program said on the screen, for a message."""
    path = folder / LOG
    lines = path.read_text(errors="replace").splitlines()[-20:] if path.is_file() else []
    said = [line.strip(" *|") for line in lines if line.strip(" *|-_\\/")]
    return f"; it said: {' / '.join(said[-2:])[:WORDS]}" if said else ""


def _to_json(frame: Frame) -> dict[str, Any]:
    return {
        "symbols": [SYMBOLS[int(z)] for z in frame.numbers],
        "numbers": frame.numbers.tolist(),
        "positions": frame.positions.tolist(),
        "cell": frame.cell.tolist(),
        "pbc": frame.pbc.tolist(),
        "source": frame.source,
        "step": frame.step,
        "group": frame.group,
        "info": dict(frame.info),
    }


def _from_json(stored: dict[str, Any]) -> Frame:
    facts = {k: stored[k] for k in ("source", "step", "group", "info")}
    return make_frame(stored["numbers"], stored["positions"], stored["cell"], stored["pbc"], **facts)
