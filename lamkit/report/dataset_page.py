"""The page of a data set: what became of the frames, and what those that are left look like."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ase.units import GPa

from lamkit import __version__
from lamkit.data.formats import words_on_passed_over
from lamkit.report import dataset_plots as plots
from lamkit.report import html
from lamkit.report.dataset import Account
from lamkit.report.html import Section
from lamkit.report.plots import png
from lamkit.report.text import count, number, share

FILES_SHOWN = 150
LINES_SHOWN = 80  # lines of files and steps; all are in report.csv
FEW = 12  # rows of a table that are shown without a click
LEVEL_KEYS = {
    "functional": "functional",
    "hubbard_u": "Hubbard U",
    "dispersion": "dispersion",
    "code": "code",
}
QUANTITIES = {  # distribution → title, what is counted, factor to the unit of the title
    "force": ("force on an atom (eV/Å)", "atoms", 1.0),
    "pressure": ("pressure (GPa)", "frames", 1 / GPa),
    "stress": ("stress component (GPa)", "components", 1 / GPa),
    "volume_per_atom": ("volume per atom (Å³)", "frames", 1.0),
}


def page(account: Account, title: str) -> str:
    """The whole page; ``title`` says what was done, for example ``Conversion``."""
    content = account.content
    parts = [
        Section("Summary", _summary(content)),
        Section("Files", _files(content)),
        Section("At fault and flagged" if _audited(content) else "Dropped and flagged", _lines(content)),
        Section("Level of theory", _level(content)),
        Section("Elements", _elements(content)),
        Section("Distributions", _distributions(account)),
        Section("Reference energies", _reference(content)),
        Section("Neighbours", _neighbors(content)),
    ]
    name = os.path.basename(os.path.normpath(content["path"]))
    heading = f"{title}: {content['head'] or name}"
    return html.page(heading, f"{content['path']} · LAMKit {__version__}", [p for p in parts if p.body])


def details(content: dict[str, Any]) -> str:
    """What ``report.json`` alone tells, for the page of a whole workflow; empty for one without statistics."""
    if "statistics" not in content or "files" not in content:
        return ""
    parts = {
        "Files": _files(content),
        "Level of theory": _level(content),
        "Elements": _elements(content),
        "Reference energies": _reference(content),
        "Neighbours": _neighbors(content),
    }
    return "".join(html.heading(title) + body for title, body in parts.items() if body)


def _audited(content: dict[str, Any]) -> bool:
    """Whether the frames were looked at where they are, and nothing was left out."""
    return "ok" in content


def _frames(n: int) -> str:
    return "1 frame" if n == 1 else f"{count(n)} frames"


def _summary(content: dict[str, Any]) -> str:
    result = content["statistics"]
    dropped = sum(content["dropped"].values())
    reference = result.get("reference")
    audited = _audited(content)
    cards = {
        "sound frames" if audited else "frames kept": count(content["kept"]),
        "frames at fault" if audited else "frames dropped": count(dropped),
        "files read": count(sum(not f["error"] for f in content["files"])),
        "atoms": count(result["n_atoms"]),
        "elements": count(len(result["elements"])),
    }
    if reference:
        cards["rank of the reference fit"] = f"{reference['rank']} of {reference['n_elements']}"
    said = attention(content)
    calm = ["Every file was read, no frame is at fault and nothing was flagged."]
    return html.cards(cards) + html.notice(said or calm, good=not said)


def attention(content: dict[str, Any]) -> list[str]:
    """What a reader should look at first, in sentences; empty if all is well."""
    said: list[str] = []
    failed = [f for f in content["files"] if f["error"]]
    total = content["kept"] + sum(content["dropped"].values())
    if failed:
        said.append(f"{len(failed)} of {len(content['files'])} files could not be read to their end.")
    elsewhere = {*content["dropped"], *(finding["reason"] for finding in content["findings"])}
    for problem, n in content.get("problems", {}).items():
        if problem not in elsewhere:
            said.append(f"{count(n)} × {problem}: {'; '.join(content['examples'][problem][:3])}.")
    left = "at fault" if _audited(content) else "dropped"
    for reason, n in list(content["dropped"].items())[:4]:
        said.append(f"{_frames(n)} {left} ({share(n, total)}): {reason}.")
    if len(content["dropped"]) > 4:
        said.append(f"… and {len(content['dropped']) - 4} more reasons, below.")
    for text, n in list(content["remarks"].items())[:4]:
        said.append(f"{_frames(n)} flagged: {text}.")
    said += [f"{f['reason']}." for f in content["findings"] if f["reason"] not in content["remarks"]]
    if (
        functionals := {f.get("functional") for f in content["level_of_theory"]["found"]} - {None, ""}
    ) and len(functionals) > 1:
        said.append(f"Files state different functionals: {', '.join(sorted(functionals))}.")
    reference = content["statistics"].get("reference", {})
    shared = (
        "the prior decides"
        if reference.get("prior")
        else "without a prior, how they share the energy is arbitrary"
    )
    for text in reference.get("not_determined", []):
        said.append(f"Reference energies: {text}; {shared}.")
    return said


def _files(content: dict[str, Any]) -> str:
    files = content["files"]
    base = os.path.commonpath([os.path.dirname(f["path"]) or "." for f in files]) if len(files) > 1 else ""
    order = sorted(files, key=lambda f: (not f["error"], -sum(f["dropped"].values()), -len(f["remarks"])))
    rows = [
        [
            os.path.relpath(f["path"], base) if base else f["path"],
            f["format"] or "–",
            count(f["kept"]),
            count(sum(f["dropped"].values())),
            count(sum(f["remarks"].values())),
            (f["error"] or "").removeprefix(f"{f['path']}: "),
        ]
        for f in order[:FILES_SHOWN]
    ]
    body = html.paragraph(f"Below {base}", note=True) if base and base != "." else ""
    outcomes = ("sound", "at fault") if _audited(content) else ("kept", "dropped")
    body += html.table(["file", "format", *outcomes, "flagged", "not read, because"], rows)
    if len(files) > FILES_SHOWN:
        body += html.paragraph(f"{len(files) - FILES_SHOWN} more files are in report.json.", note=True)
    if content["ignored"]:
        body += html.folded(
            f"{len(content['ignored'])} files passed over",
            html.bullets(words_on_passed_over(content["ignored"])),
        )
    return body


def _lines(content: dict[str, Any]) -> str:
    """Reasons with their frames, then where they are."""
    rows, details = [], []
    left = "at fault" if _audited(content) else "dropped"
    for outcome, word in (("dropped", left), ("remarks", "flagged")):
        for reason, n in content[outcome].items():
            files = [f for f in content["files"] if reason in f[outcome]]
            rows.append([word, reason, count(n), count(len(files))])
            for f in files:
                steps = f.get("steps", {}).get(outcome, {}).get(reason, "not told")
                details.append([f["path"], word, reason, steps, count(f[outcome][reason])])
    if not rows:
        return html.paragraph(f"Nothing was {left} and nothing flagged.")
    body = html.table(["", "reason", "frames", "files"], rows)
    listing = html.table(["file", "", "reason", "steps, from 0", "frames"], details[:LINES_SHOWN])
    if len(details) > LINES_SHOWN:
        listing += html.paragraph(f"{len(details) - LINES_SHOWN} more lines are in report.csv.", note=True)
    body += listing if len(details) <= FEW else html.folded("file by file, with steps", listing)
    return body + html.paragraph("Every frame concerned stands in report.csv.", note=True)


def _level(content: dict[str, Any]) -> str:
    level = content["level_of_theory"]
    said = level["head"] or {}
    words = [f"{key.replace('_', ' ')}: {value}" for key, value in said.items() if value]
    head = content["head"]
    body = html.paragraph(f"The head '{head}' says:" if head else "No head was named.")
    body += html.bullets(words) if words else ""
    if not level["found"]:
        return body + html.paragraph("The files do not state how their labels were computed.", note=True)
    keys = [key for key in LEVEL_KEYS if any(key in found for found in level["found"])]
    keys += sorted({k for f in level["found"] for k in f} - {*keys, "frames", "files", "example"})
    rows = [
        [*(f.get(key, "") for key in keys), count(f["frames"]), count(f["files"]), f["example"]]
        for f in level["found"]
    ]
    headers = [*(LEVEL_KEYS.get(key, key) for key in keys), "frames", "files", "for example"]
    return body + html.paragraph("The files say:") + html.table(headers, rows)


def _elements(content: dict[str, Any]) -> str:
    elements = content["statistics"]["elements"]
    if not elements:
        return ""
    energies = content["statistics"].get("reference", {}).get("energies", {})
    rows = [
        [
            symbol,
            count(entry["frames"]),
            count(entry["atoms"]),
            number(entry["forces_rms"]),
            f"{energies[symbol]:.4f}" if symbol in energies else "–",
        ]
        for symbol, entry in elements.items()
    ]
    headers = ["element", "frames", "atoms", "force rms (eV/Å)", "reference energy (eV)"]
    body = html.table(headers, rows)
    if len(rows) <= FEW:
        return body
    drawn = plots.periodic_table({s: e["frames"] for s, e in elements.items()})
    picture = html.figure(png(drawn), "Frames in which each element occurs.")
    return picture + html.folded(f"table of {len(rows)} elements", body)


def _distributions(account: Account) -> str:
    panels = [
        plots.numbers_panel("energy after composition fit (meV/atom)", 1000 * account.residual, "frames"),
        *(
            plots.panel(title, account.statistics.histograms[name], what, factor)
            for name, (title, what, factor) in QUANTITIES.items()
        ),
        plots.panel("distance to nearest atom (Å)", account.statistics.neighbors.nearest, "atoms"),
        plots.panel("distances up to 6 Å (Å)", account.statistics.neighbors.distances, "pairs"),
        plots.panel("neighbours within 6 Å", account.statistics.neighbors.within(6.0), "atoms"),
        plots.sizes_panel(account.statistics.sizes),
    ]
    known = [p for p in panels if p is not None]
    if not known:
        return ""
    body = html.figure(png(plots.distributions(known)), "Distributions over the frames in the data set.")
    return body + _quantiles(account.content["statistics"]) + _extremes(account.content["statistics"])


def _quantiles(result: dict[str, Any]) -> str:
    titles = {
        "energy_per_atom": "energy as given (eV/atom)", "force": "force on an atom (eV/Å)",
        "net_force": "net force per atom (eV/Å)", "pressure": "pressure (eV/Å³)",
        "stress": "stress component (eV/Å³)", "volume_per_atom": "volume per atom (Å³)",
    }  # fmt: skip
    found = {**result["distributions"], "nearest": result["distances"]}
    titles["nearest"] = "distance to nearest atom (Å)"
    rows = [
        [title, count(d["n"]), *(number(d[k]) for k in ("min", "p01", "median", "p99", "max"))]
        for name, title in titles.items()
        if (d := found[name])["n"]
    ]
    return html.table(["", "values", "smallest", "1 %", "median", "99 %", "largest"], rows)


def _extremes(result: dict[str, Any]) -> str:
    rows = [
        [name.replace("_", " "), number(found["value"]), found["where"]]
        for name, found in result["extremes"].items()
        if name not in ("smallest force", "smallest net_force")
    ]
    return html.folded("where the extremes are", html.table(["", "value (eV, Å)", "frame"], rows))


def _reference(content: dict[str, Any]) -> str:
    reference = content["statistics"].get("reference")
    if reference is None:
        return ""
    toward = ", drawn toward the prior of the head" if reference["prior"] else ""
    body = html.paragraph(
        f"Least squares of the energies on the compositions of {count(reference['n_frames'])} frames{toward}: "
        f"rank {reference['rank']} of {reference['n_elements']} elements, scatter "
        f"{1000 * reference['residual_std']:.1f} meV/atom."
    )
    body += html.bullets([f"Not determined: {text}" for text in reference["not_determined"]])
    rest = content["energy_residual"]
    body += html.paragraph(
        f"After it, half of the frames lie within {674.5 * rest['robust_std']:.1f} meV/atom of the median; "
        f"the range is {1000 * rest['min']:.0f} to {1000 * rest['max']:.0f} meV/atom."
    )
    if rest.get("far"):
        rows = [[f["where"], number(1000 * f["residual"]), number(f["deviations"])] for f in rest["far"]]
        more = f" (the first {len(rows)})" if rest["n_far"] > len(rows) else ""
        title = f"{_frames(rest['n_far'])} more than 8 robust standard deviations away{more}"
        table = html.table(["frame", "meV/atom", "deviations"], rows)
        body += html.folded(title, table)
    return body


def _neighbors(content: dict[str, Any]) -> str:
    found = content["statistics"]["neighbors"]
    if not found["frames_counted"]:
        return ""
    rows: list[Sequence[object]] = [
        [
            f"{s['cutoff']:g}",
            s["max_neighbors"],
            *(number(s["edges_per_atom"][k]) for k in ("mean", "p99", "max")),
            *(count(s["edges_per_frame"][k]) for k in ("median", "p99", "max")),
        ]
        for s in found["settings"]
    ]
    headers = [
        "cutoff (Å)", "neighbours at most", "edges per atom: mean", "99 %", "most",
        "edges per frame: median", "99 %", "most",
    ]  # fmt: skip
    counted = (
        f"Counted on {count(found['frames_counted'])} frames; training chooses its padded shapes from them."
    )
    contacts = [
        [c["pair"], f"{c['distance']:.3f}", f"{c['of_bond']:.2f}", c["where"]] for c in found["closest"]
    ]
    table = html.table(["pair", "shortest (Å)", "of the sum of covalent radii", "frame"], contacts)
    body = html.table(headers, rows) + html.paragraph(counted, note=True)
    return body + (
        html.heading("Shortest contacts") + table
        if len(contacts) <= FEW
        else html.folded("shortest contacts of each pair of elements", table)
    )
