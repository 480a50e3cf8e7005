"""Training, of every verb: what a run is, and the call that trains it in one process or in several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lamkit import config as configuration
from lamkit.console import log_off, log_to
from lamkit.errors import Interrupted, LamkitError
from lamkit.files import require_writable
from lamkit.model.config import Architecture
from lamkit.model.runtime import setup
from lamkit.train import launch, world
from lamkit.train.checkpoint import Checkpoint
from lamkit.train.config import TrainConfig
from lamkit.train.denoise import SUFFIX
from lamkit.train.early import traceless
from lamkit.train.surroundings import settled
from lamkit.train.tasks import Task
from lamkit.train.trainer import Trainer


@dataclass
class Run:
    """What stays the same during a run.

    Attributes:
        tasks: heads that are trained, in the order of the network.
        trunk: architecture.
        config: training options.
        out: run folder.
        start: checkpoint that the weights come from, or None.
        init: head → head of ``start`` that its weights come from; None: random.
        judged: heads that fine-tuning is about: their validation errors choose the best checkpoint, in which none
            of them may be worse than at the start. None: all heads choose, by their geometric mean alone.
        resolved: complete configuration, for ``config.yaml``.
        device: CPU, GPU or Ascend.
        resume_hint: command that goes on with this run.
    """

    tasks: Sequence[Task]
    trunk: Architecture
    config: TrainConfig
    out: Path
    start: Checkpoint | None = None
    init: dict[str, str | None] = field(default_factory=dict)
    judged: Sequence[str] | None = None
    resolved: dict[str, Any] = field(default_factory=dict)
    device: str = "CPU"
    resume_hint: str = "the same command with --resume"

    @property
    def judges(self) -> list[Task]:
        """Tasks whose errors choose the best checkpoint."""
        return [t for t in self.tasks if self.judged is None or t.name in self.judged]

    @property
    def tuned(self) -> bool:
        """Whether the heads that are judged have been trained before, so that the start may be the best."""
        return all(self.init.get(t.name) is not None for t in self.judges)

    @property
    def kept(self) -> list[str]:
        """Heads of ``start`` that this run does not train, less those that only took noise off."""
        if self.start is None or self.config.denoise is not None:
            return []
        names = {t.name for t in self.tasks}
        return [h for h in self.start.heads if h not in names and not h.endswith(SUFFIX)]


def train(run: Run, *, resume: bool = False) -> dict[str, Any]:
    """Train and return the result; everything is written to ``run.out``.

    Args:
        run: what to train.
        resume: go on from ``checkpoints/last`` in ``run.out`` where there is one.

    Returns:
        steps, best and last errors per head (eV units), steps per second, path of the best checkpoint.

    Raises:
        UserError: the checkpoint to resume from does not fit.
        Interrupted: Ctrl-C; everything is saved.
        LamkitError: the loss is not a number any more, or the disk is full.
    """
    if launch.is_worker():
        return _train(run, resume)
    with traceless(run.out):
        if run.config.ranks > 1 and world.role() is None:
            return launch.train(run, resume=resume)
        return _train(run, resume)


def _train(run: Run, resume: bool) -> dict[str, Any]:
    """:func:`train`, in this process."""
    setup(run.device)
    ranks = world.join()
    handler = None
    if ranks.leader:
        require_writable(run.out)
        configuration.write_yaml(run.out / "config.yaml", run.resolved)  # first of all: --resume needs it
        handler = log_to(run.out / "train.log")
    try:
        begun = run.start.trunk if run.start is not None else None
        trunk = settled(run.trunk, run.tasks, begun, run.config.seed)
        result = Trainer(replace(run, trunk=trunk), resume, ranks).run()
        if not ranks.leader and not launch.is_worker():
            raise SystemExit(0)  # msrun runs the whole verb in every rank: what comes now is the leader's
        return result
    except KeyboardInterrupt:  # before the loop, after it, or the second one
        raise Interrupted(
            f"nothing was saved beyond the last checkpoint, if there is one; {run.resume_hint} goes on from there"
        ) from None
    except OSError as error:
        raise LamkitError(
            f"{error.filename or run.out}: {error.strerror or error}; the run cannot go on. The checkpoints in "
            f"{run.out / 'checkpoints'} are whole: mend this, then go on with {run.resume_hint}"
        ) from error
    finally:
        if handler is not None:
            log_off(handler)
