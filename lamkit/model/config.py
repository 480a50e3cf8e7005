"""Sizes and choices of a trunk: what ``configs/trunk/*.yaml`` holds. Needs no MindSpore."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lamkit import config


class TrunkConfig(config.Model):
    """Architecture of a potential.

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
