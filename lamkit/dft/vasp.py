"""VASP: energy, forces and stress of one frame from an INCAR and a library of POTCARs."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pydantic

from lamkit.config import InputPath, Model
from lamkit.data.formats import Dropped, Remark
from lamkit.data.formats.reading import ReadOptions
from lamkit.data.formats.vasp import read_outcar
from lamkit.data.frame import SYMBOLS, Frame
from lamkit.data.heads import LevelOfTheory
from lamkit.errors import UserError

# Tags whose values go by species or atom: VASP takes them in the order of the POSCAR, which differs by frame.
BY_ORDER = ("MAGMOM", "LDAUL", "LDAUU", "LDAUJ")
_TAG = re.compile(r"^\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")


class Ldau(Model):
    """On-site repulsion of one element, as VASP's LDAUL, LDAUU and LDAUJ.

    Attributes:
        l: angular momentum: 1 p, 2 d, 3 f.
        u: eV.
        j: eV.
    """

    l: int = pydantic.Field(2, ge=0, le=3)  # noqa: E741  (VASP's own name)
    u: float
    j: float = 0.0


class Vasp(Model):
    """Labels by VASP.

    Attributes:
        command: how VASP is called in the folder of a task, for example ``mpirun -n 32 vasp_std``.
        incar: INCAR of a single point; what goes by atom or species is set below.
        potcars: folder of POTCARs: ``NAME/POTCAR``, ``POTCAR.NAME`` or ``POTCAR_NAME``, also with ``.gz``.
        potentials: element → name in that folder where it is not the element's own: ``{Ba: Ba_sv}``.
        kpoints: mesh, written as KPOINTS.
        kspacing: instead, VASP's KSPACING, 1/Å (with 2π). With neither, the INCAR has to give it.
        gamma: the mesh holds the zone centre.
        magmoms: element → magnetic moment to start from, µB; makes MAGMOM.
        ldau: element → on-site repulsion; makes the lists that go by species.
    """

    name: ClassVar[str] = "VASP"
    command: str = "vasp_std"
    incar: InputPath
    potcars: str
    potentials: dict[str, str] = pydantic.Field(default={})
    kpoints: list[pydantic.PositiveInt] | None = pydantic.Field(None, min_length=3, max_length=3)
    kspacing: float | None = pydantic.Field(None, gt=0)
    gamma: bool = True
    magmoms: dict[str, float] = pydantic.Field(default={})
    ldau: dict[str, Ldau] = pydantic.Field(default={})

    def check(self) -> None:
        """Look at the INCAR; the library of POTCARs may be on another machine.

        Raises:
            UserError: it is no single point, has tags that go by species, or there are no k-points.
        """
        tags = read_incar(self.incar)
        moves = tags.get("NSW", "0").split()[:1]
        if moves and moves[0] not in ("0", "1"):
            raise UserError(f"{self.incar}: NSW = {moves[0]}; a label is a single point: NSW = 0")
        listed = [tag for tag in BY_ORDER if tag in tags]
        if listed:
            raise UserError(
                f"{self.incar}: {listed[0]} goes by the order of atoms or species, which differs from frame to "
                "frame; take it out and set vasp.magmoms or vasp.ldau by element"
            )
        if self.kpoints is not None and self.kspacing is not None:
            raise UserError("vasp: give kpoints or kspacing, not both")
        if self.kpoints is None and self.kspacing is None and "KSPACING" not in tags:
            raise UserError(f"vasp: no k-points; give kspacing or kpoints, or KSPACING in {self.incar}")

    def order(self, frame: Frame) -> list[int]:
        """Atoms grouped by element, elements in the order in which they first occur."""
        first: dict[int, int] = {}
        for z in frame.numbers.tolist():
            first.setdefault(z, len(first))
        return sorted(range(len(frame)), key=lambda i: (first[int(frame.numbers[i])], i))

    def species(self, frame: Frame) -> list[tuple[str, int]]:
        """Elements in the order of the POSCAR with their numbers of atoms."""
        counts: dict[str, int] = {}
        for z in frame.numbers.tolist():
            counts[SYMBOLS[z]] = counts.get(SYMBOLS[z], 0) + 1
        return list(counts.items())

    def inputs(self, frame: Frame) -> dict[str, bytes]:
        """POSCAR, INCAR, POTCAR and, with ``kpoints``, KPOINTS.

        Raises:
            UserError: no POTCAR of an element, or a frame that is not periodic.
        """
        if not frame.pbc.all():
            raise UserError(f"{frame.source}, step {frame.step}: VASP needs a cell with three periodic axes")
        species = self.species(frame)
        files = {
            "POSCAR": self.poscar(frame).encode(),
            "INCAR": self.incar_text(species).encode(),
            "POTCAR": b"".join(self.potcar(symbol) for symbol, _ in species),
        }
        if self.kpoints is not None:
            style = "Gamma" if self.gamma else "Monkhorst-Pack"
            files["KPOINTS"] = f"mesh\n0\n{style}\n{' '.join(map(str, self.kpoints))}\n".encode()
        return files

    def poscar(self, frame: Frame) -> str:
        """POSCAR in Cartesian coordinates, Å."""
        species = self.species(frame)
        rows = [frame.cell[k] for k in range(3)], frame.positions[self.order(frame)]
        cell, positions = ("\n".join(" ".join(f"{x:.16f}" for x in row) for row in part) for part in rows)
        names = " ".join(symbol for symbol, _ in species)
        counts = " ".join(str(n) for _, n in species)
        return f"frame\n1.0\n{cell}\n{names}\n{counts}\nCartesian\n{positions}\n"

    def incar_text(self, species: list[tuple[str, int]]) -> str:
        """The INCAR with what is set here in place of what it says."""
        ours: dict[str, str] = {}
        if self.kspacing is not None:
            ours |= {"KSPACING": f"{self.kspacing:g}", "KGAMMA": ".TRUE." if self.gamma else ".FALSE."}
        if self.magmoms:
            ours["MAGMOM"] = " ".join(f"{n}*{self.magmoms.get(symbol, 0.0):g}" for symbol, n in species)
        if any(symbol in self.ldau for symbol, _ in species):
            off = Ldau(l=0, u=0.0)
            blocks = [self.ldau.get(symbol) for symbol, _ in species]
            ours |= {
                "LDAU": ".TRUE.",
                "LDAUL": " ".join(str(b.l) if b else "-1" for b in blocks),
                "LDAUU": " ".join(f"{(b or off).u:g}" for b in blocks),
                "LDAUJ": " ".join(f"{(b or off).j:g}" for b in blocks),
            }
        gone = {*ours, *(("KSPACING", "KGAMMA") if self.kpoints is not None else ())}
        tags = {tag: value for tag, value in read_incar(self.incar).items() if tag not in gone} | ours
        return "".join(f"{tag} = {value}\n" for tag, value in tags.items())

    def potcar(self, symbol: str) -> bytes:
        """The POTCAR of an element.

        Raises:
            UserError: none is there.
        """
        name, folder = self.potentials.get(symbol, symbol), Path(self.potcars)
        if not folder.is_dir():
            raise UserError(f"vasp.potcars: {folder}: no such folder")
        tried = [folder / part for part in (f"{name}/POTCAR", f"POTCAR.{name}", f"POTCAR_{name}", name)]
        for path in tried:
            for file in (path, path.with_name(path.name + ".gz")):
                if file.is_file():
                    content = file.read_bytes()
                    return gzip.decompress(content) if file.suffix == ".gz" else content
        near = sorted(p.name for p in folder.glob(f"*{symbol}*"))[:8]
        raise UserError(
            f"no POTCAR of {symbol} in {folder}: neither {name}/POTCAR nor POTCAR.{name} nor POTCAR_{name}; "
            f"name it under vasp.potentials{f' (there are {chr(44).join(near)})' if near else ''}"
        )

    def script(self) -> list[str]:
        """One call; an output of an earlier start must not be taken for one of this."""
        return ["rm -f OUTCAR vasprun.xml", self.command]

    def products(self) -> list[str]:
        """What is read, and the other output that people look at."""
        return ["OUTCAR"]

    def read(self, folder: Path) -> Iterator[Frame | Dropped | Remark]:
        """Frames of the OUTCAR."""
        file = folder / "OUTCAR"
        if not file.is_file():
            raise UserError("VASP wrote no OUTCAR")
        return read_outcar(file, str(file), ReadOptions())

    def rubbish(self) -> list[str]:
        """Wave functions and densities."""
        return ["WAVECAR", "CHG", "CHGCAR", "PROCAR", "DOSCAR", "vaspout.h5"]

    def level(self) -> LevelOfTheory:
        """From the INCAR; the functional is what the OUTCAR says."""
        cutoff = read_incar(self.incar).get("ENCUT")
        return LevelOfTheory(
            method="DFT",
            functional="as VASP's OUTCAR",
            basis=f"plane waves, {cutoff} eV" if cutoff else "plane waves",
            pseudopotentials="PAW",
            code="VASP",
        )


def read_incar(path: str) -> dict[str, str]:
    """Tags of an INCAR in capitals, in their order; the first of two wins, as in VASP.

    Raises:
        UserError: it cannot be read.
    """
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    tags: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"[#!]", line, maxsplit=1)[0].split(";"):
            found = _TAG.match(part)
            if found:
                tags.setdefault(found[1].upper(), found[2])
    return tags
