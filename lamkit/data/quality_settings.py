"""The ``checks:`` block of a head: which quality checks are made, and with what limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lamkit import config


def _yaml_off(value: Any) -> Any:
    """YAML reads a bare ``off`` as false."""
    return "off" if value is False else value


Action = Annotated[Literal["reject", "flag", "off"], BeforeValidator(_yaml_off)]
MaskAction = Annotated[Literal["mask", "reject", "flag", "off"], BeforeValidator(_yaml_off)]


class Limits(config.Model):
    """Two limits; null switches one off.

    Attributes:
        flag: beyond it a frame is kept and named in the report.
        reject: beyond it a frame is left out and named in the report.
    """

    flag: float | None = Field(default=None, ge=0)
    reject: float | None = Field(default=None, ge=0)


class Checks(config.Model):
    """What is checked on every frame. ``reject`` leaves a frame out, ``flag`` keeps it; both are reported.

    A group of limits may be given in part, the rest keeps its default; ``off`` switches it off.

    Attributes:
        scf: electronic steps did not converge (VASP 6: what it says; VASP 5: NELM reached).
        non_self_consistent: the density was kept fixed (ICHARG of 10 and more).
        machine_learned: labels of a machine-learned force field instead of DFT.
        functional: functional that was used against that of the head; a meta-GGA asked for that did not run.
        hubbard_u: values of U that were used against those of the head.
        dispersion: dispersion correction that was used against that of the head.
        empty: energy and all forces exactly zero.
        isif1: stress of VASP's ISIF = 1, of which only the trace is computed.
        missing_stress: periodic frame without stress; the loss masks it.
        charge: charged cell, whose energy depends on the background.
        core_hole: excited state with a core hole.
        fixed_atoms: some atoms were held fixed; their raw forces are labels all the same.
        doubt: the reader had a doubt, such as two runs that wrote into one file.
        energy: energy per atom, eV, above zero.
        energy_floor: energy as a multiple of the all-electron energy of the free atoms, below which no energy in
            eV can lie (kcal/mol gives 23).
        forces: largest force, eV/Å.
        stress: largest component of the stress, eV/Å³ (1 eV/Å³ is 160 GPa).
        net_force: length of the sum of all forces over the number of atoms, eV/Å.
        contact: distance of two atoms over the sum of their covalent radii; below the limits.
        duplicate: the same frame again, in these files or in a data set that they are compared with.
        energy_outlier: energy per atom after the composition fit, in robust standard deviations (whole data set).
        work: along trajectories, energy differences against the work of forces and stress (whole data set).
        scales: medians of the labels that speak for another unit (whole data set).
    """

    scf: Action = "reject"
    non_self_consistent: Action = "reject"
    machine_learned: Action = "reject"
    functional: Action = "reject"
    hubbard_u: Action = "reject"
    dispersion: Action = "reject"
    empty: Action = "reject"
    isif1: MaskAction = "mask"
    missing_stress: Action = "flag"
    charge: Action = "flag"
    core_hole: Action = "flag"
    fixed_atoms: Action = "flag"
    doubt: Action = "flag"
    energy: Limits = Limits(flag=10.0, reject=100.0)
    energy_floor: Limits = Limits(flag=1.1, reject=1.5)
    forces: Limits = Limits(flag=50.0, reject=1000.0)
    stress: Limits = Limits(flag=1.0, reject=60.0)
    net_force: Limits = Limits(flag=0.1)
    contact: Limits = Limits(flag=0.6, reject=0.4)
    duplicate: Action = "reject"
    energy_outlier: Limits = Limits(flag=10.0)
    work: Annotated[Literal["flag", "off"], BeforeValidator(_yaml_off)] = "flag"
    scales: Annotated[Literal["flag", "off"], BeforeValidator(_yaml_off)] = "flag"

    @model_validator(mode="before")
    @classmethod
    def _complete_limits(cls, given: Any) -> Any:
        """A group of limits that is given in part keeps the other default; ``off`` is both off."""
        if not isinstance(given, dict):
            return given
        result = dict(given)
        for name, value in given.items():
            field = cls.model_fields.get(name)
            if field is None or not isinstance(field.default, Limits):
                continue
            if value is False or value == "off":
                result[name] = {"flag": None, "reject": None}
            elif isinstance(value, dict):
                result[name] = {**field.default.model_dump(), **value}
        return result
