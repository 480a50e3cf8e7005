"""Guards against a student that is accurate on frames and wrong in MD.

Small errors of the forces may add up along a trajectory until the student is somewhere the teacher never goes. So
student and teacher run the same MD, with other random numbers; the student's has to stay stable for the whole time,
and its pair distributions and mean-square displacements have to be the teacher's within the statistical error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pydantic

from lamkit.config import Model
from lamkit.data.frame import Frame, to_atoms
from lamkit.stages import explore, parts, properties
from lamkit.stages.dynamics import Dynamics, timestep_for
from lamkit.stages.engine import Engine

FEWEST = 2 * properties.BLOCKS  # frames of a trajectory that blocks can be made of


class Guards(Model):
    """MD of teacher and student, compared.

    Attributes:
        steps: time steps of each trajectory, of teacher and student; 0 switches the guards off.
        save_every: steps between the frames that are averaged over.
        cutoff: Å, of the pair distributions.
        tolerance: largest deviation of a single pair distribution or displacement that counts as agreement, in
            standard errors; the largest of several may be larger, as chance has it (:func:`allowed`).
    """

    steps: int = pydantic.Field(400, ge=0)
    save_every: int = pydantic.Field(5, ge=1)
    cutoff: float = pydantic.Field(5.0, gt=0)
    tolerance: float = pydantic.Field(2.5, gt=0)

    @pydantic.model_validator(mode="after")
    def _comparable(self) -> Guards:
        frames = self.steps // self.save_every - _equilibration(self.steps) // self.save_every
        if self.steps and frames < FEWEST:
            raise ValueError(
                f"{self.steps} steps with a frame every {self.save_every} leave {frames} frames after the first "
                f"fifth, and {FEWEST} are needed to compare two trajectories; take more steps, a smaller "
                "save_every, or steps: 0 for no guards"
            )
        return self


def _equilibration(steps: int) -> int:
    return steps // 5


def allowed(tolerance: float, n: int) -> float:
    """Limit, in standard errors, for the largest of ``n`` deviations.

    Chance exceeds it as often as it exceeds ``tolerance`` with a single normal deviation: among the 27 curves of six
    elements one beyond 2.5 is nothing unusual (Šidák, J. Am. Stat. Assoc. 62, 626 (1967)).
    """
    normal = NormalDist()
    inside = 1 - 2 * normal.cdf(-tolerance)
    return -normal.inv_cdf((1 - inside ** (1 / n)) / 2)


def dynamics_for(guards: Guards, dynamics: Dynamics) -> Dynamics:
    """The MD of the guards: that of the exploration, long enough, its first fifth for equilibration."""
    lengths = {
        "steps": guards.steps,
        "save_every": guards.save_every,
        "equilibrate": _equilibration(guards.steps),
    }
    return dynamics.model_copy(update=lengths)


def run_md(
    engine: Engine,
    starts: Sequence[Frame],
    temperatures: Sequence[float],
    dynamics: Dynamics,
    folder: Path,
    *,
    seed: int,
    together: int,
) -> list[dict[str, Any]]:
    """Trajectories of one model, a part each in ``folder``; finished ones are not run again."""
    tasks = explore.plan(starts, temperatures, seed, prefix="guard")
    return explore.run_tasks(tasks, engine, dynamics, folder, together)


def compare(
    teacher: Path,
    student: Path,
    rows: Sequence[dict[str, Any]],
    start: Frame,
    dynamics: Dynamics,
    guards: Guards,
) -> dict[str, Any]:
    """Whether the student's MD is the teacher's.

    Args:
        teacher: folder of the teacher's trajectories.
        student: folder of the student's, of the same names.
        rows: what :func:`run_md` said of the student's.
        start: one of the starts, for the time step.
        dynamics: of both.
        guards: limits.

    Returns:
        ``stable``, ``stopped`` (name → reason), ``picoseconds`` that were asked for; ``rdf`` and ``msd``: name →
        deviation in standard errors; ``allowed``, ``agree``, and ``passed``: stable and in agreement. ``agree`` is
        None, and nothing has passed, where trajectories broke off too early to tell: the student's or the
        teacher's own.
    """
    femtoseconds = timestep_for(to_atoms(start), dynamics)
    stopped = {row["name"]: row["stopped"] for row in rows if row["stopped"]}
    result: dict[str, Any] = {
        "stable": not stopped,
        "stopped": stopped,
        "steps": dynamics.steps,
        "picoseconds": round(1e-3 * femtoseconds * dynamics.steps, 4),
        "rdf": {},
        "msd": {},
        "agree": None,
    }
    pairs = [
        (parts.load_frames(teacher / f"{row['name']}.npz"), parts.load_frames(student / f"{row['name']}.npz"))
        for row in rows
    ]
    # Equal lengths: the blocks of a trajectory that broke off are not those of a whole one.
    pairs = [(a[: len(b)], b[: len(a)]) for a, b in pairs if min(len(a), len(b)) >= FEWEST]
    for systems in _by_system(pairs):
        _add(result, systems, 1e-3 * femtoseconds * dynamics.save_every, guards)
    deviations = [*result["rdf"].values(), *result["msd"].values()]
    if deviations:
        result["allowed"] = round(allowed(guards.tolerance, len(deviations)), 3)
        result["agree"] = bool(max(deviations) <= result["allowed"])
    result["passed"] = bool(result["stable"] and result["agree"])
    return result


def _by_system(
    pairs: Sequence[tuple[list[Frame], list[Frame]]],
) -> list[list[tuple[list[Frame], list[Frame]]]]:
    """Trajectories of the same atoms together: only those can be averaged over."""
    groups: dict[bytes, list[tuple[list[Frame], list[Frame]]]] = {}
    for pair in pairs:
        groups.setdefault(pair[0][0].numbers.tobytes(), []).append(pair)
    return list(groups.values())


def _add(
    result: dict[str, Any], pairs: Sequence[tuple[list[Frame], list[Frame]]], interval: float, guards: Guards
) -> None:
    """Deviations of one system; of several systems the largest counts."""
    both = [[pair[k] for pair in pairs] for k in (0, 1)]
    rdf = [properties.pair_distributions(trajectories, guards.cutoff) for trajectories in both]
    msd = [properties.displacements(trajectories, interval) for trajectories in both]
    for kind, curves in (("rdf", rdf), ("msd", msd)):
        for name, value in properties.worst(*curves).items():
            result[kind][name] = round(max(value, result[kind].get(name, 0.0)), 3)
