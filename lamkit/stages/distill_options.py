"""Options of a distillation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from lamkit.config import InputPath, Model
from lamkit.data.selection import Limits
from lamkit.errors import UserError
from lamkit.model.config import AnyArchitecture, DeepPotConfig, TrunkConfig
from lamkit.stages.dynamics import Dynamics
from lamkit.stages.explore import Schedule
from lamkit.stages.extra_labels import Extra
from lamkit.stages.guards import Guards
from lamkit.stages.perturb import Perturb
from lamkit.stages.select import Method
from lamkit.train.config import TrainConfig, expand_preset

# A small student on a few hundred frames: two minutes of one core in each round, which goes on where the one before
# ended. What counts for a DeepPot is how many frames it has seen; with a rate of 0.004 it learns nothing of liquid
# water: within 200 steps it predicts no forces at all, and stays so.
DEFAULT_TRAIN = {
    "max_steps": 2000,
    "batch_atoms": 64,
    "learning_rate": 0.002,
    "warmup_steps": 50,
    "ema": 0.99,
    "valid_every": 500,
    "valid_frames": 32,
    "save_every": 500,
}


DEFAULT_STUDENT = "deeppot-se-small"


def _student(value: Any) -> Any:
    # A key or two change the default; a version, or the width of an Orb, begins an architecture of the user's own.
    if isinstance(value, dict) and value.keys().isdisjoint(("preset", "version", "latent")):
        value = {"preset": DEFAULT_STUDENT, **value}
    return value if isinstance(value, TrunkConfig | DeepPotConfig) else _expanded("configs/student", value)


def _train(value: Any) -> Any:
    if isinstance(value, dict) and "preset" not in value:
        value = {**DEFAULT_TRAIN, **value}
    return value if isinstance(value, TrainConfig) else _expanded("configs/train", value)


def _expanded(kind: str, value: Any) -> dict[str, Any]:
    try:
        return expand_preset(kind, value)
    except UserError as error:
        raise ValueError(str(error)) from None


class Criterion(Model):
    """When the student is good enough, on the held-out trajectories.

    Attributes:
        forces_rmse: eV/Å against the teacher; None leaves it to ``fraction``.
        fraction: of the teacher's own root-mean-square force there.
        rounds: rounds in a row that have to meet it, with the upper end of the 95 % interval of the error.
    """

    forces_rmse: float | None = pydantic.Field(None, gt=0)
    fraction: float = pydantic.Field(0.2, gt=0)
    rounds: int = pydantic.Field(2, ge=1)


class Heldout(Model):
    """Trajectories that only test.

    Attributes:
        n_starts: how many, from starts that are not trained on; where there are few, several from one.
        temperatures: K, none of them trained at; each start runs at each of them. Empty takes the middle between
            the two highest that are trained at, or a quarter above the highest where there is only one or a
            schedule comes by the middle.
    """

    n_starts: int = pydantic.Field(3, ge=1)
    temperatures: list[float] = pydantic.Field(default=[])


class Options(Model):
    """Options of ``lamkit distill``.

    Attributes:
        teacher: checkpoint or run folder; null takes ./lamkit-finetune, ./lamkit-pretrain or the sample model.
        head: head of the teacher; may be left out where there is only one. With ``calculator`` the name that the
            student's head gets.
        calculator: instead of ``teacher``, ``module:function`` that returns an ASE calculator.
        student: architecture of the student: a preset of ``configs/student``, or its keys, or keys of the default to
            change (student.cutoff: ions want 7 Å rather than 5). The default runs in LAMMPS; for many elements at once,
            or where few frames must do, take an Orb (orb-narrow, orb-small).
        starts: data sets or structure files to start from; empty takes the commonest
            system of the data that the head was trained on.
        data: labelled data set (DFT, not used in training) on which both models are tested as well.
        n_starts: starting structures of each round; where there are few, several trajectories start from one.
        temperatures: K; each start runs at each of them. A list among them is a schedule (see explore).
        pressures: GPa, of npt; likewise. Empty takes dynamics.pressure.
        heldout: trajectories that only test.
        dynamics: how trajectories run.
        perturb: structures beside MD: random copies of the starts, squeezed pairs, dimers.
        together: trajectories that advance at once where the model evaluates batches.
        min_atoms: repeat smaller periodic cells until they have as many atoms.
        n_frames: frames chosen and labelled in each round.
        method: how frames are chosen: farthest (teacher's features), entropy (without features) or random; null
            takes farthest where the teacher has features.
        explorer: student (from the second round on: it goes where it is wrong) or teacher (in every round).
        checked: from the second round on the teacher labels so many times ``n_frames``, and those on which the
            student deviates most are kept.
        directions: random directions of each training frame along which the teacher's forces are differentiated, where
            train.loss.hessian is not 0 (which asks for them, as train.loss.atom_energy does for energies of atoms).
        rounds: rounds at most.
        max_minutes: no round is begun after this time.
        limits: what a frame must keep to.
        criterion: when to stop.
        guards: MD of the student that has to be like the teacher's.
        train: how the student is trained: a preset of ``configs/train``, or its keys.
        speed_atoms: the speed is measured on a cell of about as many atoms.
        seed: of everything random.
        device: CPU, GPU or Ascend.
        resume: go on with the run in the output folder.
    """

    teacher: InputPath | None = None
    head: str | None = None
    calculator: str | None = None
    student: Annotated[AnyArchitecture, pydantic.BeforeValidator(_student)] = pydantic.Field(
        DEFAULT_STUDENT, validate_default=True
    )
    starts: list[InputPath] = pydantic.Field(default=[])
    data: InputPath | None = None
    n_starts: int = pydantic.Field(8, ge=1)
    temperatures: list[Schedule] = pydantic.Field([300.0, 600.0], min_length=1)
    pressures: list[Schedule] = pydantic.Field(default=[])
    heldout: Heldout = Heldout()
    dynamics: Dynamics = Dynamics(steps=250, save_every=5, equilibrate=20)
    perturb: Perturb = Perturb(n=6, squeezed=2)
    together: int = pydantic.Field(16, ge=1)
    min_atoms: int = pydantic.Field(8, ge=1)
    n_frames: int = pydantic.Field(400, ge=2)
    method: Method | None = None
    explorer: Literal["student", "teacher"] = "student"
    checked: float = pydantic.Field(2.0, ge=1)
    directions: int = pydantic.Field(1, ge=1)
    rounds: int = pydantic.Field(4, ge=1)
    max_minutes: float | None = pydantic.Field(None, gt=0)
    limits: Limits = Limits()
    criterion: Criterion = Criterion()
    guards: Guards = Guards()
    train: Annotated[TrainConfig, pydantic.BeforeValidator(_train)] = pydantic.Field(
        {}, validate_default=True
    )
    speed_atoms: int = pydantic.Field(64, ge=1)
    seed: int = pydantic.Field(0, ge=0)
    device: str = "CPU"
    resume: bool = False

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Options:
        both = sorted(t for t in self.heldout.temperatures if self._trained_at(t))
        if both:
            raise ValueError(
                f"heldout.temperatures: {both[0]:g} K is trained at as well, so it tests nothing; take another, or "
                "leave them out"
            )
        if self.teacher is not None and self.calculator is not None:
            raise ValueError("give either teacher or calculator, not both")
        if self.pressures and self.dynamics.ensemble != "npt":
            raise ValueError(f"pressures: need dynamics.ensemble npt, not {self.dynamics.ensemble}")
        self.dynamics.require_frames()
        return self

    def extra(self) -> Extra:
        """Labels beyond energy, forces and stress that the loss asks for."""
        loss = self.train.loss
        return Extra(loss.atom_energy > 0, self.directions if loss.hessian else 0)

    def test_temperatures(self) -> list[float]:
        """Temperatures of the held-out trajectories, K."""
        if self.heldout.temperatures:
            return self.heldout.temperatures
        trained = sorted({v for t in self.temperatures for v in (t if isinstance(t, list) else [t])})
        between = 0.5 * (trained[-1] + trained[-2]) if len(trained) > 1 else trained[-1]
        return [1.25 * trained[-1] if self._trained_at(between) else between]

    def _trained_at(self, kelvin: float) -> bool:
        """Whether a trajectory that may be trained on runs at a temperature, or comes by it on its schedule."""
        return any(
            min(t) <= kelvin <= max(t) if isinstance(t, list) else t == kelvin for t in self.temperatures
        )
