"""The report of a workflow in a real browser, which has no network: every section and picture is there to be seen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from test_report import Page, folder, write_json  # noqa: F401 - a fixture

from lamkit.report import graph
from lamkit.stages import report

# What a reader sees: place of every section, natural width of every picture, size of the page.
LOOK = """<script>addEventListener("load", () => {
  const box = e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const all = s => [...document.querySelectorAll(s)];
  document.body.setAttribute("data-seen", JSON.stringify({
    sections: Object.fromEntries(all("section").map(e => [e.querySelector("h2").innerText, box(e)])),
    images: all("img").map(e => e.naturalWidth), labels: all("svg text").map(e => e.textContent),
    boxes: all("svg g").map(box), overflow: document.documentElement.scrollWidth,
    height: document.documentElement.scrollHeight}));
})</script>"""


def note(root: Path, name: str, stage: str, reads: list[str], seconds: float | None) -> None:
    """What the engine leaves in the folder of a stage."""
    facts = {"id": name, "stage": stage, "identity": {"upstream": dict.fromkeys(reads, "key")}}
    write_json(root / name / "stage.json", facts)
    if seconds is not None:
        write_json(root / name / "products.json", {"seconds": seconds, "files": {}})


@pytest.fixture
def flow(folder: Path) -> Path:  # noqa: F811
    """A workflow folder with every kind of stage, a loop of two rounds and a failure."""
    (folder / "journal.jsonl").write_text("")
    note(folder, "convert", "convert", [], 4)
    note(folder, "pretrain", "pretrain", ["convert"], 3000)
    note(folder, "scratch", "pretrain", ["convert"], 70)
    note(folder, "finetune", "finetune", ["pretrain"], 60)
    note(folder, "distill", "distill", ["finetune"], 400)
    for k in ("1", "2"):
        note(folder, f"learn/{k}/explore", "explore", ["finetune"], 30)
        note(folder, f"learn/{k}/label", "label", [f"learn/{k}/explore"], 50)
    note(folder, "learn/3/label", "label", [], 999)  # of an earlier run with a larger budget
    write_json(folder / "learn" / "stage.json", {"id": "learn", "stage": "loop"})
    rounds = [{"round": 1, "label.n": 5.0}, {"round": 2, "label.n": 2.0}]
    ended = {"n_rounds": 2, "seconds": 160, "ended": "${label}.n < 3 after round 2", "rounds": rounds}
    write_json(folder / "learn" / "result.json", ended)
    note(folder, "evaluate", "evaluate", ["learn", "distill"], None)
    write_json(
        folder / "evaluate" / "error.json", {"fault": "user", "message": "frame 3 has no energy <here>"}
    )
    report.write(report.Options(title="All of it", folder=str(folder)), folder / "report.html")
    return folder


def test_the_graph_shows_every_stage_its_time_and_what_it_reads(flow: Path) -> None:
    boxes = graph.read(flow)
    assert boxes["learn/label"].rounds == 2
    assert boxes["learn/label"].seconds == 100
    assert boxes["evaluate"].state == "failed"
    assert boxes["evaluate"].reads == {"learn/label", "distill"}
    page = Page((flow / "report.html").read_text())
    for words in (
        "50:00",
        "label, 2 × in learn",
        "Loop learn",
        "after round 2",
        "frame 3 has no energy <here>",
    ):
        assert words in page.text, words
    picture = graph.svg(boxes)
    assert picture.count("marker-end") == 8


def test_boxes_of_one_depth_go_into_further_rows_when_they_are_many() -> None:
    many = {f"s{k:02d}": graph.Box(f"s{k:02d}", "convert", "done", 1.0) for k in range(20)}
    width = int(re.search(r'svg [^>]*width="(\d+)"', graph.svg(many))[1])
    assert width <= graph.PER_ROW * (graph.WIDTH + graph.GAP_X) + 2 * graph.MARGIN


def browse(page: Path, *flags: str) -> str:
    """Open a page in Chromium, which finds no other machine; returns what it prints."""
    browser = next((b for b in ("chromium", "chromium-browser", "google-chrome") if shutil.which(b)), None)
    if browser is None:
        pytest.skip("no browser (Debian: chromium)")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'profile'}", *flags, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_browser_without_network_shows_all_sections_and_figures(flow: Path, tmp_path: Path) -> None:
    text = (flow / "report.html").read_text()
    copy = tmp_path / "watched.html"
    copy.write_text(text.replace("</body>", f"{LOOK}</body>"))
    shown = browse(copy, "--window-size=1200,900", "--dump-dom")
    seen = json.loads(re.search(r'data-seen="([^"]*)"', shown)[1].replace("&quot;", '"').replace("&lt;", "<"))
    titles = {"Summary", "Workflow", "Data", "Pre-training", "Fine-tuning", "Distillation", "Evaluation"}
    assert titles | {"Environment", "How to cite"} <= set(seen["sections"])
    assert len(seen["images"]) >= 4
    assert all(width > 100 for width in seen["images"])
    assert {"pretrain", "50:00", "failed"} <= set(seen["labels"])
    assert seen["overflow"] <= 1200
    assert not any(_overlap(a, b) for i, a in enumerate(seen["boxes"]) for b in seen["boxes"][:i])

    picture = tmp_path / "page.png"
    browse(flow / "report.html", f"--window-size=1200,{seen['height']}", f"--screenshot={picture}")
    pixels = matplotlib.image.imread(picture)[..., :3]
    assert pixels.shape[:2] == (seen["height"], 1200)
    for title, (left, top, right, bottom) in seen["sections"].items():
        inside = pixels[int(top) + 2 : int(bottom) - 2, int(left) + 2 : int(right) - 2]
        dark = (inside.min(axis=2) < 0.6).mean()
        assert 0.001 < dark < 0.6, f"{title}: {dark:.4f} of it is ink"
        assert np.ptp(inside) > 0.7


def _overlap(a: list[float], b: list[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
