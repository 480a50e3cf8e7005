"""What the terminal says of a conversion, of a data set, and of several beside each other."""

from __future__ import annotations

import os
from typing import Any

from lamkit.console import table
from lamkit.data.formats import words_on_passed_over
from lamkit.report.text import count, number, share

FILES_SHOWN = 40
LEVELS_SHOWN = 8
WIDTH = 32  # of a cell that holds a sentence
CONTENT = {  # distribution in report.json → title
    "force": "force on an atom, eV/Å",
    "pressure": "pressure, eV/Å³",
    "volume_per_atom": "volume per atom, Å³",
    "nearest": "nearest atom, Å",
}


def conversion(content: dict[str, Any]) -> str:
    """The tables at the end of a conversion; ``content`` is what ``report.json`` holds."""
    parts = [_files(content)]
    for name, title in (("dropped", "frames dropped, and why"), ("remarks", "frames kept, with a flag")):
        if content[name]:
            rows = [(n, reason, _first_steps(content, name, reason)) for reason, n in content[name].items()]
            parts.append(table(rows, ("frames", title, "first of them")))
    if content["ignored"]:
        parts.append("files passed over:\n  " + "\n  ".join(words_on_passed_over(content["ignored"])))
    parts += [f"warning: {f['reason']}" for f in content["findings"] if f["reason"] not in content["remarks"]]
    result = content["statistics"]
    parts.append(_distributions({**result["distributions"], "nearest": result["distances"]}))
    if level := _level(content):
        parts.append(level)
    if reference := result.get("reference"):
        parts.append(_reference(reference))
    total = content["kept"] + sum(content["dropped"].values())
    parts.append(
        f"{content['path']}: {count(content['kept'])} frames kept of {count(total)} "
        f"({share(content['kept'], total)}); see report.html, report.csv (every frame that was dropped or "
        "flagged) and report.json in it"
    )
    return "\n\n".join(parts)


def _files(content: dict[str, Any]) -> str:
    files = sorted(content["files"], key=lambda f: f["error"] is None and not f["dropped"])
    rows = [
        (
            f["path"], f["format"] or "-", f["kept"], sum(f["dropped"].values()) or "",
            sum(f["remarks"].values()) or "", _short(f),
        )
        for f in files[:FILES_SHOWN]
    ]  # fmt: skip
    text = table(rows, ("file", "format", "kept", "dropped", "flagged", "not read, because"))
    more = len(files) - FILES_SHOWN
    return text + (f"\n… and {more} more files, all in report.json" if more > 0 else "")


def _short(entry: dict[str, Any]) -> str:
    text = (entry["error"] or "").removeprefix(f"{entry['path']}: ")
    return text.splitlines()[0][:100] if text else ""


def _first_steps(content: dict[str, Any], outcome: str, reason: str) -> str:
    """``OUTCAR steps 3-5, 9``: where the first frames with this reason are."""
    for f in content["files"]:
        if reason in f[outcome]:
            steps = f.get("steps", {}).get(outcome, {}).get(reason)
            name = os.path.basename(f["path"])
            return f"{name}, step {steps[:40]}" if steps else name
    return ""


def _level(content: dict[str, Any]) -> str:
    """What files state of the level of theory beside what the head says."""
    found = content["level_of_theory"]["found"]
    if not found:
        return ""
    keys = ("functional", "hubbard_u", "dispersion", "code")
    head = content["level_of_theory"]["head"] or {}
    rows = (
        [("head " + content["head"], *(str(head.get(key) or "")[:WIDTH] for key in keys), "", "")]
        if head
        else []
    )
    rows += [
        ("files", *(f.get(key, "") for key in keys), f["frames"], f["files"]) for f in found[:LEVELS_SHOWN]
    ]
    text = table(rows, ("level of theory", "functional", "+U", "dispersion", "code", "frames", "files"))
    more = len(found) - LEVELS_SHOWN
    return text + (f"\n… and {more} more kinds of files, all in report.html" if more > 0 else "")


def _reference(reference: dict[str, Any]) -> str:
    text = (
        f"reference energies: rank {reference['rank']} of {reference['n_elements']}, scatter "
        f"{1000 * reference['residual_std']:.1f} meV/atom after the fit"
    )
    return "\n".join([text, *(f"  {sentence}" for sentence in reference["not_determined"])])


def _distributions(found: dict[str, Any]) -> str:
    rows = [
        (title, *(number(found[name][k]) for k in ("min", "p01", "median", "p99", "max")))
        for name, title in CONTENT.items()
        if found[name]["n"]
    ]
    return table(rows, ("of the frames kept", "smallest", "1 %", "median", "99 %", "largest"))


def level_words(level: dict[str, Any] | None) -> str:
    """A level of theory in one line."""
    if not level:
        return "not known"
    return ", ".join(f"{value}" for value in level.values() if value)


def info(result: dict[str, Any]) -> str:
    """One data set's summary."""
    low, high = result["atoms_per_frame"]
    size = str(low) if low == high else f"{low} to {high}"
    lines = [
        ("data set", result["path"]),
        ("head", f"{result['head'] or 'none'}  {result['title']}".strip()),
        ("level of theory", level_words(result["level_of_theory"])),
        (
            "frames",
            f"{count(result['n_frames'])} in {count(result['n_groups'])} groups from "
            f"{count(result['n_sources'])} sources",
        ),
        ("atoms", f"{size} per frame, {count(result['n_atoms'])} in all"),
        ("elements", f"{len(result['elements'])}: {' '.join(result['elements'])}"),
        ("labels", ", ".join(f"{k} {count(n)}" for k, n in result["labels"].items() if n) or "none"),
    ]
    if "energy_per_atom" in result:
        lowest, highest = result["energy_per_atom"]
        spread = 1000 * result["energy_spread"]
        lines += [
            ("energy", f"{lowest:.4f} to {highest:.4f} eV/atom, scatter {spread:.1f} meV/atom after the fit"),
            ("references", f"rank {result['rank']} of {len(result['elements'])} elements"),
            *(("", sentence) for sentence in result["not_determined"]),
        ]
    for name, unit in (("forces_rms", "eV/Å"), ("stress_rms", "eV/Å³")):
        if result.get(name) is not None:
            lines.append((name.replace("_", " "), f"{number(result[name])} {unit}"))
    if result["split"]:
        lines.append(("split", f"{result['split']['part']}, by {result['split']['method']}"))
    lines += [("written", f"{result['created']} by {result['converter']}")] if result["created"] else []
    lines += [("note", text) for text in result["notes"]]
    text = "\n".join(f"{name:16s} {value}" for name, value in lines)
    if "energy_per_atom" in result and len(result["elements"]) <= 20:
        rows = [(s, count(n), f"{result['reference'][s]:.4f}") for s, n in result["elements"].items()]
        text += "\n\n" + table(rows, ("element", "frames", "reference energy, eV"))
    if "distributions" in result:
        text += "\n\n" + _distributions(result["distributions"])
        text += "\n\n" + _neighbors(result["neighbors"])
    return text


def _neighbors(settings: list[dict[str, Any]]) -> str:
    rows = [
        (
            f"{s['cutoff']:g} Å, at most {s['max_neighbors']}",
            *(number(s["edges_per_atom"][k]) for k in ("mean", "p99", "max")),
            *(f"{s['edges_per_frame'][k]:.0f}" for k in ("median", "p99", "max")),
        )
        for s in settings
        if s["edges_per_frame"]["n"]
    ]
    headers = ("neighbours within", "per atom: mean", "99 %", "most", "per frame: median", "99 %", "most")
    return table(rows, headers)


def comparison(result: dict[str, Any]) -> str:
    """Several data sets beside each other: contents, elements, levels of theory, shifts of energy."""
    names = _names([s["path"] for s in result["sets"]])
    rows = [
        (
            names[s["path"]],
            s["head"] or "-",
            count(s["n_frames"]),
            count(s["n_atoms"]),
            len(s["elements"]),
            (s["level_of_theory"] or {}).get("functional", "not known"),
            "yes" if s["labels"]["stress"] else "no",
            f"{1000 * s['energy_spread']:.1f}" if "energy_spread" in s else "-",
            number(s.get("forces_rms")),
        )
        for s in result["sets"]
    ]
    headers = (
        "data set", "head", "frames", "atoms", "elements", "functional", "stress", "E scatter meV/atom", "F rms eV/Å",
    )  # fmt: skip
    common, every = result["common_elements"], result["all_elements"]
    parts = [
        table(rows, headers),
        f"elements in all of them: {len(common)} of {len(every)}"
        + (f": {' '.join(common)}" if common else ""),
    ]
    pairs = [
        (
            names[p["of"]],
            names[p["by"]],
            f"{len(p['common_elements'])}",
            _same_level(p),
            "elements missing"
            if p["shift"] is None
            else f"{1000 * p['shift']:+.0f} ± {1000 * p['scatter']:.0f}",
        )
        for p in result["pairs"]
    ]
    parts.append(
        table(pairs, ("energies of", "by references of", "elements", "level of theory", "off by meV/atom"))
    )
    return "\n\n".join(parts)


def _same_level(pair: dict[str, Any]) -> str:
    if pair["same_level"] is None:
        return "not known"
    return "same" if pair["same_level"] else f"other {', '.join(pair['level_differs_in'])}"


def _names(paths: list[str]) -> dict[str, str]:
    """Shortest endings of paths that tell them apart."""
    for n in range(1, 20):
        short = ["/".join(p.rstrip("/").split("/")[-n:]) for p in paths]
        if len(set(short)) == len(set(paths)):
            return dict(zip(paths, short, strict=True))
    return {p: p for p in paths}


def audit(result: dict[str, Any]) -> str:
    """What an audit found."""
    parts = [f"{result['path']}: {count(result['n_frames'])} frames checked"]
    for name, title in (("problems", "wrong"), ("flags", "odd, but not wrong in itself")):
        if result[name]:
            rows = [(n, what, result["examples"][what][0]) for what, n in result[name].items()]
            parts.append(table(rows, ("times", title, "for example")))
    if not result["problems"]:
        parts.append("no fault found")
    else:
        parts.append("not sound. Convert the sources again, which leaves such frames out and reports them.")
    return "\n\n".join(parts)
