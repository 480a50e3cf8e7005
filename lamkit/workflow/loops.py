"""Loops while they run: is this round the last, and what is left behind at the end.

Whether a loop goes on is worked out from the results of its stages every time anew and never stored, so a
changed criterion or budget counts at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamkit.errors import UserError
from lamkit.workflow import folder as stage_folder
from lamkit.workflow import until
from lamkit.workflow.journal import Record
from lamkit.workflow.spec import Loop, Source
from lamkit.workflow.unroll import node_id


@dataclass(frozen=True)
class Verdict:
    """Whether a loop is over after a round.

    Attributes:
        stop: It is.
        reason: Why, or why not.
        wrong: What is wrong with a condition; the loop then ends with this error.
        converged: All conditions hold.
    """

    stop: bool
    reason: str
    wrong: str = ""
    converged: bool = False


class Loops:
    """The loops of a workflow and the results of their stages on disk.

    Args:
        source: The workflow.
        folder: The workflow folder.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self.folder = folder
        self.loops: dict[str, Loop] = {
            name: entry.loop for name, entry in source.workflow.stages.items() if entry.loop is not None
        }
        self._values: dict[tuple[str, int], dict[str, float]] = {}

    def names(self, loop: str, number: int) -> list[str]:
        """Nodes of a round."""
        return [node_id(loop, number, inner) for inner in self.loops[loop].stages]

    def seconds(self, loop: str, number: int, records: Mapping[str, Record]) -> float:
        """Time that the stages of the rounds up to ``number`` took together."""
        names = [name for n in range(1, number + 1) for name in self.names(loop, n)]
        return sum(records[name].seconds for name in names if name in records)

    def forget(self, loop: str, number: int) -> None:
        """Read the results of a round again: it was run."""
        self._values.pop((loop, number), None)

    def values(self, loop: str, number: int) -> dict[str, float]:
        """Condition → value after a round whose stages are done.

        Raises:
            UserError: a result has no such value.
        """
        key = (loop, number)
        if key not in self._values:
            found = {}
            for text in self.loops[loop].until:
                condition = until.parse(text)
                name = node_id(loop, number, condition.stage)
                result = stage_folder.read_json(self.folder / name / stage_folder.RESULT)
                found[text] = until.value(condition, result, f"{name}/{stage_folder.RESULT}")
            self._values[key] = found
        return self._values[key]

    def _named(self, loop: str, number: int) -> dict[str, float]:
        return {until.parse(text).name: value for text, value in self.values(loop, number).items()}

    def verdict(self, name: str, number: int, seconds: float) -> Verdict:
        """Whether the loop is over after round ``number``, whose stages are done.

        Args:
            name: Id of the loop.
            number: Round, from 1.
            seconds: Time that its stages took so far.
        """
        loop = self.loops[name]
        conditions = [until.parse(text) for text in loop.until]
        try:
            rounds = [self.values(name, n) for n in range(1, number + 1)]
        except UserError as error:
            return Verdict(True, "a condition cannot be worked out", str(error))
        if until.hold(conditions, rounds):
            return Verdict(True, f"{' and '.join(loop.until)} after round {number}", converged=True)
        if number >= loop.max_rounds:
            missed = f" without {' and '.join(loop.until)}" if loop.until else ""
            return Verdict(True, f"all {number} rounds are done{missed}")
        if loop.max_minutes is not None and seconds >= 60 * loop.max_minutes:
            return Verdict(True, f"{loop.max_minutes:g} minutes were spent after round {number}")
        said = ", ".join(f"{value_name} = {v:g}" for value_name, v in self._named(name, number).items())
        return Verdict(False, f"round {number} of at most {loop.max_rounds}{': ' + said if said else ''}")

    def finish(self, name: str, number: int, verdict: Verdict, key: str, seconds: float) -> dict[str, Any]:
        """Leave the loop's folder as its readers expect it: links to the last round, and a result.

        Args:
            name: Id of the loop.
            number: Last round.
            verdict: Why it is the last.
            key: Key of the loop.
            seconds: Time that its stages took.

        Raises:
            UserError: a condition cannot be worked out.
        """
        if verdict.wrong:
            raise UserError(verdict.wrong)
        folder = self.folder / name
        for inner in self.loops[name].stages:
            _link(folder / inner, f"{number}/{inner}")
        result = {
            "n_rounds": number,
            "converged": verdict.converged,
            "ended": verdict.reason,
            "seconds": round(seconds, 3),
            "rounds": [{"round": n, **self._named(name, n)} for n in range(1, number + 1)],
        }
        stage_folder.write_json(folder / stage_folder.RESULT, result)
        files = [
            stage_folder.RESULT,
            *(f"{inner}/{stage_folder.PRODUCTS}" for inner in self.loops[name].stages),
        ]
        proof = {"key": key, "seconds": 0.0, "files": _sizes(folder, files)}
        stage_folder.write_json(folder / stage_folder.PRODUCTS, proof)
        return result


def _link(path: Path, target: str) -> None:
    """Make ``path`` a link to ``target``, whatever it linked before."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    os.symlink(target, temporary)
    os.replace(temporary, path)


def _sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    return {name: os.stat(folder / name).st_size for name in names}
