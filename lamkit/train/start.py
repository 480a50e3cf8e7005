"""What a run begins with: weights of a checkpoint or random ones, normalisers of the data, or an earlier state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lamkit.data.denoise import NoisyView
from lamkit.data.sampler import Dealer
from lamkit.data.storage import ATOM_ENERGIES, HESSIAN
from lamkit.data.view import View
from lamkit.errors import UserError
from lamkit.model.base import Headed
from lamkit.model.config import DeepPotConfig
from lamkit.train import normalizing
from lamkit.train.checkpoint import Checkpoint
from lamkit.train.saving import Saver
from lamkit.train.standing import Standing
from lamkit.train.step import TrainStep

if TYPE_CHECKING:
    from lamkit.train.run import Run


def refuse_unfit(run: Run) -> None:
    """Raise where the options of a run do not go together.

    Raises:
        UserError: noise is asked for where labels are trained on; or a term of the loss that the model or the
            data do not have.
    """
    if run.config.denoise is not None and not all(isinstance(t.train, NoisyView) for t in run.tasks):
        raise UserError(
            "train.denoise: only 'lamkit pretrain' trains on noise; then start from it with --from"
        )

    loss = run.config.loss
    if loss.atom_energy and not isinstance(run.trunk, DeepPotConfig):
        raise UserError(
            "train.loss.atom_energy: an Orb makes its energy of the mean over all atoms, no atom has one of its own; "
            "a deeppot-se has"
        )
    if loss.hessian and not run.trunk.conservative:
        raise UserError("train.loss.hessian: for conservative models (output: conservative, or deeppot-se)")
    for weight, array, option in (
        (loss.atom_energy, ATOM_ENERGIES, "atom_energies: true"),
        (loss.hessian, HESSIAN, "hessian: 1"),
    ):
        if weight and not any(_known(t.train, array) for t in run.tasks):
            term = "atom_energy" if array == ATOM_ENERGIES else "hessian"
            raise UserError(
                f"train.loss.{term}: no training frame has such labels; make them by 'lamkit label' with {option}"
            )


def _known(view: View, array: str) -> bool:
    return any(array in place.arrays() for _, _, place, _ in view.dataset.blocks(view.indices))


def begin(network: Headed, run: Run) -> None:
    """Weights of ``run.start``, where there is one, and normalisers from the data.

    Heads begin as the head of ``start`` that ``run.init`` names; one that does keeps its normalisers, which
    its weights belong to.

    Raises:
        UserError: the weights do not fit.
    """
    if run.start is not None:
        source = run.start.weights
        weights = {name: value for name, value in source.items() if not name.startswith("heads.")}
        for task in run.tasks:
            origin = run.init.get(task.name)
            for name, value in source.items():
                if origin is not None and name.startswith(f"heads.{origin}."):
                    weights[f"heads.{task.name}." + name.removeprefix(f"heads.{origin}.")] = value
        try:
            network.load_state(weights, strict=False)
        except UserError as error:
            raise UserError(f"{run.start.path}: {error}") from None
    for task in run.tasks:
        if run.init.get(task.name) is None:
            normalizing.fit(network, task)


def resume(
    run: Run, saver: Saver, networks: Sequence[Headed], step: TrainStep, dealer: Dealer
) -> Standing | None:
    """Put everything back to the newest checkpoint of the run; None where there is none.

    Args:
        run: the run.
        saver: its checkpoints.
        networks: the network of averaged weights, and the one that is trained.
        step: its moments.
        dealer: order of the data.

    Raises:
        UserError: the checkpoint is of another model, or all of them are damaged.
    """
    found = saver.newest()
    if found is None:
        return None
    saved, optimizer = found
    names = tuple(t.name for t in run.tasks)
    if saved.trunk != run.trunk or tuple(saved.heads[: len(names)]) != names:
        raise UserError(
            f"{saved.path}: was trained with another trunk or other heads ({', '.join(saved.heads)}); "
            "resume with the configuration in config.yaml beside it, or choose another --out"
        )
    for network in networks:  # of the second, the trained weights come next
        load_heads(network, saved, names)
    try:
        step.load_state(optimizer)
    except KeyError as error:
        raise UserError(
            f"{saved.path}: optimizer state {error} is missing; start with --from instead"
        ) from None
    at = Standing.of_json(saved.state)
    dealer.go_to(at.sampler)
    return at


def load_heads(network: Headed, saved: Checkpoint, names: Sequence[str]) -> None:
    """Weights of the trunk and of these heads, less those that the run only carries along."""
    wanted = tuple(f"heads.{n}." for n in names)
    network.load_state(
        {k: v for k, v in saved.weights.items() if not k.startswith("heads.") or k.startswith(wanted)}
    )
