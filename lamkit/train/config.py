"""Options of every training verb: schedule, losses, sampling, validation and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from lamkit import config, presets
from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.train.tune import Tune

Label = Literal["energy", "forces", "stress"]
Weight = Annotated[float, pydantic.Field(ge=0)]


class HeadWeights(config.Model):
    """Weights of one head, in place of the run's times the head's own.

    Attributes:
        energy, forces, stress: at the peak of the learning rate; null leaves what it would be without this.
        limit: the same at a rate of 0, by term; replaces the run's ``limit``.
    """

    energy: Weight | None = None
    forces: Weight | None = None
    stress: Weight | None = None
    limit: dict[Label, Weight] | None = None


class LossConfig(config.Model):
    """Loss of one training step: a weighted sum of terms, each the mean over the labels that exist.

    Energy errors per atom, force components and stress components are divided by the scales of the head
    (:class:`lamkit.train.tasks.Scales`) and go through a penalty: ``huber`` (quadratic below ``delta``, linear
    above), ``mae`` or ``mse``. Or they are treated as the public Orb models were trained: ``orb-mae``
    (version 2) and ``orb-huber`` (version 3: Huber loss of quantities divided by the head's normalisers, with a
    corner of 0.01 that shrinks for large forces).

    DeePMD's loss is ``kind: mse``, ``units: physical``, ``intensive: false`` and its ``start_pref_*`` as weights
    with its ``limit_pref_*`` as ``limit``; ``intensive: true`` is its ``intensive_ener_virial``.

    Attributes:
        kind: which of these.
        delta: corner of ``huber``, in the units of the errors.
        deltas: corners of single terms, where they differ.
        units: what ``huber``, ``mae`` and ``mse`` divide errors by: the scales of the ``head``, or nothing
            (``physical``: eV/atom, eV/Å, and for stress the virial per atom, V Δσ / N in eV, the mean over all
            nine components).
        intensive: errors of energies per atom count alike in frames of all sizes, that is (ΔE/N)² for ``mse``;
            false multiplies the penalty of energies (and of virials in physical units) by N: (ΔE)²/N.
        energy: weight of the energy term; multiplied by the head's own ``loss.energy``.
        forces: weight of the force term; multiplied by the head's own ``loss.forces``.
        stress: weight of the stress term; multiplied by the head's own ``loss.stress``.
        limit: weights of energy, forces or stress that the run moves to as the learning rate falls, by the same
            multiples: p = start α + limit (1 − α), α the rate as a fraction of its peak; a term that has none
            keeps its weight, and one whose start or limit is 0 is off.
        heads: weights of single heads.
        confidence: weight of the cross entropy that teaches heads to predict their own force errors; only where
            the trunk has ``confidence: true``.
        equigrad: weight of the rotational gradient in eV, which punishes energies that depend on orientation;
            Orb's authors advise a thousandth of the other weights. Conservative models only.
        atom_energy: weight of the energies of the atoms, where the frames have them (``lamkit label``,
            ``atom_energies: true``); deeppot-se only. Errors are in units of the force scale times 1 Å.
        hessian: weight of products with the Hessian, where the frames have them (``lamkit label``, ``hessian: 1``);
            the network is evaluated at two displaced structures more, which makes a step three times as long.
            Errors are in units of the force scale per Å. Conservative models only.
    """

    kind: Literal["huber", "mae", "mse", "orb-mae", "orb-huber"] = "huber"
    delta: float = pydantic.Field(0.1, gt=0)
    deltas: dict[Label, Annotated[float, pydantic.Field(gt=0)]] = {}
    units: Literal["head", "physical"] = "head"
    intensive: bool = True
    energy: float = pydantic.Field(0.5, ge=0)
    forces: float = pydantic.Field(10.0, ge=0)
    stress: float = pydantic.Field(0.3, ge=0)
    limit: dict[Label, Weight] = {}
    heads: dict[str, HeadWeights] = {}
    confidence: float = pydantic.Field(1.0, ge=0)
    equigrad: float = pydantic.Field(0.0, ge=0)
    atom_energy: float = pydantic.Field(0.0, ge=0)
    hessian: float = pydantic.Field(0.0, ge=0)

    @pydantic.model_validator(mode="after")
    def _orb_has_its_own_units(self) -> LossConfig:
        if self.kind.startswith("orb") and (self.units != "head" or not self.intensive or self.deltas):
            raise ValueError(
                f"{self.kind} has its own units and corners: leave units, intensive and deltas away"
            )
        if self.kind.startswith("orb") and (self.atom_energy or self.hessian):
            raise ValueError(f"{self.kind} has no terms atom_energy and hessian: take huber, mae or mse")
        return self


class NoiseConfig(config.Model):
    """Noise of denoising pre-training; LAMKit's own schedule, see :mod:`lamkit.data.denoise`.

    Attributes:
        smallest, largest: standard deviations of the displacements in Å, between which each frame's is drawn,
            evenly in its logarithm.
    """

    smallest: float = pydantic.Field(0.02, gt=0)
    largest: float = pydantic.Field(0.3, gt=0)

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> NoiseConfig:
        if self.smallest > self.largest:
            raise ValueError(f"smallest ({self.smallest}) must not exceed largest ({self.largest})")
        return self


class TrainConfig(config.Model):
    """How to train.

    Attributes:
        max_steps: optimizer steps; each step draws one head.
        max_minutes: stop after this wall time even if steps remain; the learning rate follows whichever of
            the two limits is nearer.
        batch_atoms: atoms per batch; a larger single frame makes the batch as large as the frame.
        head_batch_atoms: atoms per batch of single heads, in place of ``batch_atoms``.
        batch_edges: neighbours per batch at most, counted per atom and direction; null: as many as the atoms have.
        ranks: processes that train together, each on its own batch of its own head; gradients are averaged.
        accumulate: batches per rank and step; ``ranks`` times ``accumulate`` of them make one step.
        learning_rate: peak rate, reached after ``warmup_steps``.
        warmup_steps: steps of linear warm-up.
        decay: how the rate falls from the peak to ``final_learning_rate``.
        final_learning_rate: rate at the end, as a fraction of the peak.
        weight_decay: decoupled decay (AdamW) of weight matrices; biases, norms and embeddings are left.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        clip_norm: global gradient norm above which the gradient is scaled down.
        tune: what is trained: ``full``, ``heads``, ``{freeze: k}`` (the trunk stays up to its k-th layer) or
            ``{lora: rank}`` (low-rank adapters of the trunk's matrices, merged into them).
        ema: decay of the moving average of the weights, which is what is validated and used; 0 switches it off.
        loss: the loss.
        denoise: pre-train the trunk without labels: atoms are displaced at random and the network learns to
            point back. ``lamkit pretrain`` only; its heads are of no further use, its checkpoint serves as
            ``--from``. ``{}`` takes the default noise.
        normalizers: mean and deviation that turn outputs of a head into units: ``fixed`` (from the training
            frames, once) or ``online`` (Orb's way: a running average over the batches that were seen).
        sampling_exponent: heads are drawn with probability ∝ (number of frames) ** exponent.
        weights: explicit drawing weights per head; overrides the exponent.
        epochs: passes over the frames of each head instead; ``max_steps`` and the chances follow from them.
        rotate: turn each batch by a random rotation (Orb is not equivariant by construction).
        valid_every: steps between validations.
        split: name of the split recorded in the data sets (``lamkit data split``) whose part ``train`` is trained
            on and whose part ``valid`` is validated on; data sets without any are split by group.
        valid_fraction: part of a data set without its own validation part that is held out, by group.
        patience: stop when so many validations in a row were no better than the best before; null never does.
        valid_frames: at most this many validation frames per head at each validation.
        save_every: steps between checkpoints.
        keep: how many ``step-N`` checkpoints stay besides ``last`` and ``best``.
        log_every: steps between log lines.
        tensorboard: write curves for TensorBoard, too (``pip install 'lamkit[tensorboard]'``).
        seed: seed of initialisation, order, rotations and splits.
        cache_mb: memory for neighbour lists that are kept from epoch to epoch.
    """

    max_steps: int = pydantic.Field(2000, ge=1)
    max_minutes: float | None = pydantic.Field(None, gt=0)
    batch_atoms: int = pydantic.Field(128, ge=1)
    head_batch_atoms: dict[str, Annotated[int, pydantic.Field(ge=1)]] = {}
    batch_edges: int | None = pydantic.Field(None, ge=1)
    ranks: int = pydantic.Field(1, ge=1)
    accumulate: int = pydantic.Field(1, ge=1)
    learning_rate: float = pydantic.Field(1e-3, gt=0)
    warmup_steps: int = pydantic.Field(100, ge=0)
    decay: Literal["cosine", "exponential", "constant"] = "cosine"
    final_learning_rate: float = pydantic.Field(0.01, gt=0, le=1)
    weight_decay: float = pydantic.Field(1e-4, ge=0)
    beta1: float = pydantic.Field(0.9, ge=0, lt=1)
    beta2: float = pydantic.Field(0.99, ge=0, lt=1)
    clip_norm: float = pydantic.Field(10.0, gt=0)
    tune: Tune = "full"
    ema: float = pydantic.Field(0.995, ge=0, lt=1)
    loss: LossConfig = LossConfig()
    denoise: NoiseConfig | None = None
    normalizers: Literal["fixed", "online"] = "fixed"
    sampling_exponent: float = pydantic.Field(0.5, ge=0)
    weights: dict[str, float] | None = None
    epochs: dict[str, float] | None = None
    rotate: bool = True
    valid_every: int = pydantic.Field(500, ge=1)
    split: str = "default"
    valid_fraction: float = pydantic.Field(0.1, gt=0, lt=1)
    patience: int | None = pydantic.Field(None, ge=1)
    valid_frames: int = pydantic.Field(64, ge=1)
    save_every: int = pydantic.Field(500, ge=1)
    keep: int = pydantic.Field(0, ge=0)
    log_every: int = pydantic.Field(50, ge=1)
    tensorboard: bool = False
    seed: int = pydantic.Field(0, ge=0)
    cache_mb: int = pydantic.Field(512, ge=0)


def expand_preset(kind: str, value: Any) -> dict[str, Any]:
    """``NAME`` or ``{preset: NAME, key: value}`` → the preset's keys, overridden by those that are given.

    Args:
        kind: folder of presets, for example ``configs/trunk``.
        value: a name, a path or a mapping.
    """
    if isinstance(value, str):
        value = {"preset": value}
    if not isinstance(value, Mapping):
        raise UserError(f"{kind}: expected a preset's name or a mapping, found {value!r}")
    given = dict(value)
    name = given.pop("preset", None)
    if name is None:
        return given
    base, _ = config.read_yaml(presets.find(kind, str(name)))
    return merge(base, given)


def merge(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``given`` laid over it, group by group."""
    result = dict(base)
    for key, value in given.items():
        inner = result.get(key)
        result[key] = (
            merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
        )
    return result


def _trunk(value: Any) -> Any:
    return value if isinstance(value, TrunkConfig) else expand_preset("configs/trunk", value)


def _train(value: Any) -> Any:
    return value if isinstance(value, TrainConfig) else expand_preset("configs/train", value)


def _presets_as_value_errors(function: Any) -> Any:
    """Let a wrong preset name be reported with the file and line of the key that holds it."""

    def check(value: Any) -> Any:
        try:
            return function(value)
        except UserError as error:
            raise ValueError(str(error)) from None

    return check


TrunkOption = pydantic.BeforeValidator(_presets_as_value_errors(_trunk))
TrainOption = pydantic.BeforeValidator(_presets_as_value_errors(_train))
