"""A task: one head with its training and validation frames, its reference energies and its scales."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lamkit.console import log, table
from lamkit.data import split_file
from lamkit.data.dataset import Dataset, View, open_dataset
from lamkit.data.frame import SYMBOLS
from lamkit.data.heads import HeadConfig
from lamkit.data.label_sums import Statistics
from lamkit.data.plan import Plan
from lamkit.data.reference import ReferenceFit
from lamkit.data.split import split_indices
from lamkit.data.statistics_file import labels_of
from lamkit.data.storage import ATOM_ENERGIES, HESSIAN
from lamkit.errors import UserError

FEWEST_TO_SPLIT = 4  # frames; with fewer, all are trained on and none validates
FEW = 50  # frames up to which single frames are held out where whole groups cannot be
MIN_SCALE = 1e-4


class Scales(NamedTuple):
    """Units of one head's outputs and of its loss; data of the head, never trained.

    The network's normalised energy y becomes ``mean + output * y`` eV/atom. ``output`` is the root mean
    square force times 1 Å where there are forces, because a conservative model has to make the forces out
    of the same y; the spread of the energies per atom is often a hundred times smaller.

    Attributes:
        mean: mean of (E − reference)/n_atoms, eV/atom.
        output: eV/atom.
        energy: unit of energy errors in the loss, eV/atom.
        forces: unit of force errors in the loss, eV/Å.
        stress: unit of stress errors in the loss, eV/Å³.
    """

    mean: float
    output: float
    energy: float
    forces: float
    stress: float

    def normalizer(self, quantity: str) -> tuple[float, float]:
        """Mean and deviation with which the network's outputs begin; names as in ``Potential.quantities``."""
        if quantity == "energy":
            return self.mean, self.output
        return 0.0, self.forces if quantity == "forces" else self.stress


def scales(statistic: Statistics) -> Scales:
    """Scales from the statistics of the training frames."""
    forces = statistic.forces_rms if statistic.forces_rms > MIN_SCALE else 0.0
    spread = max(statistic.energy_std, MIN_SCALE)
    # Energies per atom that differ less than 2 % of the force scale are not worth a steeper loss.
    energy = max(spread, 0.02 * forces)
    stress = statistic.stress_rms if statistic.stress_rms > 1e-6 else 1e-2
    return Scales(
        mean=statistic.energy_mean,
        output=forces or spread,
        energy=energy,
        forces=forces or 1.0,
        stress=stress,
    )


@dataclass(frozen=True)
class Task:
    """One head ready for training.

    Attributes:
        name: head.
        train: training frames.
        valid: frames held out for validation, or None where there are too few.
        head: what the head's YAML or the data set says of it.
        reference: least-squares energies per element.
        scales: units of outputs and loss.
        elements: symbols in the training frames.
    """

    name: str
    train: View
    valid: View | None
    head: HeadConfig
    reference: ReferenceFit
    scales: Scales
    elements: tuple[str, ...]


def make_task(
    name: str,
    path: str | Path,
    head: HeadConfig,
    *,
    valid_fraction: float,
    seed: int,
    n_frames: int | None = None,
    prior: NDArray[np.float64] | None = None,
    split: str = split_file.DEFAULT,
) -> Task:
    """Open a head's data, split it where it has no validation part of its own, and fit its reference.

    Args:
        name: head.
        path: data set, or a folder with ``train/`` and ``valid/``.
        head: facts of the head.
        valid_fraction: part held out where the data set has no validation part; 0: none.
        seed: of the split and of the choice of ``n_frames``.
        n_frames: use only so many training frames (few-shot fine-tuning).
        prior: [119] eV, reference energies toward which the fit is regularised; default is the head's own.
        split: name of the recorded split to use.

    Raises:
        UserError: nothing to train on.
    """
    train, valid = training_parts(Path(path), name, split, valid_fraction, seed)
    if not len(train):
        raise UserError(f"{path}: no training frames for head '{name}'")
    if n_frames is not None and n_frames < len(train):
        chosen = np.random.default_rng([seed, 77]).permutation(len(train))[:n_frames]
        train = train.subset(np.sort(chosen))
    refuse_unusable(train, name)
    sums = labels_of(train)
    reference = sums.composition.fit(head.prior() if prior is None else prior)
    elements = tuple(SYMBOLS[z] for z in train.elements)
    return Task(name, train, valid, head, reference, scales(sums.statistics(reference.reference)), elements)


def training_parts(
    path: Path, name: str, split: str, valid_fraction: float, seed: int
) -> tuple[View, View | None]:
    """Frames to train on and to validate on: of two folders, of the recorded split, or dealt by group now.

    Raises:
        UserError: the recorded split has nothing to train on.
    """
    if (path / "train").is_dir():
        valid = everything(open_dataset(path / "valid")) if (path / "valid").is_dir() else None
        return everything(open_dataset(path / "train")), valid
    data = open_dataset(path)
    recorded = split_file.load(data, split)
    whole = everything(data)
    if recorded is not None:
        facts, parts = recorded
        if "train" not in parts:
            raise UserError(f"{path}: its split '{facts.name}' has no part 'train' (head '{name}')")
        log.info(
            "head %s: part 'train' of the split '%s' recorded in %s (by %s): %s",
            name, facts.name, path, facts.method, ", ".join(f"{k} {len(v)}" for k, v in parts.items()),
        )  # fmt: skip
        if "valid" in parts:
            return parts["train"], parts["valid"]
        whole = parts["train"]
    if not valid_fraction:
        return whole, None
    if len(whole) < FEWEST_TO_SPLIT:
        log.warning("head %s: %d frames are too few to hold some out for validation", name, len(whole))
        return whole, None
    return _dealt(whole, name, valid_fraction, seed)


def _dealt(whole: View, name: str, valid_fraction: float, seed: int) -> tuple[View, View | None]:
    """Training and validation frames by whole groups; by single frames where there are too few groups, said aloud."""
    shares = {"train": 1 - valid_fraction, "valid": valid_fraction}
    try:
        dealt = split_indices(whole, shares, by="group", seed=seed)
    except UserError as error:
        if len(whole) > FEW:
            raise
        log.warning(
            "head %s: its %d frames cannot be held out by whole groups (%s); frames are drawn at random, and errors "
            "on them look better than they are", name, len(whole), error,
        )  # fmt: skip
        order = np.random.default_rng([seed, 78]).permutation(len(whole))
        n_valid = max(1, round(valid_fraction * len(whole)))
        dealt = {"valid": np.sort(order[:n_valid]), "train": np.sort(order[n_valid:])}
    return whole.subset(dealt["train"]), whole.subset(dealt["valid"]) if len(dealt["valid"]) else None


def everything(data: Dataset) -> View:
    """All frames of a data set, as a view."""
    return data.subset(np.arange(len(data)))


def refuse_unusable(view: View, name: str) -> None:
    """Read every label once and refuse what no training can use.

    Raises:
        UserError: a label is NaN or infinite, or no frame has an energy.
    """
    for _, _, place, rows in view.dataset.blocks(view.indices):
        arrays = place.arrays()
        for label in ("energy", "force", "virial", ATOM_ENERGIES, HESSIAN, "coord"):
            for start in range(0, len(rows), 512) if label in arrays else ():
                some = rows[start : start + 512]
                bad = ~np.isfinite(np.asarray(arrays[label][some]).reshape(len(some), -1)).all(axis=1)
                if bad.any():
                    raise UserError(
                        f"{place.path}: {label}.npy, row {some[int(np.argmax(bad))]}: NaN or infinite "
                        f"(head '{name}'). 'lamkit data check {view.dataset.path}' lists all such frames; "
                        "convert the source again, which leaves them out"
                    )
    if not np.isfinite(view.energies).any():
        raise UserError(f"{view.dataset.path}: no frame has an energy (head '{name}')")


def describe(tasks: list[Task], plan: Plan) -> str:
    """The plan: steps, and a table of frames, chance, expected draws and epochs, reference fit, scales."""
    rows = []
    for t in tasks:
        atoms = float(np.mean(t.train.n_atoms))
        rows.append(
            (
                t.name,
                len(t.train),
                len(t.valid) if t.valid is not None else 0,
                f"{atoms:.0f}",
                f"{plan.chances[t.name]:.3f}",
                round(plan.chances[t.name] * plan.steps * plan.draws),
                f"{plan.epochs(t.name):.3g}",
                f"{t.reference.rank}/{t.reference.n_elements}",
                f"{1000 * t.reference.residual_std:.1f}",
                f"{1000 * t.scales.forces:.0f}",
            )
        )
        for sentence in t.reference.null_space:
            log.info("head %s: %s; the prior decides how the energy is shared", t.name, sentence)
    each = "one batch each" if plan.draws == 1 else f"{plan.draws} batches each"
    return f"plan: {plan.steps} steps, {each}\n" + table(
        rows,
        (
            "head",
            "train",
            "valid",
            "atoms",
            "chance",
            "batches",
            "epochs",
            "rank",
            "E std meV/atom",
            "F rms meV/Å",
        ),
    )
