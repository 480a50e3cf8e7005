"""The sections of a report, made of runs that were read before (:mod:`lamkit.report.runs`).

Each function returns HTML and puts the figures that it draws into ``figures`` (name → PNG), so that they can
also be saved beside the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lamkit.console import duration
from lamkit.report import dataset_page, html, plots
from lamkit.report.plots import Curve
from lamkit.report.retention import retention
from lamkit.report.runs import ENERGY, FORCES, Data, Distillation, Evaluation, Training
from lamkit.report.text import count, number

Figures = dict[str, bytes]

PANELS = {"Force RMSE (meV/Å)": FORCES, "Energy RMSE (meV/atom)": ENERGY}
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
            _data_name(d),
            count(d.report.get("kept", d.facts.get("n_frames"))),
            count(_dropped(d)),
            count(d.facts.get("n_atoms")),
            _elements(d.facts.get("elements") or []),
            _level(d.facts.get("level_of_theory")),
            ", ".join(f"{name} {count(n)}" for name, n in (d.facts.get("labels") or {}).items() if n),
        ]
        for d in sets
    ]
    headers = ["data set", "kept", "dropped", "atoms", "elements", "level of theory", "frames with label"]
    parts = [html.table(headers, rows)]
    for d in sets:
        reasons = d.report.get("dropped") or {}
        if isinstance(reasons, Mapping) and reasons:
            parts.append(html.heading(f"Dropped from {_data_name(d)}"))
            parts.append(html.bullets([f"{count(n)} × {reason}" for reason, n in reasons.items()]))
    told = ((d, dataset_page.details(d.report)) for d in sets)
    parts += [html.folded(f"{_data_name(d)}: files, elements, energies", text) for d, text in told if text]
    return "".join(parts)


def _data_name(found: Data) -> str:
    name = str(found.facts.get("head") or found.label)
    part = (found.facts.get("split") or {}).get("part")
    return f"{name}, part {part}" if part else name


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
        parts += [_ends(run, known), retention(run.result)]
    return "".join(parts)


def _ends(run: Training, baselines: Mapping[str, float]) -> str:
    rows = []
    for head in run.errors:
        forces, energy = run.curve(head, FORCES), run.curve(head, ENERGY)
        steps = [int(c.steps[-1]) for c in (forces, energy) if c is not None]
        rows.append(
            [
                head, max(steps, default=0), *(number(f(forces)) for f in (_first, _last, _best)),
                number(baselines.get(head)), number(_first(energy)), number(_last(energy)),
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
    return [str(int(last)), number(best[0]), number(best[1]), f"{best[0] / best[1]:.2f}", reached]


def headline(finetuned: Training, scratch: Training) -> dict[str, str]:
    """The fine-tuning in two large numbers."""
    for head in finetuned.errors:
        ours, theirs = finetuned.curve(head, FORCES), _counterpart(scratch, head, FORCES)
        if ours is not None and theirs is not None:
            best = number(_best(ours)), number(_best(theirs))
            return {
                f"force RMSE of {head}, fine-tuned": f"{best[0]} meV/Å",
                "from scratch": f"{best[1]} meV/Å",
            }
    return {}


def distillation(found: Sequence[Distillation], figures: Figures) -> str:
    """Teacher against student: rounds, error and time, then the curve of the student's training."""
    parts = []
    for d in found:
        if len(found) > 1:
            parts.append(html.heading(d.label))
        parts.append(_rounds(d.result.get("rounds") or []))
        parts.append(_models(d, figures))
        if d.student is not None:
            parts.append(training([d.student], {}, figures))
    return "".join(parts)


def _rounds(rounds: Sequence[Mapping[str, Any]]) -> str:
    """How each round of exploring and training ended on the held-out trajectories."""
    if not rounds:
        return ""
    rows = [
        [
            r.get("round"), count(r.get("candidates")), count(r.get("frames")), count(r.get("steps")),
            _milli(r.get("heldout_energy_rmse")), _milli(r.get("heldout_forces_rmse")), _milli(r.get("threshold")),
            "yes" if r.get("met") else "no",
        ]
        for r in rounds
    ]  # fmt: skip
    headers = ["round", "explored", "training frames", "steps", "E RMSE", "F RMSE", "criterion", "met"]
    note = "Student against teacher on trajectories that are never trained on; E in meV/atom, F in meV/Å."
    return html.table(headers, rows) + html.paragraph(note, note=True)


def _models(found: Distillation, figures: Figures) -> str:
    """Size, time and, where the data had labels of their own, true errors of teacher and student."""
    models = models_of(found)
    rows = [
        [
            name, count(m.get("parameters")), number(m.get("ms_per_step")), number(m.get("us_per_step_atom")),
            *(_milli(m.get(k)) for k in ("energy_mae", "forces_mae", "forces_rmse")),
        ]
        for name, m in models.items()
    ]  # fmt: skip
    if not rows:
        return ""
    headers = [
        "model", "parameters", "ms/step", "µs/step/atom", "E MAE (meV/atom)", "F MAE (meV/Å)", "F RMSE (meV/Å)",
    ]  # fmt: skip
    cell = found.result.get("speed", {})
    note = "Errors are against labels of the data, not against the teacher; empty where no labelled data were given."
    if cell.get("n_atoms"):
        note = f"Times: ASE MD of {cell['n_atoms']} atoms ({cell.get('formula')}). {note}"
    parts = [html.table(headers, rows), html.paragraph(note, note=True)]
    times = {name: m["us_per_step_atom"] for name, m in models.items() if m.get("us_per_step_atom")}
    errors = {name: 1000 * m["forces_rmse"] for name, m in models.items() if m.get("forces_rmse")}
    if len(times) > 1 and errors.keys() >= times.keys():
        drawn = plots.speed_and_error(list(times), [errors[n] for n in times], list(times.values()))
        parts.append(
            _add(figures, f"speed-{found.label}", drawn, "Teacher and student on the same labelled data.")
        )
    elif len(times) > 1:
        drawn = plots.bars(list(times), {"": list(times.values())}, "µs per atom and MD step")
        parts.append(_add(figures, f"speed-{found.label}", drawn, "Time of teacher and student."))
    return "".join(parts)


def models_of(found: Distillation) -> dict[str, dict[str, Any]]:
    """``teacher`` and ``student`` of a distillation with all that its result says of each."""
    result, models = found.result, {}
    for name in ("teacher", "student"):
        speed = (result.get("speed") or {}).get("models", {}).get(name) or {}
        errors = (result.get("true_labels") or {}).get(name) or {}
        size = (result.get("parameters") or {}).get(name)
        if speed or errors or size:
            models[name] = {**speed, **errors, "parameters": size}
    return models


def speed_headline(found: Distillation) -> dict[str, str]:
    """How many times faster the student is, as a large number."""
    ratio = (found.result.get("speed") or {}).get("ratio")
    return {"student against teacher, in MD": f"{ratio:.1f}× faster"} if ratio else {}


def evaluations(found: Sequence[Evaluation], figures: Figures) -> str:
    """Errors of each evaluation with its parity plots."""
    rows = [
        [
            e.label, head, count(r.get("n_frames")), *(_milli(r.get(k)) for k in MILLI),
            number(r.get("forces_cosine")), number(r.get("fwt_0.03")), _milli(r.get("stress_mae")),
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
        for head in list(e.pairs)[: plots.MAX_ROWS]:
            drawn = plots.parity({head: e.pairs[head]})
            parts.append(_add(figures, f"parity-{e.label}-{head}", drawn, f"{e.label}, head {head}."))
        if len(e.pairs) > plots.MAX_ROWS:
            text = (
                f"The other {len(e.pairs) - plots.MAX_ROWS} heads of {e.label} are in {e.folder}/parity.npz."
            )
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


def _milli(value: float | None) -> str:
    return number(None if value is None else 1000 * value)
