"""What a fine-tuning run begins from: which head of the checkpoint, with which reference, for which elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lamkit.console import log, table
from lamkit.data.dataset import open_dataset
from lamkit.errors import UserError, suggest

if TYPE_CHECKING:
    from lamkit.model.inference import Predictor
    from lamkit.stages.deepmd_systems import Systems
    from lamkit.train.checkpoint import Checkpoint
    from lamkit.train.tasks import Task
    from lamkit.train.tune import Tune

AUTO, RANDOM = "auto", "random"


class Beginning(NamedTuple):
    """Where one head begins.

    Attributes:
        task: with the reference that belongs to the network it begins as.
        origin: head of the checkpoint whose weights it takes; None: random ones.
        ranking: what :func:`lamkit.train.rebias.rank_heads` found, where it was asked.
        before: RMSE of the energy before any training with the old reference, eV/atom; None where random.
        after: the same with the refitted one.
    """

    task: Task
    origin: str | None
    ranking: list[dict[str, Any]]
    before: float | None = None
    after: float | None = None


def named_by_data(
    head: str | Sequence[str], data: str | Systems | Mapping[str, Any] | None
) -> dict[str, Any]:
    """Head → data, in the order of the heads; ``auto`` becomes the name that the data give themselves.

    Raises:
        UserError: no head, one twice, data for a head that is not trained, or ``auto`` without data.
    """
    names = [head] if isinstance(head, str) else list(head)
    if not names or len(set(names)) < len(names):
        raise UserError(f"head: expected one or more names, each once, found {names}")
    if data is not None and not isinstance(data, Mapping):
        if len(names) > 1:
            raise UserError(
                f"data: {len(names)} heads, one folder; write HEAD=DIR for each of {', '.join(names)}"
            )
        data = {names[0]: data}
    given = dict(data or {})
    if unused := [name for name in given if name not in names]:
        raise UserError(
            f"data: {', '.join(unused)} is no head of this run ({', '.join(names)}).{suggest(unused[0], names)}"
        )
    return {(_own_name(given.get(n)) if n == AUTO else n): given.get(n) for n in names}


def _own_name(data: Any) -> str:
    """Name of the head of a data set: the one it was converted for, else that of its folder."""
    if not isinstance(data, str):
        raise UserError("--head auto: which data? --data DIR")
    path = Path(data)
    if not path.is_dir():
        raise UserError(f"{path}: no such data set")
    facts = open_dataset(path / "train" if (path / "train").is_dir() else path).facts
    name = facts.head or path.resolve().name
    log.info(
        "head auto: called %s, %s", name, "as its data say" if facts.head else "after the folder of its data"
    )
    return name


def begin(start: Checkpoint, task: Task, init: str | None, network: Predictor) -> Beginning:
    """Choose the head to begin as and refit the reference under its network.

    Args:
        start: checkpoint.
        task: the head's data.
        init: head of the checkpoint, ``auto`` (the one whose forces fit best), ``random``, or None: the head of
            the same name where there is one, else ``auto``.
        network: from :func:`lamkit.train.rebias.predictor`.

    Raises:
        UserError: no such head.
    """
    from lamkit.train import rebias

    ranking: list[dict[str, Any]] = []
    wanted = init or (task.name if task.name in start.heads else AUTO)
    if wanted == RANDOM:
        log.warning("head %s begins with random weights, as asked (init: random)", task.name)
        return Beginning(task, None, [])
    if wanted == AUTO:
        ranking = rebias.rank_heads(start, task.train, network)
        wanted = str(ranking[0]["head"])
        log.info(
            "heads on the new data, reference refitted, before any training:\n%s",
            ranking_table(ranking, start),
        )
        log.info("head %s begins as %s, which fits best (--init HEAD for another)", task.name, wanted)
    elif wanted not in start.heads:
        raise UserError(
            f"init: no head named '{wanted}' in {start.path}.{suggest(wanted, start.heads)} "
            f"Known: auto, random, {', '.join(start.heads)}"
        )
    elif wanted == task.name:
        log.info("head %s goes on from its own weights; its reference is refitted on the new data", wanted)
    else:
        log.info("head %s begins as %s", task.name, wanted)
    found = rebias.refitted(start, wanted, task, network)
    log.info("%s", found.words())
    return Beginning(found.task, wanted, ranking, found.energy_before, found.energy_after)


def ranking_table(ranking: Sequence[Mapping[str, Any]], start: Checkpoint) -> str:
    """A row for each head with the card of its level of theory, best first."""
    rows = []
    for r in ranking:
        level = start.head_configs[r["head"]].level_of_theory
        rows.append(
            (
                r["head"],
                "-" if r["forces_rmse"] != r["forces_rmse"] else f"{1000 * r['forces_rmse']:.0f}",
                f"{1000 * r['energy_rmse']:.1f}",
                ", ".join(r["unseen"]) or "-",
                level.functional + (f" + {level.dispersion}" if level.dispersion else ""),
                level.code or "-",
                level.pseudopotentials or level.basis or "-",
            )
        )
    headers = (
        "head",
        "F RMSE meV/Å",
        "E RMSE meV/atom",
        "never saw",
        "functional",
        "code",
        "pseudopotentials or basis",
    )
    return table(rows, headers)


def warn(start: Checkpoint, task: Task, new: Mapping[str, str], tune: Tune) -> None:
    """Say aloud what the user may not have meant.

    Args:
        start: checkpoint.
        task: the head's data.
        new: element that no head has seen → what it begins as.
        tune: what is trained.
    """
    from lamkit.train.tune import changes_elements

    for symbol, like in new.items():
        if symbol not in task.elements:
            continue
        stays = (
            ""
            if changes_elements(tune)
            else ", and stays so, because the table of elements is not trained (tune)"
        )
        log.warning(
            "%s: %s never occurred in the data of %s; in the trunk it begins as %s%s",
            task.name, symbol, start.path, like, stays,
        )  # fmt: skip
    if task.name in start.head_configs:
        before = start.head_configs[task.name].level_of_theory.functional
        now = task.head.level_of_theory.functional
        if before != now:
            log.warning(
                "head %s was trained on %s, the new data are %s: use a new name to keep both",
                task.name, before, now,
            )  # fmt: skip
