"""Report: one self-contained HTML page of a workflow or of a folder of runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamkit import __version__, config
from lamkit.config import InputPath
from lamkit.console import duration, log
from lamkit.errors import UserError
from lamkit.files import atomic_write
from lamkit.report import html, runs, sections, workflow
from lamkit.report.runs import FORCES, Data, Evaluation


class Sections(config.Model):
    """Which folders a report is made of; each may be absent.

    Attributes:
        data: data sets, as ``convert`` wrote them.
        pretrain: run folder of the pre-training.
        finetune: run folder of the fine-tuning.
        scratch: run folder of the same training from random weights, to compare with.
        distill: run folder of the distillation.
        evaluate: folders that ``evaluate`` wrote.
    """

    data: list[InputPath] = []
    pretrain: InputPath | None = None
    finetune: InputPath | None = None
    scratch: InputPath | None = None
    distill: InputPath | None = None
    evaluate: list[InputPath] = []


class Options(config.Model):
    """Options of the stage ``report``.

    Attributes:
        title: heading of the page.
        folder: folder in which every run is looked for; null where ``sections`` names them.
        sections: folders by what they hold.
    """

    title: str = "LAMKit report"
    folder: InputPath | None = None
    sections: Sections = Sections()


class Found:
    """Everything that goes into the report, read once.

    Args:
        folders: kind → folders.
    """

    def __init__(self, folders: dict[runs.Kind, list[Path]]) -> None:
        self.folders = folders
        self.data: list[Data] = [runs.read_data(f) for f in folders.get("data", [])]
        self.pretrain = [runs.read_training(f) for f in folders.get("pretrain", [])]
        self.finetune = [runs.read_training(f) for f in folders.get("finetune", [])]
        self.scratch = [runs.read_training(f) for f in folders.get("scratch", [])]
        self.distill = [runs.read_distillation(f) for f in folders.get("distill", [])]
        self.evaluate: list[Evaluation] = [runs.read_evaluation(f) for f in folders.get("evaluate", [])]

    @property
    def all_folders(self) -> list[Path]:
        """Every folder, without repetition."""
        return list(dict.fromkeys(f for folders in self.folders.values() for f in folders))

    @property
    def baselines(self) -> dict[str, float]:
        """Head → force RMSE of a model of zero forces in meV/Å, where a run tells it."""
        trainings = [*self.pretrain, *self.finetune, *self.scratch]
        tables = [*(e.errors for e in self.evaluate), *(t.result.get("heads", {}) for t in trainings)]
        return {
            head: 1000 * errors["forces_rms_target"]
            for table in tables
            for head, errors in table.items()
            if errors.get("forces_rms_target")
        }


def run(options: Options, out: Path) -> dict[str, Any]:
    """Write ``report.html`` and ``figures/*.png``.

    Args:
        options: see :class:`Options`.
        out: folder to write.

    Returns:
        ``report`` and ``figures``, the files written.
    """
    return write(options, Path(out) / "report.html")


def write(options: Options, file: Path) -> dict[str, Any]:
    """Write the report as ``file``, the figures in ``figures/`` beside it.

    Raises:
        UserError: there is nothing to report.
    """
    found = Found(_folders(options))
    if not found.all_folders:
        raise UserError(
            f"{options.folder or 'sections'}: no run to report: expected folders with metrics.csv (training), "
            "parity.npz (evaluate --out) or dataset.yaml (data convert)"
        )
    figures: sections.Figures = {}
    parts = compose(found, figures, file.parent)
    # a report that is a stage of a workflow lies in a folder of that workflow
    root = Path(options.folder) if options.folder else file.parent.parent
    if flow := workflow.section(root, file.parent):
        parts.insert(1, html.Section("Workflow", flow))
    subtitle = f"{Path(options.folder or file.parent).resolve()} · LAMKit {__version__}"
    for name, png in figures.items():
        atomic_write(file.parent / "figures" / f"{name}.png", png)
    atomic_write(file, html.page(options.title, subtitle, parts))
    log.info("report: %s (%d figures in %s)", file, len(figures), file.parent / "figures")
    return {"report": str(file), "figures": [str(file.parent / "figures" / f"{n}.png") for n in figures]}


def _folders(options: Options) -> dict[runs.Kind, list[Path]]:
    """Folders by kind, as named or as found."""
    if options.folder is not None:
        folder = Path(options.folder)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give a run folder or a workflow folder")
        return runs.find(folder)
    named: dict[runs.Kind, list[Path]] = {
        "data": [Path(p) for p in options.sections.data],
        "evaluate": [Path(p) for p in options.sections.evaluate],
    }
    for kind in ("pretrain", "finetune", "scratch", "distill"):
        path = getattr(options.sections, kind)
        named[kind] = [Path(path)] if path is not None else []
    missing = [str(p) for folders in named.values() for p in folders if not p.is_dir()]
    if missing:
        raise UserError(f"sections: no such folder: {', '.join(missing)}")
    return named


def compose(found: Found, figures: sections.Figures, base: Path) -> list[html.Section]:
    """The sections of a page in the folder ``base``, those without content left out."""
    parts = [html.Section("Summary", _summary(found, base))]
    if found.data:
        parts.append(html.Section("Data", sections.data(found.data)))
    if found.pretrain:
        body = sections.training(found.pretrain, found.baselines, figures)
        parts.append(html.Section("Pre-training", body))
    if found.finetune or found.scratch:
        parts.append(html.Section("Fine-tuning", _finetuning(found, figures)))
    if found.distill:
        parts.append(html.Section("Distillation", sections.distillation(found.distill, figures)))
    if found.evaluate:
        parts.append(html.Section("Evaluation", sections.evaluations(found.evaluate, figures)))
    if versions := runs.versions(found.all_folders):
        parts.append(html.Section("Environment", sections.environment(versions)))
    parts.append(html.Section("How to cite", sections.citations(runs.citations(found.all_folders))))
    return parts


def _finetuning(found: Found, figures: sections.Figures) -> str:
    compared = bool(found.finetune and found.scratch)
    body = sections.comparison(found.finetune[0], found.scratch[0], figures) if compared else ""
    return body + sections.training(
        [*found.finetune, *found.scratch], found.baselines, figures, draw=not compared
    )


def _summary(found: Found, base: Path) -> str:
    """A few numbers that a reader wants first, then a line for each run."""
    numbers: dict[str, str] = {}
    frames = sum(int(d.facts.get("n_frames") or 0) for d in found.data)
    if frames:
        numbers["labelled frames"] = f"{frames:,}".replace(",", " ")
    if found.pretrain:
        numbers["heads on one trunk"] = str(max(len(t.errors) for t in found.pretrain))
    if found.finetune and found.scratch:
        numbers |= sections.headline(found.finetune[0], found.scratch[0])
    for distilled in found.distill[:1]:
        numbers |= sections.speed_headline(distilled)
    return (html.cards(numbers) if numbers else "") + _runs(found, base)


def _runs(found: Found, base: Path) -> str:
    """A table of every run; folders relative to the page, which travels with them."""
    rows: list[Sequence[object]] = []
    for kind in ("pretrain", "finetune", "scratch"):
        for run in getattr(found, kind):
            curves = [c for head in run.errors if (c := run.curve(head, FORCES)) is not None]
            steps = max((int(c.steps[-1]) for c in curves), default="")
            rows.append([kind, run.label, len(run.errors), steps, duration(run.seconds), run.folder])
    for distilled in found.distill:
        time = duration(distilled.seconds) if distilled.seconds else ""
        rows.append(["distill", distilled.label, 1, "", time, distilled.folder])
    rows += [["evaluate", e.label, len(e.errors), "", "", e.folder] for e in found.evaluate]
    rows = [[*row[:-1], os.path.relpath(str(row[-1]), base)] for row in rows]
    return html.table(["stage", "run", "heads", "steps", "wall time", "folder"], rows) if rows else ""
