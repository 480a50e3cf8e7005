"""What ``lamkit pretrain`` makes of its command line and config file, without training."""

from __future__ import annotations

import pytest

from lamkit import presets
from lamkit.cli import main
from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.stages import pretrain
from lamkit.train import checkpoint
from lamkit.train.run import Run

BASE = presets.examples() / "base"


@pytest.fixture
def planned(monkeypatch, tmp_path):
    """The trunk that a command line leads to."""
    monkeypatch.chdir(tmp_path)
    seen: list[Run] = []

    def train(plan: Run, **_: object) -> dict:
        seen.append(plan)
        return {"checkpoint": "", "best_step": 0}

    monkeypatch.setattr("lamkit.train.run.train", train)

    def parse(*words: str) -> TrunkConfig:
        main(["pretrain", *words, "--heads", "pbe_oxides", "-q", "--out", f"run{len(seen)}"])
        return seen[-1].trunk

    return parse


def test_weights_come_with_their_trunk(planned, tmp_path):
    own = checkpoint.read(BASE).trunk
    assert planned("--from", str(BASE)) == own
    (tmp_path / "input.yaml").write_text(f"init: {BASE}\n")
    assert planned(str(tmp_path / "input.yaml")) == own
    assert planned() != own


def test_without_weights_keys_of_the_default_trunk_can_be_set(planned):
    assert planned("--set", "trunk.latent=40").latent == 40


def test_another_trunk_than_that_of_the_weights_is_refused(tmp_path):
    given = {"heads": ["pbe_oxides"], "init": str(BASE), "trunk": "orb-v3-tiny"}
    with pytest.raises(UserError, match=r"its trunk is not the one of this run"):
        pretrain.run(pretrain.Options(**given), tmp_path)


def test_a_deeppot_has_no_trunk_to_share(tmp_path, monkeypatch):
    from lamkit.model.config import DeepPotConfig, Surroundings

    known = Surroundings(elements=["H"], sel=[4], slots=4, deviations=[(1.0, 1.0)], min_distance=1.0)
    alone = DeepPotConfig(version="deeppot-se", embedding=[4], axis=2, fitting=[4], surroundings=known)
    start = checkpoint.Checkpoint(tmp_path / "student", alone, ("water",), {}, {}, {}, {})
    monkeypatch.setattr(checkpoint, "read", lambda path: start)
    with pytest.raises(UserError, match=r"student: a DeepPot, which has no trunk to share"):
        pretrain.run(pretrain.Options(heads=["pbe_oxides"], init=str(tmp_path)), tmp_path)


def test_keys_of_a_trunk_that_comes_with_weights_cannot_be_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["pretrain", "--heads", "pbe_oxides", "--from", str(BASE), "--set", "trunk.cutoff=5.5"]
    assert main(words) == 2
    assert "--set trunk.cutoff=5.5: the weights of" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("verb", [["pretrain", "--multitask"], ["finetune", "--head", "pbe_oxides"]])
def test_a_run_that_is_refused_leaves_no_folder_but_one_that_was_there(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    for out in ("new", "old"):
        assert main([*verb, "--from", "nosuch", "--out", out]) == 2
        assert "nosuch: no such checkpoint" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
