"""What ``lamkit pretrain`` makes of its command line, without training."""

from __future__ import annotations

import pytest

from lamkit import presets
from lamkit.cli import main
from lamkit.errors import UserError
from lamkit.stages import pretrain
from lamkit.train import checkpoint


@pytest.fixture
def understood(monkeypatch, tmp_path):
    """Options that a command line leads to."""
    monkeypatch.chdir(tmp_path)

    def parse(*words: str) -> pretrain.Options:
        seen: list[pretrain.Options] = []
        monkeypatch.setattr(pretrain, "run", lambda options, out: seen.append(options) or {})
        main(["pretrain", "--heads", "pbe_oxides", "-q", *words])
        return seen[0]

    return parse


def test_weights_come_with_their_trunk_unless_another_is_asked_for(understood):
    base = presets.examples() / "base"
    own = checkpoint.read(base).trunk
    assert understood("--from", str(base)).trunk == own
    assert understood("--from", str(base), "--trunk", "orb-v3-tiny").trunk != own
    assert understood().trunk != own


def test_another_trunk_than_that_of_the_weights_is_refused(tmp_path):
    base = presets.examples() / "base"
    options = pretrain.Options(heads=["pbe_oxides"], init=str(base), trunk="orb-v3-tiny")
    with pytest.raises(UserError, match=r"its trunk is not the one of this run"):
        pretrain.run(options, tmp_path)
