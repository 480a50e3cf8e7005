"""What a data set says of itself: the contents of ``dataset.yaml``."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from lamkit import config
from lamkit.data.heads import LevelOfTheory

UNITS = {
    "length": "angstrom",
    "energy": "eV",
    "force": "eV/angstrom",
    "virial": "eV",
    "stress": "eV/angstrom^3",
    "hessian_products": "eV/angstrom^2",
}
FORMAT_VERSION = 1


class DatasetFacts(config.Model):
    """Contents of ``dataset.yaml``. The writer fills in whatever it can count.

    Attributes:
        format_version: of this layout.
        head: head that the data belong to; empty if none was named.
        title: one line for people.
        level_of_theory: how the labels were computed; null if not known.
        energy_kind: which energy the label is.
        n_frames: frames in the data set.
        n_atoms: atoms in all frames together.
        n_groups: different groups.
        labels: frames that have each label (``stress_partly``: some components unknown).
        elements: symbols that occur.
        reference_prior: energy per atom of elements in eV, where known.
        units: units of the files.
        sign: sign of stress and virial, in words.
        licence: licence of the data.
        citation: what to cite.
        notes: anything a user should know, such as masked labels.
        split: how this part was split off, if it was.
        converter: program and version that wrote the files.
        created: time of writing, UTC.
        checksums: SHA-256 of each file.
    """

    format_version: int = FORMAT_VERSION
    head: str = ""
    title: str = ""
    level_of_theory: LevelOfTheory | None = None
    energy_kind: str | None = None
    n_frames: int = 0
    n_atoms: int = 0
    n_groups: int = 0
    labels: dict[str, int] = Field(default_factory=dict)
    elements: list[str] = Field(default_factory=list)
    reference_prior: dict[str, float] | None = None
    units: dict[str, str] = Field(default_factory=lambda: dict(UNITS))
    sign: str = "virial = -volume * stress; stress in ASE's sign, tension positive"
    licence: str | None = None
    citation: str | list[str] | None = None
    notes: list[str] = Field(default_factory=list)
    split: dict[str, Any] | None = None
    converter: str = ""
    created: str = ""
    checksums: dict[str, str] = Field(default_factory=dict)
