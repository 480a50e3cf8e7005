"""One self-contained HTML page: plain CSS, figures inside the file, no script and no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

CSS = """
:root { --ink: #1d2433; --soft: #5b6478; --line: #dfe3ea; --paper: #ffffff; --back: #f4f6f9;
        --mark: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
       font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC",
             sans-serif; }
header { background: var(--ink); color: #fff; padding: 2rem 1.5rem 1.6rem; }
header > div, nav > div { max-width: 66rem; margin: 0 auto; }
header h1 { margin: 0 0 .3rem; font-size: 1.7rem; font-weight: 650; }
header p { margin: 0; color: #c3cad8; }
nav { background: var(--paper); border-bottom: 1px solid var(--line); padding: .55rem 1.5rem; }
nav a { color: var(--mark); text-decoration: none; margin-right: 1.2rem; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
main { max-width: 69rem; margin: 0 auto; padding: 1.2rem 1.5rem 3rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
          padding: .4rem 1.4rem 1.2rem; margin: 1.2rem 0; }
h2 { font-size: 1.2rem; margin: .9rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .5rem 0; max-width: 48rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { padding: .32rem 1.1rem .32rem 0; text-align: left; border-bottom: 1px solid var(--line);
         vertical-align: top; }
th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
td.n, th.n { text-align: right; white-space: nowrap; }
figure { margin: 1rem 0 .4rem; }
figure img { max-width: 100%; height: auto; background: #fff; }
figcaption, .note { color: var(--soft); font-size: .9rem; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: .8rem 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem; min-width: 8rem; }
.card b { display: block; font-size: 1.35rem; font-weight: 650; }
.card span { color: var(--soft); font-size: .88rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--mark); }
.notice { border-left: 4px solid #d55e00; background: #fdf3ec; padding: .3rem 1rem; margin: .8rem 0;
          border-radius: 4px; max-width: 60rem; }
.notice.good { border-color: #009e73; background: #eef8f4; }
.notice ul { margin: .3rem 0; }
code { background: var(--back); padding: .1em .3em; border-radius: 4px; font-size: .9em; }
ul { padding-left: 1.2rem; }
@media print { body { background: #fff; } section { border: none; } nav { display: none; } }
"""


class Section(NamedTuple):
    """One section of the page.

    Attributes:
        title: heading, also in the list of contents.
        body: HTML.
    """

    title: str
    body: str


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page."""
    links = "\n".join(f'<a href="#{_anchor(s.title)}">{escape(s.title)}</a>' for s in sections)
    bodies = "\n".join(
        f'<section id="{_anchor(s.title)}">\n<h2>{escape(s.title)}</h2>\n{s.body}\n</section>'
        for s in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<header><div><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></div></header>
<nav><div>{links}</div></nav>
<main>
{bodies}
</main>
</body>
</html>
"""


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower())


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; columns of numbers are set to the right. Cells are text, None is an empty cell."""
    cells = [["" if c is None else str(c) for c in row] for row in rows]
    right = [
        all(_numeric(row[i]) for row in cells) and any(row[i] for row in cells) for i in range(len(headers))
    ]
    marks = [' class="n"' if r else "" for r in right]
    head = "".join(f"<th{m}>{escape(h)}</th>" for h, m in zip(headers, marks, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{m}>{escape(c)}</td>" for c, m in zip(row, marks, strict=True)) + "</tr>"
        for row in cells
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _numeric(text: str) -> bool:
    digits = text.replace(":", "").replace(" ", "").lstrip("+-−").rstrip("×%")
    return (
        text in ("", "-", "–") or digits.replace(".", "", 1).replace("e", "", 1).replace("-", "", 1).isdigit()
    )


def figure(png: bytes, caption: str, *, dpi: int = 150) -> str:
    """A figure with its caption; the picture is part of the text, shown at its natural size."""
    width = round(int.from_bytes(png[16:20], "big") * 96 / dpi)  # IHDR: width in pixels
    data = base64.b64encode(png).decode()
    return (
        f'<figure><img width="{width}" alt="{escape(caption, quote=True)}" '
        f'src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def cards(values: Mapping[str, str]) -> str:
    """A few large numbers: label → value."""
    inner = "".join(
        f'<div class="card"><b>{escape(v)}</b><span>{escape(k)}</span></div>' for k, v in values.items()
    )
    return f'<div class="cards">{inner}</div>'


def paragraph(text: str, *, note: bool = False) -> str:
    """A paragraph of plain text."""
    return f"<p{' class=note' if note else ''}>{escape(text)}</p>"


def notice(sentences: Sequence[str], *, good: bool) -> str:
    """A box with what should be seen first."""
    return f'<div class="notice{" good" if good else ""}">{bullets(sentences)}</div>'


def folded(title: str, body: str) -> str:
    """HTML that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>\n{body}\n</details>"


def heading(text: str) -> str:
    """A heading inside a section."""
    return f"<h3>{escape(text)}</h3>"


def bullets(items: Sequence[str]) -> str:
    """A list of plain texts."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"
