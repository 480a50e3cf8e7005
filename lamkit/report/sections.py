"""The sections of a report, made of runs that were read before (:mod:`lamkit.report.runs`).

Each function returns HTML and puts the figures that it draws into ``figures`` (name → PNG), so that they can
also be saved beside the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lamkit.console import duration
from lamkit.report import html, plots
from lamkit.report.plots import Curve
from lamkit.report.runs import ENERGY, FORCES, Data, Distillation, Evaluation, Training

Figures = dict[str, bytes]

PANELS = {"Force RMSE (meV/Å)": FORCES, "Energy RMSE (meV/atom)": ENERGY}
MAX_PARITY = 12  # heads drawn per evaluation
MILLI = ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse", "forces_rms_target")
SOFTWARE = [
    "Orb: M. Neumann et al., Orb: A Fast, Scalable Neural Network Potential, arXiv:2410.22570 (2024); "
    "B. Rhodes et al., Orb-v3: atomistic simulation at scale, arXiv:2504.06231 (2025)",
    "DPA-2 (multi-task pre-training, fine-tuning and distillation): D. Zhang et al., npj Computational "
    "Materials 10, 293 (2024)",
    "MindSpore: https://www.mindspore.cn",
    "ASE: A. H. Larsen et al., J. Phys.: Condens. Matter 29, 273002 (2017)",
]


def _add(figures: Figures, name: str, figure: Any, caption: str) -> str:
    figures[name] = plots.png(figure)
    return html.figure(figures[name], caption)


def data(sets: Sequence[Data]) -> str:
    """Each data set: frames kept and dropped, elements, level of theory."""
    rows = [
        [
            d.facts.get("head") or d.label,
            _count(d.report.get("kept", d.facts.get("n_frames"))),
            _count(_dropped(d)),
            _count(d.facts.get("n_atoms")),
            _elements(d.facts.get("elements") or []),
            _level(d.facts.get("level_of_theory")),
            ", ".join(f"{name} {_count(n)}" for name, n in (d.facts.get("labels") or {}).items()),
        ]
        for d in sets
    ]
    headers = ["data set", "kept", "dropped", "atoms", "elements", "level of theory", "frames with label"]
    parts = [html.table(headers, rows)]
    for d in sets:
        reasons = d.report.get("dropped") or {}
        if isinstance(reasons, Mapping) and reasons:
            parts.append(html.heading(f"Dropped from {d.facts.get('head') or d.label}"))
            parts.append(html.bullets([f"{_count(n)} × {reason}" for reason, n in reasons.items()]))
    return "".join(parts)


def _dropped(found: Data) -> int:
    reasons = found.report.get("dropped") or {}
    return sum(int(n) for n in reasons.values()) if isinstance(reasons, Mapping) else int(reasons)


def _elements(symbols: Sequence[str]) -> str:
    return " ".join(symbols) if len(symbols) <= 16 else f"{' '.join(symbols[:14])} … ({len(symbols)})"


def _level(level: Mapping[str, Any] | None) -> str:
    if not level:
        return "not stated"
    extra = [level.get("dispersion"), "+U" if level.get("hubbard_u") else None, level.get("code")]
    return " ".join(str(w) for w in (level.get("functional"), *extra) if w)


def training(
    runs: Sequence[Training], baselines: Mapping[str, float], figures: Figures, *, draw: bool = True
) -> str:
    """Learning curves of each run (unless ``draw`` is false) with the errors at its end."""
    parts = []
    for run in runs:
        if len(runs) > 1:
            parts.append(html.heading(run.label))
        panels = {
            title: [c for head in run.errors if (c := run.curve(head, column)) is not None]
            for title, column in PANELS.items()
        }
        panels = {title: curves for title, curves in panels.items() if curves}
        if not panels:
            parts.append(html.paragraph(f"{run.folder}: nothing validated yet.", note=True))
            continue
        known = {head: baselines[head] for head in run.errors if head in baselines}
        if draw:
            drawn = plots.learning_curves(panels, known)
            parts.append(_add(figures, f"curves-{run.label}", drawn, f"Validation errors of {run.label}."))
        parts.append(_ends(run, known))
    return "".join(parts)


def _ends(run: Training, baselines: Mapping[str, float]) -> str:
    rows = []
    for head in run.errors:
        forces, energy = run.curve(head, FORCES), run.curve(head, ENERGY)
        steps = [int(c.steps[-1]) for c in (forces, energy) if c is not None]
        rows.append(
            [
                head, max(steps, default=0), *(_number(f(forces)) for f in (_first, _last, _best)),
                _number(baselines.get(head)), _number(_first(energy)), _number(_last(energy)),
            ]
        )  # fmt: skip
    headers = ["head", "steps", "F first", "F last", "F best", "F of zero forces", "E first", "E last"]
    note = "F: force RMSE, meV/Å. E: energy RMSE, meV/atom."
    return html.table(headers, rows) + html.paragraph(f"{note} Wall time {duration(run.seconds)}.", note=True)


def comparison(finetuned: Training, scratch: Training, figures: Figures) -> str:
    """Fine-tuning against from-scratch at equal steps, for every head that both have."""
    parts, rows = [], []
    for head in finetuned.errors:
        pairs = {t: (finetuned.curve(head, c), _counterpart(scratch, head, c)) for t, c in PANELS.items()}
        panels = {
            title: [ours._replace(label="fine-tuned"), theirs._replace(label="from scratch")]
            for title, (ours, theirs) in pairs.items()
            if ours is not None and theirs is not None
        }
        if not panels:
            continue
        caption = f"Head {head}: fine-tuned and trained from scratch on the same data, at equal steps."
        parts.append(_add(figures, f"finetune-{head}", plots.learning_curves(panels), caption))
        rows += [[head, title, *equal_steps(*curves)] for title, curves in panels.items()]
    if not rows:
        return html.paragraph("The two runs have no validated head in common.", note=True)
    headers = ["head", "error", "at step", "fine-tuned", "from scratch", "ratio", "drawn level at step"]
    note = (
        "Best values on the validation part up to the step named. Drawn level: the step at which fine-tuning "
        "was as good as training from scratch ever became."
    )
    return html.table(headers, rows) + html.paragraph(note, note=True) + "".join(parts)


def _counterpart(run: Training, head: str, column: str) -> Curve | None:
    """The other run's curve of the same head, or of its only head (a scratch run may name it otherwise)."""
    if head not in run.errors and len(run.errors) == 1:
        head = next(iter(run.errors))
    return run.curve(head, column)


def equal_steps(ours: Curve, theirs: Curve) -> list[str]:
    """Best error of each up to the last step that both reached, their ratio, and the steps to draw level."""
    last = min(ours.steps[-1], theirs.steps[-1])
    best = [float(np.nanmin(c.values[c.steps <= last])) for c in (ours, theirs)]
    level = np.flatnonzero(ours.values <= best[1])
    reached = str(int(ours.steps[level[0]])) if level.size else "never"
    return [str(int(last)), _number(best[0]), _number(best[1]), f"{best[0] / best[1]:.2f}", reached]


def headline(finetuned: Training, scratch: Training) -> dict[str, str]:
    """The fine-tuning in two large numbers."""
    for head in finetuned.errors:
        ours, theirs = finetuned.curve(head, FORCES), _counterpart(scratch, head, FORCES)
        if ours is not None and theirs is not None:
            best = _number(_best(ours)), _number(_best(theirs))
            return {
                f"force RMSE of {head}, fine-tuned": f"{best[0]} meV/Å",
                "from scratch": f"{best[1]} meV/Å",
            }
    return {}


def distillation(found: Sequence[Distillation], figures: Figures) -> str:
    """Teacher against student: error and time, then the curve of the student's training."""
    parts = []
    for d in found:
        if len(found) > 1:
            parts.append(html.heading(d.label))
        models = models_of(d)
        rows = [
            [name, _milli(m.get("energy_mae")), _milli(m.get("forces_mae")), _milli(m.get("forces_rmse")),
             _number(m.get("us_per_atom")), _count(m.get("parameters"))]
            for name, m in models.items()
        ]  # fmt: skip
        if rows:
            headers = [
                "model",
                "E MAE (meV/atom)",
                "F MAE (meV/Å)",
                "F RMSE (meV/Å)",
                "µs/atom/step",
                "parameters",
            ]
            parts.append(html.table(headers, rows))
        known = {n: m for n, m in models.items() if m.get("forces_rmse") and m.get("us_per_atom")}
        if len(known) > 1:
            errors = [1000 * m["forces_rmse"] for m in known.values()]
            drawn = plots.speed_and_error(list(known), errors, [m["us_per_atom"] for m in known.values()])
            parts.append(
                _add(figures, f"speed-{d.label}", drawn, "Teacher and student on the same test frames.")
            )
        if d.student is not None:
            parts.append(training([d.student], {}, figures))
    return "".join(parts)


def models_of(found: Distillation) -> dict[str, Mapping[str, Any]]:
    """``teacher`` and ``student`` of a distillation's result, those that are there."""
    entries = {name: found.result.get(name) for name in ("teacher", "student")}
    return {name: entry for name, entry in entries.items() if isinstance(entry, Mapping)}


def speed_headline(found: Distillation) -> dict[str, str]:
    """How many times faster the student is, as a large number."""
    times = [m.get("us_per_atom") for m in models_of(found).values()]
    if len(times) == 2 and all(times):
        return {"student against teacher": f"{times[0] / times[1]:.1f}× faster"}
    return {}


def evaluations(found: Sequence[Evaluation], figures: Figures) -> str:
    """Errors of each evaluation with its parity plots."""
    rows = [
        [
            e.label, head, _count(r.get("n_frames")), *(_milli(r.get(k)) for k in MILLI),
            _number(r.get("forces_cosine")), _number(r.get("fwt_0.03")), _milli(r.get("stress_mae")),
        ]
        for e in found
        for head, r in e.errors.items()
    ]  # fmt: skip
    headers = [
        "evaluation", "head", "frames", "E MAE", "E RMSE", "F MAE", "F RMSE", "F of zero forces", "F cosine",
        "F<0.03", "S MAE",
    ]  # fmt: skip
    note = (
        "E: energy, meV/atom. F: force components, meV/Å; cosine averaged over atoms; F<0.03: part of the "
        "frames with every force component within 0.03 eV/Å. S: stress components, meV/Å³."
    )
    parts = [html.table(headers, rows), html.paragraph(note, note=True)]
    for e in found:
        for head in list(e.pairs)[:MAX_PARITY]:
            drawn = plots.parity({head: e.pairs[head]})
            parts.append(_add(figures, f"parity-{e.label}-{head}", drawn, f"{e.label}, head {head}."))
        if len(e.pairs) > MAX_PARITY:
            text = f"The other {len(e.pairs) - MAX_PARITY} heads of {e.label} are in {e.folder}/parity.npz."
            parts.append(html.paragraph(text, note=True))
    return "".join(parts)


def environment(versions: Mapping[str, Mapping[str, Any]]) -> str:
    """Versions of everything that numbers may depend on; one table where all runs agree."""
    distinct: dict[str, list[str]] = {}
    contents: dict[str, Mapping[str, Any]] = {}
    for run, content in versions.items():
        plain = {k: v for k, v in content.items() if k != "command"}
        key = repr(sorted(plain.items(), key=str))
        distinct.setdefault(key, []).append(run)
        contents[key] = plain
    parts = []
    for key, runs in distinct.items():
        if len(distinct) > 1:
            parts.append(html.heading(", ".join(runs)))
        parts.append(
            html.table(["", "version"], [[k, _text(v)] for k, v in contents[key].items() if v is not None])
        )
    return "".join(parts)


def citations(found: Mapping[str, Sequence[str]]) -> str:
    """What to cite: the data sets in use, then the software."""
    cited = [f"{', '.join(names)}: {text}" for text, names in found.items()]
    return html.bullets([*cited, *SOFTWARE])


def _text(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def _pick(curve: Curve | None, choose: Callable[[Any], Any]) -> float | None:
    if curve is None:
        return None
    known = curve.values[np.isfinite(curve.values)]
    return float(choose(known)) if known.size else None


def _first(curve: Curve | None) -> float | None:
    return _pick(curve, lambda v: v[0])


def _last(curve: Curve | None) -> float | None:
    return _pick(curve, lambda v: v[-1])


def _best(curve: Curve | None) -> float | None:
    return _pick(curve, np.min)


def _number(value: float | None) -> str:
    """Three significant digits, without powers of ten."""
    if value is None or not np.isfinite(value):
        return "–"
    digits = 0 if value == 0 else max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{min(digits, 6)}f}"


def _milli(value: float | None) -> str:
    return _number(None if value is None else 1000 * value)


def _count(value: Any) -> str:
    return "–" if value is None else f"{int(value):,}".replace(",", " ")
