"""The public Orb files by name: what their names tell that the arrays in them do not.

Sources: the loading functions of orb-models 0.5.5 (neighbours, layers), its MODELS.md (data), the papers
arXiv:2410.22570 (v2), 2504.06231 (v3), 2505.08762 (OMol25).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lamkit.data.frame import SYMBOLS
from lamkit.data.heads import HeadConfig, LevelOfTheory
from lamkit.model.config import TrunkConfig

CUTOFF = 6.0  # Å, of all public models
UNKNOWN = LevelOfTheory(method="unknown", functional="unknown")
V2, V3 = "Neumann et al., arXiv:2410.22570 (2024)", "Rhodes et al., arXiv:2504.06231 (2025)"
# Elements of the Materials Project's trajectories, and with them of Alexandria and OMat24: up to Pu, without five.
CRYSTALS = [s for s in SYMBOLS[1:95] if s not in ("Po", "At", "Rn", "Fr", "Ra")]
MOLECULES = list(SYMBOLS[1:84])  # OMol25: H to Bi


@dataclass(frozen=True)
class PublicFile:
    """One public model.

    Attributes:
        name: of the file, without its date and suffix.
        version: v2 or v3.
        output: conservative or direct.
        layers: interaction layers.
        max_neighbors: of its graph.
        data: key of ``DATA``.
        conditioning: whether charge and spin are inputs.
    """

    name: str
    version: str
    output: str
    layers: int
    max_neighbors: int
    data: str
    conditioning: bool = False

    def disagreement(self, trunk: TrunkConfig, *, truncated: bool) -> str:
        """What differs between this model and an architecture read from a file; empty if nothing."""
        names = ("version", "output", "conditioning", *(() if truncated else ("layers",)))
        pairs = {name: (getattr(self, name), getattr(trunk, name)) for name in names}
        return ", ".join(
            f"{k} {there} instead of {here}" for k, (here, there) in pairs.items() if here != there
        )


_MP = {
    "method": "DFT",
    "functional": "PBE",
    "hubbard_u": "PBE+U for oxides and fluorides, elements and values as in the Materials Project",
    "basis": "plane waves, 520 eV",
    "pseudopotentials": "PAW PBE",
    "code": "VASP",
    "spin": "collinear",
}
_MIXED = (
    "Energies are VASP's own, PBE and PBE+U frames mixed, without the corrections of the Materials Project."
)
# head name -> title, level of theory, elements, citation, notes
DATA: dict[str, tuple[str, LevelOfTheory, list[str], str, str | None]] = {
    "mptrj": ("MPtrj", LevelOfTheory(**_MP), CRYSTALS, V2, _MIXED),
    "mptrj_alexandria": ("MPtrj and Alexandria", LevelOfTheory(**_MP), CRYSTALS, V2, _MIXED),
    "mptrj_alexandria_d3": (
        "MPtrj and Alexandria with D3", LevelOfTheory(**_MP, dispersion="D3"), CRYSTALS, V2, _MIXED,
    ),
    "mpa": ("MPtrj and Alexandria, after OMat24", LevelOfTheory(**_MP), CRYSTALS, V3, _MIXED),
    "omat24": ("OMat24", LevelOfTheory(**_MP), CRYSTALS, V3, None),
    "omol25": (
        "OMol25",
        LevelOfTheory(method="DFT", functional="wB97M-V", basis="def2-TZVPD", code="ORCA"),
        MOLECULES,
        V3,
        "Trained on molecules without cell; charge and spin multiplicity are inputs.",
    ),
    "d3": (
        "D3 dispersion alone", LevelOfTheory(method="dispersion correction", functional="none", dispersion="D3"),
        CRYSTALS, V3, "A correction to be added to another model's energies, not a potential.",
    ),
    "d4": (
        "D4 dispersion alone", LevelOfTheory(method="dispersion correction", functional="none", dispersion="D4"),
        CRYSTALS, V3, "A correction to be added to another model's energies, not a potential.",
    ),
}  # fmt: skip
ALL = 120  # neighbours; stands for no limit below 6 Å

FILES = [
    PublicFile("orb-v2", "v2", "direct", 15, 20, "mptrj_alexandria"),
    PublicFile("orb-d3-v2", "v2", "direct", 15, 20, "mptrj_alexandria_d3"),
    PublicFile("orb-d3-sm-v2", "v2", "direct", 10, 20, "mptrj_alexandria_d3"),
    PublicFile("orb-d3-xs-v2", "v2", "direct", 5, 20, "mptrj_alexandria_d3"),
    PublicFile("orb-mptraj-only-v2", "v2", "direct", 15, 20, "mptrj"),
    *(
        PublicFile(f"orb-v3-{output}-{label}-{data}", "v3", output, 5, neighbors, head)
        for output in ("conservative", "direct")
        for label, neighbors in (("20", 20), ("inf", ALL))
        for data, head in (("omat", "omat24"), ("mpa", "mpa"))
    ),
    *(
        PublicFile(f"orb-v3-{output}-omol", "v3", output, 5, ALL, "omol25", conditioning=True)
        for output in ("conservative", "direct")
    ),
    *(
        PublicFile(f"separate-{kind}-{layers}layer", "v3", "direct", layers, ALL, kind)
        for kind in ("d3", "d4")
        for layers in (3, 5)
    ),
]


def recognise(filename: str) -> PublicFile | None:
    """The public model that a file's name means: ``orb-v2-20241011.ckpt``, with or without the date."""
    stem = re.sub(r"(-\d{8})?\.[a-z]+$", "", filename.lower().replace("_", "-"))
    return next((file for file in FILES if file.name == stem), None)


def head_facts(name: str, file: PublicFile | None, trunk: TrunkConfig) -> HeadConfig:
    """What is known of the data that a model was trained on, as the head called ``name``."""
    labels = (
        ["energy", "forces", "stress"] if trunk.stress and not trunk.conditioning else ["energy", "forces"]
    )
    if file is None:
        return HeadConfig(name=name, title="imported Orb model", level_of_theory=UNKNOWN, labels=labels)
    title, theory, elements, citation, notes = DATA[file.data]
    return HeadConfig(
        name=name,
        title=f"{title} ({file.name})",
        level_of_theory=theory,
        labels=labels,
        elements=list(elements),
        citation=citation,
        notes=notes,
    )
