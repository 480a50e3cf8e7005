"""Options that name a head that the run does not have are refused before data are read."""

import pytest

from lamkit.errors import UserError
from lamkit.stages import pretrain
from lamkit.train.config import TrainConfig
from lamkit.train.early import refuse_unknown_heads

NAMED = [
    ("weights", {"weights": {"a": 1, "cuu": 1}}),
    ("epochs", {"epochs": {"cuu": 2}}),
    ("head_batch_atoms", {"head_batch_atoms": {"cuu": 64}}),
    ("loss.heads", {"loss": {"heads": {"cuu": {"forces": 7}}}}),
]


@pytest.mark.parametrize(("option", "given"), NAMED)
def test_an_option_that_names_an_unknown_head_is_refused(option, given):
    config = TrainConfig(**given)
    with pytest.raises(UserError, match=rf"train\.{option}: no head named 'cuu'\. Did you mean 'cu'\?"):
        refuse_unknown_heads(config, ["a", "cu"])
    refuse_unknown_heads(config, ["a", "cuu"])


def test_pretraining_refuses_it_before_it_converts_data(tmp_path):
    options = pretrain.Options(train={"preset": "pretrain", "weights": {"mptrjj": 1}})
    with pytest.raises(UserError, match="train.weights: no head named 'mptrjj'"):
        pretrain.run(options, tmp_path / "out")
    assert not (tmp_path / "out").exists()
