"""The quick start as shipped, on the shipped data, with networks and step counts that take a minute or two."""

import json
import re
import subprocess
import sys

import pytest

SMALL = (
    "{version: v3, latent: 8, hidden: 8, layers: 1, head_hidden: 8, cutoff: 3.5, lmax: 0, repulsion: false}"
)
FEW = "{max_steps: 6, batch_atoms: 40, valid_every: 3, valid_frames: 4, save_every: 6, warmup_steps: 1}"
SHORTER = [
    f"stages.pretrain.with.trunk={SMALL}",
    f"stages.scratch.with.trunk={SMALL}",
    f"stages.pretrain.with.train={FEW}",
    f"stages.finetune.with.train={FEW}",
    f"stages.scratch.with.train={FEW}",
    f"stages.distill.with.student={SMALL}",
    "stages.distill.with.train={max_steps: 6, valid_every: 3, valid_fraction: 0.2}",
    "stages.distill.with.dynamics={steps: 12, save_every: 1, equilibrate: 1}",
    "stages.distill.with.guards={steps: 0}",
    "stages.distill.with.n_frames=12",
    "stages.distill.with.speed_atoms=40",
]


def lamkit(cwd, *words):
    return subprocess.run([sys.executable, "-m", "lamkit", *words], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """A finished run of the quick start."""
    folder = tmp_path_factory.mktemp("quick")
    words = [w for assignment in SHORTER for w in ("--set", assignment)]
    done = lamkit(folder, "run", "workflows/quickstart.yaml", "--out", "quickstart", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, words


def test_the_chain_ends_with_a_report_that_needs_no_network(flow):
    page = (flow[0] / "quickstart" / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64") >= 4
    assert not re.search(r'(?:src|href)="http', re.sub(r'<a [^>]*href="http[^>]*>', "", page))
    for words in ("pbesol_bnbzto", "gfn2_molecules", "scratch", "student"):
        assert words in page


def test_every_stage_wrote_its_result(flow):
    for stage in ("pretrain", "finetune", "scratch", "distill", "evaluate_finetuned"):
        assert json.loads((flow[0] / "quickstart" / stage / "result.json").read_text())
    speed = json.loads((flow[0] / "quickstart" / "distill" / "result.json").read_text())["speed"]
    assert speed


def test_a_second_run_does_nothing(flow):
    folder, words = flow
    before = (folder / "quickstart" / "journal.jsonl").read_text().count('"start"')
    done = lamkit(folder, "run", "workflows/quickstart.yaml", "--out", "quickstart", *words)
    assert done.returncode == 0
    assert (folder / "quickstart" / "journal.jsonl").read_text().count('"start"') == before


def test_a_changed_option_runs_what_depends_on_it_and_dry_run_says_so(flow):
    folder, words = flow
    more = ["--set", "stages.distill.with.n_frames=13", "--dry-run"]
    done = lamkit(folder, "run", "workflows/quickstart.yaml", "--out", "quickstart", *words, *more)
    assert done.returncode == 0
    said = done.stdout + done.stderr
    rows = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert "n_frames" in rows["distill"]
    assert "up to date" in rows["pretrain"]
    assert "distill" in rows["report"]
