"""Every YAML file that is shipped loads with its model and means what its name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamkit import config, presets
from lamkit.cli import ls
from lamkit.data.heads import HeadConfig
from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig, architecture
from lamkit.stages import STAGES
from lamkit.train.config import TrainConfig
from lamkit.workflow import graph, spec

ROOT = presets.builtin()
CONFIGS = {
    "trunk": lambda path: config.load(TrunkConfig, path),
    "train": lambda path: config.load(TrainConfig, path),
    "student": lambda path: architecture(config.read_yaml(path)[0], str(path)),
}


def shipped(pattern: str) -> list[Path]:
    return sorted(ROOT.glob(pattern))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", shipped("heads/*.yaml"), ids=name_of)
def test_head_says_what_its_data_are(path):
    head = config.load(HeadConfig, path)
    assert head.name == path.stem
    assert head.title
    assert head.citation
    assert head.source.licence, "data without a licence cannot be used"
    assert head.source.path or head.source.url or head.source.how, "nobody could find these data"
    if head.source.path:
        assert (presets.sample_data() / head.source.path).exists()


@pytest.mark.parametrize("path", shipped("configs/**/*.yaml"), ids=name_of)
def test_config_loads_with_its_model(path):
    kind = path.parent.name
    assert kind in CONFIGS, f"{path}: which model reads configs/{kind}?"
    CONFIGS[kind](path)


@pytest.mark.parametrize("path", shipped("workflows/*.yaml"), ids=name_of)
def test_workflow_is_a_graph_of_known_stages(path):
    source = spec.load(path)
    assert source.workflow.name == path.stem
    assert source.workflow.description
    assert graph.order(graph.build(source, STAGES))


@pytest.mark.parametrize("kind", presets.KINDS)
def test_every_kind_has_files(kind):
    assert shipped(f"{kind}/**/*.yaml")


def test_every_folder_of_configs_is_listed():
    assert set(ls.kinds("configs")) == {f"configs/{kind}" for kind in CONFIGS}


def test_a_file_of_the_users_own_wins(tmp_path, monkeypatch):
    (tmp_path / "here" / "heads").mkdir(parents=True)
    (tmp_path / "elsewhere" / "heads").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("LAMKIT_PATH", str(tmp_path / "elsewhere"))
    assert presets.find("heads", "mptrj") == ROOT / "heads" / "mptrj.yaml"
    second = tmp_path / "elsewhere" / "heads" / "mptrj.yaml"
    second.write_text("")
    assert presets.find("heads", "mptrj") == second
    first = tmp_path / "here" / "heads" / "mptrj.yaml"
    first.write_text("")
    assert presets.find("heads", "mptrj") == first


def test_a_wrong_name_is_answered_with_the_right_one():
    with pytest.raises(UserError, match=r"no head named 'mptrjj'\. Did you mean 'mptrj'\?.*Looked in"):
        presets.find("heads", "mptrjj")
