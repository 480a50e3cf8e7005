import numpy as np
import pytest
from toy_data import TINY

from lamkit.data.heads import HeadConfig
from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.train import checkpoint


def sample(path, heads=("a", "b")):
    level = {"method": "DFT", "functional": "PBE"}
    return checkpoint.Checkpoint(
        path=path,
        trunk=TrunkConfig(**TINY),
        heads=heads,
        weights={"model.x": np.arange(6, dtype=np.float32).reshape(2, 3)},
        references={h: np.linspace(-1e4, 1, 119) for h in heads},
        head_configs={h: HeadConfig(name=h, level_of_theory=level) for h in heads},
        elements={h: ["Cu"] for h in heads},
        config={"verb": "pretrain"},
        state={"step": 3},
    )


def test_what_is_written_is_read_back_exactly(tmp_path):
    old = sample(tmp_path)
    checkpoint.write(tmp_path / "run/checkpoints/best", old, {"m": np.ones(3, np.float32)})
    new = checkpoint.read(tmp_path / "run")
    assert (new.heads, new.trunk, new.state, new.elements) == (old.heads, old.trunk, old.state, old.elements)
    assert new.references["a"].dtype == np.float64
    np.testing.assert_array_equal(new.references["b"], old.references["b"])
    np.testing.assert_array_equal(new.weights["model.x"], old.weights["model.x"])
    assert list(checkpoint.read_optimizer(new.path)) == ["m"]
    assert sorted(p.name for p in (tmp_path / "run/checkpoints").iterdir()) == ["best"]


def test_a_checkpoint_is_replaced_whole(tmp_path):
    checkpoint.write(tmp_path / "c", sample(tmp_path))
    checkpoint.write(tmp_path / "c", sample(tmp_path, heads=("a",)))
    assert checkpoint.read(tmp_path / "c").heads == ("a",)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "config.yaml", "heads/a.yaml"])
def test_a_missing_or_truncated_part_is_named(tmp_path, name):
    checkpoint.write(tmp_path / "c", sample(tmp_path))
    file = tmp_path / "c" / name
    text = file.read_bytes()
    file.write_bytes(text[: len(text) // 2])
    with pytest.raises(UserError, match=file.name.split(".")[0]):
        checkpoint.read(tmp_path / "c")
    file.unlink()
    with pytest.raises(UserError):
        checkpoint.read(tmp_path / "c")


def test_an_unknown_head_gets_a_suggestion(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'mptrj'"):
        sample(tmp_path, heads=("mptrj", "b")).head("mptraj")
    with pytest.raises(UserError, match="several heads"):
        sample(tmp_path).head(None)


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint.read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a checkpoint"):
        checkpoint.read(tmp_path)
