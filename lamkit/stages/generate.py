"""Generate: structures to be labelled.

Supercells, all symmetry-distinct occupations of a disordered crystal, vacancies and substitutions, strained
cells and random displacements. Each structure that is read goes through these steps in this order; what comes of
one occupation is one group, so that a split never parts a structure from its own random copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic

from lamkit.config import InputPath, Model, write_yaml
from lamkit.console import log, table
from lamkit.crystal import disorder, occupations, symmetry
from lamkit.crystal.changes import Perturb, Strain, perturbed, strained, supercell
from lamkit.data.frame import Frame, from_atoms
from lamkit.data.selection import Limits, why_not
from lamkit.data.structure import check_all
from lamkit.errors import UserError
from lamkit.files import atomic_write
from lamkit.stages import parts
from lamkit.stages.engine import write_data
from lamkit.stages.structures import read_structures

if TYPE_CHECKING:
    from ase import Atoms

SHOWN = 20  # rows of the table on the screen
COLUMNS = ("name", "formula", "n_atoms", "space_group", "multiplicity")


class Occupations(Model):
    """Which of the possible occupations are made.

    Attributes:
        max: all symmetry-distinct ones are made if there are no more than this.
        n_random: how many are drawn at random where there are more; each with its weight in the random alloy.
        symprec: tolerance of the search for symmetry, Å.
    """

    max: int = pydantic.Field(1000, ge=1)
    n_random: int = pydantic.Field(100, ge=1)
    symprec: float = pydantic.Field(symmetry.SYMPREC, gt=0)


class Options(Model):
    """Options of the stage ``generate``.

    Attributes:
        structures: files that ASE reads (POSCAR, CIF with partial occupancies, extxyz ...) or data sets.
        supercell: repeats along the three axes, or nine numbers: a matrix, new axes by rows.
        sites: site → composition, for example ``{Ba: Ba4Na2Bi2, Ti: Ti7Zr1}``; X is a vacancy. A site is an
            element, or indices of atoms of the cell that is read (``0-3,8``). The numbers are proportions.
        vacancies: element → atoms taken out of the supercell.
        substitutions: ``OLD:NEW`` → atoms of the supercell that are replaced.
        occupations: how many of the possible ways are made.
        strain: strained copies.
        perturb: random copies.
        keep: keep the structures before strain and random displacements, too; without any of these they
            are all there is.
        limits: which structures are left out because atoms come too close.
        format: files to write besides the data set: one extxyz file, or a POSCAR for each structure.
        seed: of every random choice.
    """

    structures: list[InputPath] = pydantic.Field(min_length=1)
    supercell: list[int] = [1, 1, 1]
    sites: dict[str, str] = pydantic.Field(default={})
    vacancies: dict[str, pydantic.NonNegativeInt] = pydantic.Field(default={})
    substitutions: dict[str, pydantic.NonNegativeInt] = pydantic.Field(default={})
    occupations: Occupations = Occupations()
    strain: Strain = Strain()
    perturb: Perturb = Perturb()
    keep: bool = False
    limits: Limits = Limits()
    format: Literal["extxyz", "poscar"] = "extxyz"
    seed: int = pydantic.Field(0, ge=0)


@dataclass(frozen=True)
class Made:
    """One structure before strain and displacements.

    Attributes:
        name: unique in the run.
        atoms: the structure.
        multiplicity: how many equal occupations it stands for; 1 where nothing was shared out.
        source: file it comes from.
    """

    name: str
    atoms: Atoms
    multiplicity: int
    source: str


def run(options: Options, out: Path) -> dict[str, Any]:
    """Make the structures, and write them as the data set ``out/data`` and as files.

    Args:
        options: see :class:`Options`.
        out: run folder.

    Returns:
        Counts, a row per occupation, and the paths of what was written.
    """
    out = Path(out)
    if (out / "data").exists() or (out / parts.FINISHED).exists():
        raise UserError(f"{out}: holds structures already; give another --out")
    made, counts = make_all(options)
    frames, dropped = changed_copies(made, options)
    if not frames:
        raise UserError(
            f"no structure keeps to the limits ({dict(dropped)}); perturb or strain less, or widen 'limits'"
        )
    write_yaml(out / "config.yaml", options)
    rows = [_row(m, options.occupations.symprec) for m in made]
    files = write_structures(frames, out, options.format)
    atomic_write(out / "table.csv", _csv(rows))
    n_frames = write_data(frames, out / "data", None, "generated structures")
    log.info("%s", summary(rows))
    if dropped:
        log.warning("left out: %s", ", ".join(f"{n} ({reason})" for reason, n in dropped.items()))
    log.info("%d structures in %s and %s", n_frames, files, out / "data")
    return parts.finish(
        out,
        {
            "data": str(out / "data"),
            "files": files,
            "table": str(out / "table.csv"),
            "n_structures": len(made),
            "n_frames": n_frames,
            "dropped": dict(dropped),
            "occupations": counts,
            "structures": rows,
        },
    )


def make_all(options: Options) -> tuple[list[Made], list[dict[str, Any]]]:
    """Supercells and their occupations; and for each file how many occupations there are.

    Raises:
        UserError: a structure or a composition that cannot be used.
    """
    made: list[Made] = []
    counts = []
    for structure in read_structures(options.structures):
        check_all(structure.atoms, structure.where)
        try:
            found, count = occupy(structure.atoms, options)
        except UserError as error:
            raise UserError(f"{structure.where}: {error}") from None
        counts.append({"source": structure.source, **count})
        for atoms, multiplicity in found:
            number = f"{len(made):04d}"
            name = f"{number}-{atoms.get_chemical_formula(mode='metal', empirical=True)}"[:60]
            made.append(Made(name, atoms, multiplicity, structure.source))
    return made, counts


def occupy(parent: Atoms, options: Options) -> tuple[list[tuple[Atoms, int]], dict[str, Any]]:
    """All (or some) distinct occupations of a supercell with their multiplicities, and how many there are."""
    parent = disorder.number_parent(parent)
    atoms = supercell(parent, options.supercell)
    shared = disorder.find_pools(atoms, options.sites, options.vacancies, options.substitutions)
    sites, pools = disorder.pools_of(shared)
    if not pools:
        plain = disorder.occupy(atoms, sites, {})
        return [(plain, 1)], {"distinct": 1, "total": 1, "made": 1, "sampled": False}
    labels, precision = disorder.labels(atoms, shared), options.occupations.symprec
    group = symmetry.permutations(atoms, labels, sites, precision)
    of_parent = labels[np.unique(atoms.arrays[disorder.PARENT], return_index=True)[1]]
    turns = symmetry.turns(parent, of_parent, atoms, sites, precision)
    total, distinct = occupations.n_total(pools), occupations.n_distinct(pools, group)
    sampled = distinct > options.occupations.max
    if sampled:
        orbits = occupations.draw(pools, group, options.occupations.n_random, options.seed)
        orbits = occupations.joined(orbits, pools, group, turns)
        log.info(
            "%d distinct occupations of %d: %d of them are drawn at random (occupations.max %d)",
            distinct, total, len(orbits.occupations), options.occupations.max,
        )  # fmt: skip
    else:
        orbits = occupations.joined(occupations.enumerate_all(pools, group), pools, group, turns)
        distinct = len(orbits.occupations)
        log.info("%d occupations, %d of them distinct (%d operations)", total, distinct, len(group))
    made = [
        (disorder.occupy(atoms, sites, occupations.species(pools, occupation)), int(multiplicity))
        for occupation, multiplicity in zip(orbits.occupations, orbits.multiplicities, strict=True)
    ]
    count = {"distinct": distinct, "total": total, "made": len(made), "sampled": sampled}
    return made, {**count, "operations": len(group)}


def changed_copies(made: list[Made], options: Options) -> tuple[list[Frame], Counter[str]]:
    """Strained and perturbed copies of all structures, and why some were left out."""
    frames: list[Frame] = []
    dropped: Counter[str] = Counter()
    for one in made:
        for frame in _copies(one, options):
            reason = why_not(frame, options.limits)
            if reason is None:
                frames.append(replace(frame, step=len(frames)))
            else:
                dropped[reason] += 1
    return frames, dropped


def _copies(one: Made, options: Options) -> Iterator[Frame]:
    def frame(atoms: Atoms, change: str) -> Frame:
        return from_atoms(atoms, source=one.source, group=one.name, info={"change": change, "name": one.name})

    amplitudes, perturb = options.strain.amplitudes, options.perturb
    if (amplitudes or perturb.n) and not one.atoms.pbc.all() and (amplitudes or perturb.cell):
        log.debug("%s: only periodic axes are strained", one.name)
    if options.keep or not (amplitudes or perturb.n):
        yield frame(one.atoms, "none")
    for mode in options.strain.modes if amplitudes else []:
        for amplitude in amplitudes:
            yield frame(strained(one.atoms, mode, amplitude), f"strain {mode} {amplitude:+g}")
    rng = np.random.default_rng(parts.seed_for(options.seed, "perturb", one.name))
    for k in range(perturb.n):
        yield frame(perturbed(one.atoms, perturb, rng), f"perturbed {k}")


def write_structures(frames: list[Frame], out: Path, kind: str) -> str:
    """All structures for other programs; returns the path of the file or folder."""
    import io

    import ase.io

    from lamkit.data.frame import to_atoms

    images = []
    for frame in frames:
        atoms = to_atoms(frame)
        atoms.info = {"group": frame.group, **frame.info}
        images.append(atoms)
    if kind == "extxyz":
        stream = io.StringIO()
        ase.io.write(stream, images, format="extxyz")
        atomic_write(out / "structures.extxyz", stream.getvalue())
        return str(out / "structures.extxyz")
    for k, atoms in enumerate(images):
        stream = io.StringIO()
        ase.io.write(stream, atoms, format="vasp", direct=True, sort=True)
        title = f"{atoms.info['name']} {atoms.info['change']}"
        atomic_write(
            out / "poscar" / f"POSCAR-{k:04d}", f"{title}\n{stream.getvalue().partition(chr(10))[2]}"
        )
    return str(out / "poscar")


def _row(made: Made, symprec: float) -> dict[str, Any]:
    atoms = made.atoms
    group = symmetry.space_group(atoms, symprec) if atoms.pbc.all() else ""
    return {
        "name": made.name,
        "formula": atoms.get_chemical_formula(mode="metal"),
        "n_atoms": len(atoms),
        "space_group": group,
        "multiplicity": made.multiplicity,
        "source": made.source,
    }


def _csv(rows: list[dict[str, Any]]) -> str:
    import csv
    import io

    stream = io.StringIO()
    writer = csv.DictWriter(stream, [*COLUMNS, "source"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def summary(rows: list[dict[str, Any]]) -> str:
    """One line per occupation, the first ones where there are many."""
    text = table([[row[c] for c in COLUMNS] for row in rows[:SHOWN]], [c.replace("_", " ") for c in COLUMNS])
    return text + (f"\nand {len(rows) - SHOWN} more, in table.csv" if len(rows) > SHOWN else "")
