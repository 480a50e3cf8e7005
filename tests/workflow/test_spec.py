"""The workflow file: strict keys, references, overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamkit.errors import UserError
from lamkit.workflow import spec


def write(folder: Path, text: str) -> Path:
    path = folder / "flow.yaml"
    path.write_text(text)
    return path


def test_an_unknown_key_is_named_with_its_line_and_a_suggestion(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\nstages:\n  a:\n    stage: fake\n    wiht: {}\n")
    with pytest.raises(UserError, match=r"flow.yaml:5: stages.a.wiht: unknown key. Did you mean 'with'"):
        spec.load(path)


def test_a_stage_given_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\nstages:\n  a: {stage: fake}\n  a: {stage: fake}\n")
    with pytest.raises(UserError, match=r"flow.yaml:4: key 'a' is given twice"):
        spec.load(path)


@pytest.mark.parametrize("name", ["here", "../up", "a b", ".hidden"])
def test_the_id_of_a_stage_must_be_a_folder_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, f"name: x\nstages:\n  '{name}': {{stage: fake}}\n")
    with pytest.raises(UserError, match="cannot be the id of a stage"):
        spec.load(path)


def test_a_workflow_without_stages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one stage"):
        spec.load(write(tmp_path, "name: x\nstages: {}\n"))


def test_an_override_reaches_a_nested_option(tmp_path: Path) -> None:
    path = write(tmp_path, "name: x\nstages:\n  a: {stage: fake, with: {train: {max_steps: 400}}}\n")
    source = spec.load(path, ["stages.a.with.train.max_steps=10"])
    assert source.workflow.stages["a"].options == {"train": {"max_steps": 10}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.pretain.with.seed=1", "no stage 'pretain'. Did you mean 'pretrain'"),
        ("pretrain.seed=1", "write stages.pretrain.with.seed=VALUE"),
    ],
)
def test_a_misspelt_override_makes_no_new_stage(tmp_path: Path, override: str, message: str) -> None:
    path = write(tmp_path, "name: x\nstages:\n  pretrain: {stage: fake}\n")
    with pytest.raises(UserError, match=message):
        spec.load(path, [override])


def test_references_are_found_and_filled_at_any_depth() -> None:
    options = {"data": {"head": "${a}/data"}, "files": ["${here}/x", "plain", 3], "both": "${a}:${b}"}
    assert list(spec.references(options)) == [
        (("data", "head"), "a"),
        (("files", 0), "here"),
        (("both",), "a"),
        (("both",), "b"),
    ]
    filled = spec.fill(options, {"a": "/w/a", "b": "/w/b", "here": "/h"})
    assert filled == {"data": {"head": "/w/a/data"}, "files": ["/h/x", "plain", 3], "both": "/w/a:/w/b"}
