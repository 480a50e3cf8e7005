"""Which head has which data: names from YAML files, data sets from the user or from the shipped samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lamkit import presets
from lamkit.console import log
from lamkit.data.dataset import open_dataset
from lamkit.data.heads import HeadConfig, LevelOfTheory, load_head, open_or_convert_head
from lamkit.errors import UserError
from lamkit.stages import deepmd_systems
from lamkit.stages.deepmd_systems import Systems
from lamkit.train import launch

SAMPLE_HEADS = ("gfn2_molecules", "wb97x_molecules", "pbe_molecules", "pbe_oxides", "pbesol_oxides")
DOWNSTREAM_HEAD = "pbesol_bnbzto"
UNKNOWN = LevelOfTheory(method="unknown", functional="unknown")


def data_flags(items: Sequence[str], *, head: str | None = None) -> dict[str, str]:
    """``HEAD=DIR`` flags as a mapping; a bare ``DIR`` belongs to ``head``.

    Raises:
        UserError: no ``=``, or a head given twice.
    """
    found: dict[str, str] = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not equals or (Path(item).exists() and not Path(path).exists()):
            if head is None:
                raise UserError(f"--data {item}: expected HEAD=DIR, for example --data mptrj=data/mptrj")
            name, path = head, item
        if name in found:
            raise UserError(f"--data {item}: head '{name}' has data already ({found[name]})")
        found[name] = path
    return found


def head_of(name: str, data: str | Path | None) -> HeadConfig:
    """Facts of a head: its YAML where there is one, else the ``dataset.yaml`` of its data.

    Raises:
        UserError: neither is there.
    """
    known = presets.files("heads")
    if name in known or name.endswith((".yaml", ".yml")):
        return load_head(name)
    if data is None:
        load_head(name)  # raises, with a suggestion
    return _head_of_data(name, Path(str(data)))


def _head_of_data(name: str, path: Path) -> HeadConfig:
    facts = open_dataset(path / "train" if (path / "train").is_dir() else path).facts
    if facts.level_of_theory is None:
        log.warning("head %s: neither heads/%s.yaml nor %s says its level of theory", name, name, path)
    labels = [k for k in ("energy", "forces", "stress") if facts.labels.get(k)]
    return HeadConfig(
        name=name,
        title=facts.title or f"data of {path}",
        level_of_theory=facts.level_of_theory or UNKNOWN,
        labels=labels or ["energy"],
        energy_kind=facts.energy_kind,
        reference_prior=facts.reference_prior,
    )


def names(heads: Sequence[str] | None, data: Mapping[str, str | Systems]) -> list[str]:
    """Heads of a run: those that are named, else those of ``data``, else the shipped sample heads."""
    return list(data) or list(SAMPLE_HEADS) if heads is None else list(heads)


def gather(
    heads: Sequence[str] | None, data: Mapping[str, str | Systems], cache: Path
) -> dict[str, tuple[Path, HeadConfig]]:
    """Data set and facts of every head of a run.

    Args:
        heads: names; None takes those of ``data``, or the shipped sample heads where there are none.
        data: head → data set folder, or DeePMD systems.
        cache: where shipped sample data and DeePMD systems are converted to.

    Raises:
        UserError: an unknown head, a missing data set, or a head without data.
    """
    if heads is None and not data:
        log.info("no data named: using the sample data that come with LAMKit (--data HEAD=DIR for yours)")
    heads = names(heads, data)
    if unused := [name for name in data if name not in heads]:
        raise UserError(
            f"--data names {', '.join(unused)}, which --heads leaves out; drop it or add the head"
        )
    if len(set(heads)) < len(heads):
        raise UserError(f"a head is named twice: {', '.join(heads)}")
    with launch.turn(cache):  # of several machines
        return {head.name: (path, head) for path, head in (_place(n, data.get(n), cache) for n in heads)}


def _place(name: str, data: str | Systems | None, cache: Path) -> tuple[Path, HeadConfig]:
    """Data set and facts of one head."""
    path = str(deepmd_systems.convert(data, name, cache)) if isinstance(data, Systems) else data
    if path is not None and not Path(path).is_dir():
        raise UserError(f"{path}: no such data set (for head '{name}'); lamkit data convert makes one")
    head = head_of(name, path)
    return Path(path) if path is not None else open_or_convert_head(head, cache), head


def default_checkpoint(*runs: str) -> Path:
    """Newest of the default run folders that holds a checkpoint, else the sample model shipped with LAMKit.

    Raises:
        UserError: neither is there.
    """
    for run in runs:
        if (Path(run) / "checkpoints" / "best").is_dir():
            log.info("no checkpoint named: using %s (--from CKPT for another)", run)
            return Path(run)
    sample = presets.examples() / "model"
    if (sample / "model.safetensors").is_file():
        log.info("no checkpoint named: using the sample model that comes with LAMKit (--from CKPT for yours)")
        return sample
    raise UserError(f"no checkpoint named, and none in {' or '.join(runs)}; give one with --from CKPT")
