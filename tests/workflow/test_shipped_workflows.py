"""Every workflow that is shipped can be planned as it stands: names resolve, options are valid."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lamkit import presets
from lamkit.cli import cp
from lamkit.data.dataset import open_dataset
from lamkit.errors import UserError
from lamkit.stages import STAGES
from lamkit.workflow import execute, graph, hashing, spec
from lamkit.workflow.execute import Settings

NAMES = sorted(path.stem for path in (presets.builtin() / "workflows").glob("*.yaml"))


def test_the_workflows_that_the_documentation_names_are_there() -> None:
    chains = {"quickstart", "pretrain-finetune-distill", "evaluate-model"}
    rounds = {"pfd-finetune", "pfd-distill", "concurrent-learning"}
    assert chains | rounds <= set(NAMES)


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_read_me_has_a_line_for_each_of_them(repo: Path, page: str) -> None:
    rows = re.findall(r"^\| `([\w-]+)\.yaml` \|", (repo / page).read_text(), flags=re.M)
    assert sorted(rows) == NAMES


def test_copies_as_the_files_say_them_can_be_made(repo: Path) -> None:
    pages = [*(repo / "workflows").glob("*.yaml"), *(repo / "configs").rglob("*.yaml"), repo / "README.md"]
    named = {name for page in pages for name in re.findall(r"lamkit cp (\S+)", page.read_text())}
    assert len(named) >= 4
    for name in named:
        assert cp.find(name.replace("NAME", "quickstart")).is_file(), name


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_workflow_can_be_planned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "contents", lambda text, cache: "")  # files are another matter
    source = spec.load(presets.find("workflows", name))
    plan = execute.preview(source, tmp_path / "out", STAGES, Settings())
    loops = [stage.loop for stage in source.workflow.stages.values() if stage.loop is not None]
    rounds = sum(loop.max_rounds * len(loop.stages) for loop in loops)
    assert len(plan.to_run) == len(source.workflow.stages) + rounds
    assert source.workflow.name == name
    assert source.workflow.description


@pytest.mark.parametrize("name", NAMES)
def test_the_files_that_a_shipped_workflow_reads_are_shipped(name: str, tmp_path: Path) -> None:
    source = spec.load(presets.find("workflows", name))
    try:
        execute.preview(source, tmp_path / "out", STAGES, Settings())
    except UserError as error:
        pytest.fail(str(error))


def test_the_quickstart_chains_convert_to_report() -> None:
    built = graph.build(spec.load(presets.find("workflows", "quickstart")), STAGES)
    names = graph.order(built)
    kinds = [built.nodes[name]["stage"] for name in names]
    firsts = [kinds.index(k) for k in ("convert", "pretrain", "finetune", "distill", "evaluate", "report")]
    assert firsts == sorted(firsts)
    assert graph.nx.ancestors(built, "report") == set(names) - {"report"}


@pytest.mark.slow
def test_concurrent_learning_goes_through_its_rounds(tmp_path: Path) -> None:
    """Two rounds of a few steps each; every round trains on its own new labels and those of the rounds before."""
    out = tmp_path / "out"
    inner = "stages.learn.loop.stages"
    flags = {
        "stages.begin.with.train.max_steps": 20,
        "stages.learn.loop.max_rounds": 2,
        f"{inner}.explore.with.dynamics": "{steps: 30, save_every: 5}",
        f"{inner}.select.with.n_frames": 6,
        f"{inner}.train.with.train.max_steps": 20,
    }
    words = [f"--set={key}={value}" for key, value in flags.items()]
    path = str(presets.find("workflows", "concurrent-learning"))
    command = [sys.executable, "-m", "lamkit", "run", path, "--out", str(out), *words]
    subprocess.run(command, check=True, timeout=1500)
    rounds = [len(open_dataset(out / f"learn/{k}/all_data/data")) for k in (1, 2)]
    assert rounds[0] == 12 + len(open_dataset(out / "learn/1/new_labels/data"))
    assert rounds[1] == rounds[0] + len(open_dataset(out / "learn/2/new_labels/data"))
    result = json.loads((out / "learn/2/test/result.json").read_text())
    assert result["mine"]["forces_rmse"] > 0
    assert (out / "report/report.html").is_file()


def test_planning_needs_no_mindspore(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from lamkit.workflow import execute, hashing, spec\n"
        "from lamkit import presets\n"
        "from lamkit.stages import STAGES\n"
        "hashing.contents = lambda text, cache: ''\n"
        "source = spec.load(presets.find('workflows', 'quickstart'))\n"
        "execute.preview(source, __import__('pathlib').Path('out'), STAGES, execute.Settings())\n"
        "assert 'mindspore' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=presets.builtin())
