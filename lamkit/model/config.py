"""Sizes and choices of a potential: what ``configs/trunk`` and ``configs/student`` hold. Needs no MindSpore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from lamkit import config


class TrunkConfig(config.Model):
    """Architecture of an Orb potential.

    Attributes:
        version: v2 (Gaussians and unit vector, shifted softplus, LayerNorm) or v3 (Bessel functions times
            spherical harmonics times envelope, SiLU, RMSNorm).
        output: conservative (forces and stress are gradients of the energy; what MD needs) or direct
            (own networks for forces and stress; faster, does not conserve energy).
        latent: width D of node and edge features.
        hidden: width of the two hidden layers of every network of the trunk.
        layers: number of interaction layers.
        head_hidden: width of the hidden layer of every head.
        cutoff: Å.
        max_neighbors: nearest receivers kept per atom; 120 means all, below 6 Å in ordinary matter. A number
            that cuts neighbours off makes the energy jump in MD.
        gaussians: radial functions of v2, centres 0.5 Å apart.
        bessel: radial functions of v3.
        lmax: highest degree of the spherical harmonics of v3.
        repulsion: add the Ziegler-Biersack-Littmark pair repulsion at short distances.
        repulsion_rule: orb (what the public weights were trained with: atomic numbers shifted by one, and in
            conservative models the mean over atoms, which is not extensive) or physical (true numbers, sum).
        conditioning: total charge (in e) and spin multiplicity of the frame as inputs (OrbMol); every frame
            needs them then.
        confidence: heads have a network that predicts, atom by atom, how large their force error is.
        decoder: the denoising network of the public models, which forces and energies do not use.
        stress: false where a head gives no stress (OrbMol, which knows molecules only).
    """

    version: Literal["v2", "v3"] = "v3"
    output: Literal["conservative", "direct"] = "conservative"
    latent: int = Field(gt=0)
    hidden: int = Field(gt=0)
    layers: int = Field(gt=0)
    head_hidden: int = Field(gt=0)
    cutoff: float = Field(default=6.0, gt=0)
    max_neighbors: int = Field(default=120, gt=0)
    gaussians: int = Field(default=20, gt=0)
    bessel: int = Field(default=8, gt=0)
    lmax: int = Field(default=3, ge=0, le=3)
    repulsion: bool = True
    repulsion_rule: Literal["orb", "physical"] = "orb"
    conditioning: bool = False
    confidence: bool = False
    decoder: bool = False
    stress: bool = True

    @model_validator(mode="after")
    def _divisible(self) -> TrunkConfig:
        if self.conditioning and self.latent % 4:
            raise ValueError(f"latent: {self.latent} must be a multiple of 4 with conditioning: true")
        return self

    @property
    def conservative(self) -> bool:
        """True where forces and stress are gradients of the energy."""
        return self.output == "conservative"

    @property
    def n_edge_inputs(self) -> int:
        """Numbers that describe one edge vector."""
        if self.version == "v2":
            return self.gaussians + 3
        return self.bessel * (self.lmax + 1) ** 2

    @property
    def least_edges(self) -> int:
        """Edges below which a batch costs the same: so many are the least that is compiled for."""
        return min(256, 2**19 // (self.latent * self.hidden))


# Places for neighbours in an exported model, in proportion to the most neighbours that were seen.
SEL_MARGIN = 1.25


class Surroundings(config.Model):
    """What a DeepPot has to know of its data before it can be made; found when training begins.

    Attributes:
        elements: symbols, one embedding and one fitting network for each.
        sel: of each element, neighbours for which there is room in other programs; the most that any atom of
            the training data has, times 1.25.
        slots: number by which the sum over neighbours is divided.
        deviations: of each element as centre, by what the radial and the angular inputs are divided.
        min_distance: smallest distance in the data, Å.
    """

    elements: list[str] = Field(min_length=1)
    sel: list[int]
    slots: int = Field(gt=0)
    deviations: list[tuple[float, float]]
    min_distance: float = Field(gt=0)


class DeepPotConfig(config.Model):
    """Architecture of a DeepPot-SE potential (se_e2_a with one-sided embedding): fast, for one system.

    Conservative, invariant by construction, smooth to second order, and ready for LAMMPS by
    ``lamkit export --to deepmd``. It knows only the elements it was trained on.

    Attributes:
        version: deeppot-se.
        cutoff: Å.
        smooth_from: Å; from here to the cutoff neighbours fade out.
        embedding: widths of the networks of a neighbour's distance; each as wide as the one before or twice.
        axis: columns of the embedding that the descriptor is contracted with.
        fitting: widths of the networks from an atom's descriptor to its energy.
        surroundings: found from the data when training begins; leave it out.
    """

    version: Literal["deeppot-se"]
    cutoff: float = Field(default=6.0, gt=0)
    smooth_from: float = Field(default=0.5, ge=0)
    embedding: list[int] = Field(default=[25, 50, 100], min_length=1)
    axis: int = Field(default=16, gt=0)
    fitting: list[int] = Field(default=[120, 120, 120], min_length=1)
    surroundings: Surroundings | None = None

    @model_validator(mode="after")
    def _possible(self) -> DeepPotConfig:
        if self.smooth_from >= self.cutoff:
            raise ValueError(f"smooth_from: {self.smooth_from} must be below the cutoff {self.cutoff}")
        if self.axis > self.embedding[-1]:
            raise ValueError(
                f"axis: {self.axis} is more than the embedding's last width {self.embedding[-1]}"
            )
        if min(*self.embedding, *self.fitting) < 1:
            raise ValueError("embedding and fitting: widths must be positive")
        if self.fitting[0] in (self.descriptor_width, 2 * self.descriptor_width):
            raise ValueError(
                f"fitting: the first width {self.fitting[0]} must differ from the descriptor's, embedding[-1] * "
                f"axis = {self.descriptor_width}, and from twice that"
            )
        return self

    @property
    def descriptor_width(self) -> int:
        """Numbers that describe an atom's surroundings."""
        return self.embedding[-1] * self.axis

    # What every architecture says of itself; here it is no choice.
    max_neighbors: ClassVar[None] = None
    output: ClassVar[str] = "conservative"
    conservative: ClassVar[bool] = True
    conditioning: ClassVar[bool] = False
    confidence: ClassVar[bool] = False
    decoder: ClassVar[bool] = False
    stress: ClassVar[bool] = True
    least_edges: ClassVar[int] = 256


def _kind(value: Any) -> str:
    """Class of an architecture, from its object or its keys."""
    if isinstance(value, Mapping):
        return "DeepPotConfig" if value.get("version") == "deeppot-se" else "TrunkConfig"
    return type(value).__name__


Architecture: TypeAlias = TrunkConfig | DeepPotConfig
# For a key of a configuration that holds either; which one it is follows from its key ``version``.
AnyArchitecture: TypeAlias = Annotated[
    Annotated[TrunkConfig, Tag("TrunkConfig")] | Annotated[DeepPotConfig, Tag("DeepPotConfig")],
    Discriminator(_kind),
]


def architecture(data: Mapping[str, Any], origin: str) -> Architecture:
    """The architecture that a mapping describes.

    Raises:
        UserError: as :func:`lamkit.config.parse`.
    """
    if _kind(data) == "DeepPotConfig":
        return config.parse(DeepPotConfig, data, origin)
    return config.parse(TrunkConfig, data, origin)
