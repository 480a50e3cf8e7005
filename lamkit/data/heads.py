"""Heads: what one data set is (level of theory, labels, source, loss weights), from ``heads/*.yaml``."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from lamkit import config, presets
from lamkit.data.frame import NUMBERS
from lamkit.data.quality_settings import Checks
from lamkit.data.read_options import ReadOptions
from lamkit.errors import UserError, suggest
from lamkit.files import sha256


class LevelOfTheory(config.Model):
    """How the labels were computed. Labels of two levels of theory never share a head.

    Attributes:
        method: family, for example ``DFT``.
        functional: for example ``PBE``, ``SCAN``, ``wB97X``.
        hubbard_u: values of U, or a sentence; null without.
        dispersion: correction, for example ``D3(BJ)``; null without.
        basis: basis set or plane-wave cutoff.
        pseudopotentials: for example ``PAW PBE``.
        code: program, with version where known.
        spin: treatment of spin.
    """

    method: str
    functional: str
    hubbard_u: str | dict[str, float] | None = None
    dispersion: str | None = None
    basis: str | None = None
    pseudopotentials: str | None = None
    code: str | None = None
    spin: str | None = None


class Source(config.Model):
    """Where the data of a head come from.

    Attributes:
        format: reader, as in ``lamkit data convert --format``; null means found out.
        reading: names, units and signs in the files, where they do not state them; flags go before.
        path: sample data shipped with LAMKit, relative to ``examples/``; null if none is shipped.
        url: download address.
        mirrors: other addresses of the same file, tried in order where the first fails.
        filename: name of the file to download.
        size_bytes: its size.
        sha256: its checksum.
        md5: its checksum, where the publisher gives only that.
        unpack: it is an archive (tar or zip) to be unpacked.
        licence: licence of the data.
        how: a sentence on how to get the data.
    """

    format: str | None = None
    reading: ReadOptions = ReadOptions()
    path: str | None = None
    url: str | None = None
    mirrors: list[str] = Field(default_factory=list)
    filename: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    unpack: bool = False
    licence: str | None = None
    how: str | None = None


class LossWeights(config.Model):
    """Default weights of the loss terms of one head.

    Attributes:
        energy: weight of the energy per atom.
        forces: weight of the forces.
        stress: weight of the stress.
    """

    energy: float = Field(default=1.0, ge=0)
    forces: float = Field(default=1.0, ge=0)
    stress: float = Field(default=0.1, ge=0)


class HeadConfig(config.Model):
    """One head, as written in ``heads/<name>.yaml``.

    Attributes:
        name: name of the head; the same as the file's.
        title: one line for people.
        level_of_theory: how the labels were computed.
        labels: labels that the data hold.
        energy_kind: which energy the label is, for example ``free energy (TOTEN)``.
        elements: symbols that occur; null if not listed.
        source: where the data come from.
        reference_prior: energy per atom of elements in eV, toward which the fitted reference is drawn.
        loss: default weights of the loss.
        checks: which quality checks are made on its frames, and with what limits.
        citation: what to cite.
        notes: anything a user should know.
    """

    name: str
    title: str = ""
    level_of_theory: LevelOfTheory
    labels: list[Literal["energy", "forces", "stress"]] = Field(default=["energy", "forces"])
    energy_kind: str | None = None
    elements: list[str] | None = None
    source: Source = Source()
    reference_prior: dict[str, float] | None = None
    loss: LossWeights = LossWeights()
    checks: Checks = Checks()
    citation: str | list[str] | None = None
    notes: str | list[str] | None = None

    @field_validator("elements", "reference_prior")
    @classmethod
    def _known_elements(cls, value: list[str] | dict[str, float] | None) -> object:
        for symbol in value or ():
            if symbol not in NUMBERS:
                raise ValueError(f"'{symbol}' is no element symbol.{suggest(symbol, NUMBERS)}")
        return value

    def prior(self) -> NDArray[np.float64] | None:
        """``reference_prior`` by atomic number, eV, shape ``[119]``, NaN where not given; None if absent."""
        if self.reference_prior is None:
            return None
        prior = np.full(119, np.nan)
        for symbol, energy in self.reference_prior.items():
            prior[NUMBERS[symbol]] = energy
        return prior


def load_head(name: str) -> HeadConfig:
    """The head of a name (or of a path to a YAML file).

    Raises:
        UserError: no such head, or its YAML is wrong.
    """
    return config.load(HeadConfig, presets.find("heads", name))


def source_path(head: HeadConfig) -> Path:
    """File or folder that holds the head's data as shipped.

    Raises:
        UserError: the data are not here; the message says how to get them.
    """
    if head.source.path is not None:
        path = presets.sample_data() / head.source.path
        if path.exists():
            return path
    raise UserError(
        f"head {head.name}: its data are not here. {how_to_get(head)}\n"
        f"Then: lamkit data convert FILES --head {head.name} --out DIR, and pass --data {head.name}=DIR"
    )


def how_to_get(head: HeadConfig) -> str:
    """Where to download a head's data: address, size, licence, in a sentence or two."""
    source = head.source
    parts = [source.how.strip()] if source.how else []
    if source.url:
        size = f" ({_size(source.size_bytes)})" if source.size_bytes else ""
        parts.append(f"Download {source.filename or 'the data'}{size} from {source.url}.")
    if source.licence:
        parts.append(f"Licence: {source.licence}.")
    return (
        " ".join(parts) or f"No source is given in the head's YAML file ({presets.find('heads', head.name)})."
    )


def _size(n_bytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.3g} {unit}"
    return f"{n_bytes} bytes"


def open_or_convert_head(head: HeadConfig, cache: Path) -> Path:
    """Data set of a head's shipped sample data, converted into ``cache`` the first time.

    The folder's name holds a hash of the source, so that changed sample data are converted again.

    Args:
        head: the head.
        cache: folder for converted data sets.

    Returns:
        Path of the data set.

    Raises:
        UserError: no data are shipped for this head.
    """
    from lamkit.stages import convert

    source = source_path(head)
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    stamp = "".join(sha256(p) for p in files)
    out = Path(cache) / f"{head.name}-{hashlib.sha256(stamp.encode()).hexdigest()[:8]}"
    if (out / "dataset.yaml").is_file():
        return out
    if out.exists():  # left by something else than a conversion, which is all or nothing
        shutil.rmtree(out)
    options = convert.Options(sources=[str(source)], format=head.source.format or "auto", head=head.name)
    convert.convert(options, out)
    return out
