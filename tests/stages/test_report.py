"""The report: one self-contained page of whatever runs there are, also of those that are not over."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from lamkit import config
from lamkit.cli import main
from lamkit.report import html, parity, plots, runs, sections
from lamkit.stages import report

HEADER = (
    "step,head,split,energy_mae_meV_atom,energy_rmse_meV_atom,forces_mae_meV_A,forces_rmse_meV_A,"
    "stress_mae_meV_A3,seconds"
)


def write_json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def write_training(folder: Path, heads: list[str], errors: list[float], verb: str) -> Path:
    """A run whose force RMSE in meV/Å are ``errors`` at steps 0, 100, 200 and so on."""
    folder.mkdir(parents=True)
    rows = [
        f"{100 * k},{head},valid,1.0,{error / 10},{error / 2},{error},,{k * 5}"
        for k, error in enumerate(errors)
        for head in heads
    ]
    (folder / "metrics.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    (folder / "config.yaml").write_text(yaml.safe_dump({"verb": verb}))
    write_json(folder / "versions.json", {"lamkit": "9.8.7", "numpy": "1.26.4", "command": ["lamkit", verb]})
    write_json(folder / "result.json", {"heads": {h: {"forces_rms_target": 0.9} for h in heads}})
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """A workflow's folder with every kind of run."""
    root = tmp_path / "flow"
    facts = {
        "head": "pbe", "n_frames": 90, "elements": ["Li", "O"], "labels": {"energy": 90},
        "level_of_theory": {"method": "DFT", "functional": "PBE", "code": "VASP"}, "citation": "Someone 1 (2020)",
    }  # fmt: skip
    (root / "convert" / "data").mkdir(parents=True)
    (root / "convert" / "data" / "dataset.yaml").write_text(yaml.safe_dump(facts))
    dropped = {"kept": 90, "dropped": {"not converged": 7, "two atoms < 0.1 Å": 3}}
    write_json(root / "convert" / "data" / "report.json", dropped)
    write_training(root / "pretrain", ["pbe", "scan"], [900, 300, 120], "pretrain")
    write_training(root / "finetune", ["mine"], [150, 60, 50], "finetune")
    write_training(root / "scratch", ["mine"], [880, 400, 100], "pretrain")
    write_training(root / "distill", ["mine"], [400, 80], "distill")
    speed = {
        "n_atoms": 64, "formula": "LiO", "ratio": 12.5,
        "models": {
            "teacher": {"ms_per_step": 20, "us_per_step_atom": 312.5},
            "student": {"ms_per_step": 1.6, "us_per_step_atom": 25.0},
        },
    }  # fmt: skip
    labels = {"teacher": {"forces_rmse": 0.05}, "student": {"forces_rmse": 0.061}}
    write_json(root / "distill" / "result.json", {"speed": speed, "true_labels": labels, "rounds": []})
    errors = {"energy_mae": 0.0042, "forces_rmse": 0.051, "n_frames": 12, "stress_mae": None}
    write_json(root / "evaluate" / "result.json", {"mine": errors})
    pair = np.random.default_rng(0).normal(size=(2, 300))
    parity.save(root / "evaluate" / "parity.npz", {"mine": {"energy": pair, "forces": pair}})
    return root


class Page(HTMLParser):
    """Tags, text and pictures of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text += data


def test_a_workflow_becomes_one_page_with_everything(folder, capsys):
    assert main(["report", str(folder), "--json", "-q"]) == 0
    result = json.loads(capsys.readouterr().out)
    page = Page(Path(result["report"]).read_text())
    titles = ("Summary", "Data", "Pre-training", "Fine-tuning", "Distillation", "Evaluation", "Environment")
    for words in (
        *titles,
        "How to cite",
        "7 × not converged",
        "two atoms < 0.1 Å",
        "Someone 1 (2020)",
        "12.5×",
    ):
        assert words in page.text, words
    assert "9.8.7" in page.text
    names = {Path(p).stem for p in result["figures"]}
    assert names == {
        "curves-pretrain",
        "finetune-mine",
        "speed-distill",
        "curves-distill",
        "parity-evaluate-mine",
    }
    assert all(Path(p).read_bytes().startswith(b"\x89PNG") for p in result["figures"])


def test_the_page_needs_neither_network_nor_script(folder):
    main(["report", str(folder), "-q"])
    page = Page((folder / "report.html").read_text())
    assert page.open == []  # every tag is closed
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 5
    for source in pictures:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    anchors = {a["id"] for tag, a in page.tags if tag == "section"}
    links = {a["href"] for tag, a in page.tags if tag == "a"}
    assert links == {f"#{anchor}" for anchor in anchors}
    assert not re.search(r"url\(|@import", html.CSS)


def test_stage_of_a_workflow_names_its_folders(folder, tmp_path):
    options = config.parse(
        report.Options,
        {
            "title": "Li <-> O",
            "sections": {
                "data": [str(folder / "convert")], "finetune": str(folder / "finetune"),
                "scratch": str(folder / "scratch"),
            },
        },
    )  # fmt: skip
    assert config.input_paths(options) == [str(folder / n) for n in ("convert", "finetune", "scratch")]
    result = report.run(options, tmp_path / "out")
    page = Page(Path(result["report"]).read_text())
    assert "Li <-> O" in page.text
    assert "Pre-training" not in page.text
    assert "Fine-tuning" in page.text


def test_fine_tuning_is_compared_at_equal_steps():
    ours = plots.Curve("a", np.array([0.0, 100, 200, 300]), np.array([150.0, 60, 50, 10]))
    theirs = plots.Curve("b", np.array([0.0, 100, 200]), np.array([880.0, 55, 100]))
    # step 300 has no counterpart; scratch's best is 55, which fine-tuning passes at step 200
    assert sections.equal_steps(ours, theirs) == ["200", "50.0", "55.0", "0.91", "200"]


def test_a_run_that_was_killed_is_reported_as_far_as_it_came(folder):
    metrics = folder / "pretrain" / "metrics.csv"
    metrics.write_text(metrics.read_text() + "300,pbe,val")
    assert main(["report", str(folder), "-q"]) == 0
    metrics.write_text(HEADER + "\n")
    assert main(["report", str(folder), "-q"]) == 0
    assert "nothing validated yet" in (folder / "report.html").read_text()


def test_a_broken_table_is_an_error_with_its_line(folder, capsys):
    metrics = folder / "pretrain" / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("100,pbe", "1oo,pbe"))
    assert main(["report", str(folder), "-q"]) == 2
    assert f"{metrics}:4:" in capsys.readouterr().err
    assert not (folder / "report.html").exists()


def test_a_truncated_parity_file_is_named(folder, capsys):
    file = folder / "evaluate" / "parity.npz"
    file.write_bytes(file.read_bytes()[:100])
    assert main(["report", str(folder), "-q"]) == 2
    assert str(file) in capsys.readouterr().err


def test_nothing_to_report_is_said(tmp_path, capsys):
    assert main(["report", str(tmp_path), "-q"]) == 2
    assert "no run to report" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "absent"), "-q"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_stages_of_a_workflow_stand_with_time_and_outcome(folder, capsys):
    (folder / "journal.jsonl").write_text("")
    write_json(folder / "convert" / "stage.json", {"stage": "convert"})
    write_json(folder / "convert" / "products.json", {"seconds": 75.0})
    write_json(folder / "scratch" / "stage.json", {"stage": "pretrain"})
    write_json(folder / "scratch" / "error.json", {"message": "disk full"})
    assert main(["report", str(folder), "-q"]) == 0
    text = Page((folder / "report.html").read_text()).text
    assert "convertconvert1:15done" in text
    assert "scratchpretrainfailed: disk full" in text


def test_kinds_of_folders_are_told_apart(folder):
    found = {kind: [f.name for f in folders] for kind, folders in runs.find(folder).items()}
    assert found == {kind: [kind] for kind in ("pretrain", "finetune", "scratch", "distill", "evaluate")} | {
        "data": ["convert"]
    }


def test_a_hundred_heads_fit_on_one_figure(tmp_path):
    heads = [f"head{i:03d}" for i in range(100)]
    run = runs.read_training(write_training(tmp_path / "run", heads, [500, 200], "pretrain"))
    figures: dict[str, bytes] = {}
    sections.training([run], dict.fromkeys(heads, 900.0), figures)
    assert len(figures) == 1
    png = figures["curves-run"]
    assert int.from_bytes(png[20:24], "big") < 3000  # height in pixels


def test_names_are_escaped():
    page = html.page("a & b", "", [html.Section("x<y", html.table(["<h>"], [["<script>alert(1)</script>"]]))])
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert html.figure(plots.png(plots.bars(["a"], {"": [1.0]}, "t")), 'say "hi"').count('"') % 2 == 0


def test_equal_figures_are_equal_bytes():
    pair = np.random.default_rng(0).normal(size=(2, 5000))
    assert plots.png(plots.parity({"h": {"forces": pair}})) == plots.png(
        plots.parity({"h": {"forces": pair}})
    )


def test_old_heads_are_shown_before_and_after():
    from lamkit.report.retention import retention

    row = {
        "labels": "real", "frames_from": "given", "n_frames": 9, "forces_rmse_before": 0.05, "forces_rmse_after": 0.061,
        "energy_rmse_before": None, "energy_rmse_after": None, "forces_rms": 1.2,
    }  # fmt: skip
    page = Page(retention({"retention": {"mptrj": row}}))
    assert page.open == []
    assert all(words in page.text for words in ("mptrj", "real (given)", "50.0", "61.0", "1200"))
    assert retention({"retention": {}}) == retention({}) == ""
