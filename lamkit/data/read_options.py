"""How to read files that do not say it themselves: names, units and signs, from flags or a head's YAML."""

from __future__ import annotations

from typing import Literal

from lamkit import config


class ReadOptions(config.Model):
    """How to read files that do not say it themselves.

    Attributes:
        energy_key: name of the energy in the file; null finds the usual ones.
        forces_key: name of the forces.
        stress_key: name of the stress.
        virial_key: name of the virial (minus volume times stress, in the energy unit).
        units: unit of energies; forces are in this unit per length unit.
        length_unit: unit of positions and cells.
        stress_unit: unit of stresses.
        stress_sign: ``tension`` (ASE: positive pulls inward) or ``compression`` (VASP, LAMMPS pressure).
        from_head: filled in by the program: which of the above a head's YAML gave; formats with keys and
            units of their own pass those over, while a flag that does not fit is an error.
    """

    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    virial_key: str | None = None
    units: Literal["eV", "kcal/mol", "kJ/mol", "Hartree", "Ry"] = "eV"
    length_unit: Literal["A", "Bohr", "nm"] = "A"
    stress_unit: Literal["eV/A^3", "GPa", "kbar", "bar"] = "eV/A^3"
    stress_sign: Literal["tension", "compression"] = "tension"
    from_head: tuple[str, ...] = ()

    @property
    def given(self) -> set[str]:
        """Names of the options that somebody set, to whatever value."""
        return self.model_fields_set - {"from_head"}

    def over(self, head: ReadOptions) -> ReadOptions:
        """These options, and those of a head's YAML where nothing is given here."""
        inherited = {name: getattr(head, name) for name in head.given - self.given}
        own = {name: getattr(self, name) for name in self.given}
        return ReadOptions(**own, **inherited, from_head=tuple(sorted(inherited)))

    def restricted(self, names: frozenset[str]) -> ReadOptions:
        """Only the options ``names``."""
        return ReadOptions(**{name: getattr(self, name) for name in self.given & names})


OPTION_NAMES = tuple(name for name in ReadOptions.model_fields if name != "from_head")
