"""What the README shows is true: files exist, YAML loads, commands parse, the snippet runs."""

import re
import shlex
import subprocess
import sys

import pytest
import yaml

from lamkit import config
from lamkit.data.heads import HeadConfig


@pytest.fixture(scope="module")
def readme(repo):
    return (repo / "README.md").read_text()


def blocks(readme, language):
    return re.findall(rf"```{language}\n(.*?)```", readme, flags=re.S)


def commands(readme):
    """Every `lamkit …` line of the bash blocks, without comments."""
    lines = [line.split("  #")[0] for block in blocks(readme, "bash") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("lamkit ")]


def test_there_are_exactly_two_set_up_commands(readme):
    found = [
        line for block in blocks(readme, "bash") for line in block.splitlines() if line.startswith("bash ")
    ]
    assert found == ["bash examples/quickstart.sh", "bash tests/run.sh"]


def test_ci_runs_the_test_command_of_the_readme(repo):
    lines = [line for line in (repo / ".ci" / "run").read_text().splitlines() if line and line[0] != "#"]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "exec bash tests/run.sh"]


def test_every_path_named_exists(repo, readme):
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert (repo / path).exists(), path
    for path in re.findall(r"^\| `([\w./]+/)` \|", readme, flags=re.M):
        assert (repo / path).is_dir(), path


def test_every_verb_and_flag_shown_is_known(readme):
    shown = commands(readme)
    assert len(shown) >= 4
    for words in shown:
        verb = words[:2] if words[0] == "data" else words[:1]
        page = subprocess.run(
            [sys.executable, "-m", "lamkit", *verb, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for flag in (w for w in words if w.startswith("--")):
            assert flag in page, (words, flag)


def test_the_table_of_verbs_is_the_command_line(readme):
    from lamkit.cli import VERBS

    table = readme[readme.index("| verb | does |") :]
    cells = re.findall(r"^\| (`.*?) \|", table, flags=re.M)
    shown = {word.split()[0] for cell in cells for word in re.findall(r"`([^`]+)`", cell)}
    shown -= {"info", "check", "split", "fetch"}
    assert shown == set(VERBS)


def test_the_head_shown_loads(readme, tmp_path):
    [text] = [b for b in blocks(readme, "yaml") if "heads/mine.yaml" in b]
    (tmp_path / "mine.yaml").write_text(text)
    assert config.load(HeadConfig, tmp_path / "mine.yaml").name == "mine"


def test_the_pretraining_shown_is_valid(readme):
    from lamkit.stages import pretrain

    [text] = [b for b in blocks(readme, "yaml") if b.startswith("# pretrain.yaml")]
    assert config.parse(pretrain.Options, yaml.safe_load(text)).train.sampling_exponent == 0.5


@pytest.mark.parametrize(
    ("place", "other"),
    [
        ("README.md", "README.zh.md"),
        ("examples/ase/README.md", "examples/ase/README.zh.md"),
        ("examples/deepmd/README.md", "examples/deepmd/README.zh.md"),
    ],
)
def test_the_chinese_pages_show_the_same_commands(repo, place, other):
    ours, theirs = ((repo / path).read_text() for path in (place, other))
    assert re.findall(r"```(.*?)```", theirs, flags=re.S) == re.findall(r"```(.*?)```", ours, flags=re.S)
    headings = [len(re.findall(r"^## ", text, flags=re.M)) for text in (ours, theirs)]
    assert headings[0] == headings[1]
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", theirs):
        assert ((repo / other).parent / path).exists(), path


def test_the_loop_the_cluster_and_the_dft_shown_are_valid(readme, tmp_path):
    from lamkit.stages import label
    from lamkit.workflow import cluster

    shown = {name: text for text in blocks(readme, "yaml") for name in re.findall(r"^# (\w+\.yaml)", text)}
    for name, text in shown.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "lamkit", "graph", "loop.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert config.parse(label.Options, {"data": ".", **yaml.safe_load(shown["dft.yaml"])}).cp2k.cutoff == 800
    (tmp_path / "machine.json").write_text('{"batch_type": "Slurm", "context_type": "LocalContext"}')
    pytest.importorskip("dpdispatcher")
    assert cluster.read_cluster(tmp_path / "cluster.yaml").kind_of("finetune") == "train"


def test_the_workflow_shown_can_be_planned(readme, tmp_path):

    [text] = [b for b in blocks(readme, "yaml") if b.startswith("# flow.yaml")]
    (tmp_path / "flow.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "lamkit", "graph", "flow.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "s0 --> s1" in done.stdout
    assert "s1 --> s2" in done.stdout
