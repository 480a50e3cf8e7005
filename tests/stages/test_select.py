"""The stage that chooses: by features of a tiny untrained model, which tell structures apart all the same."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import tiny
from ase.build import bulk

from lamkit.calculator import LamCalculator
from lamkit.data.dataset import open_dataset
from lamkit.errors import Interrupted, UserError
from lamkit.stages import select


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("select") / "model")


@pytest.fixture
def structures(tmp_path) -> Path:
    """Twelve frames: eight of one structure, three others, one with atoms on top of each other."""
    rattled = tiny.metals(3, seed=5)
    squeezed = bulk("Cu", cubic=True)
    squeezed.positions[1] = squeezed.positions[0] + [0.6, 0, 0]
    path = tmp_path / "structures.xyz"
    ase.io.write(path, [*[bulk("Cu", cubic=True)] * 8, *rattled, squeezed])
    return path


def options(data: Path, model: Path, **more) -> select.Options:
    return select.Options(data=str(data), model=str(model), **{"n_frames": 4, "chunk": 5, **more})


def test_choice_is_diverse_and_sane(structures, model, tmp_path):
    result = select.run(options(structures, model), tmp_path / "out")
    assert result["dropped"] == {"Cu-Cu too close": 1}
    assert len(result["indices"]) == 4
    assert set(result["indices"]) >= {8, 9, 10}
    assert sum(i < 8 for i in result["indices"]) == 1
    assert result["redundancy"] == pytest.approx(1.0)
    assert len(open_dataset(result["data"])) == 4


def test_no_frame_is_chosen_twice_however_many_are_asked(structures, model, tmp_path):
    result = select.run(options(structures, model, n_frames=100), tmp_path / "out")
    assert result["n_frames"] == 4


def test_what_was_taken_before_is_not_taken_again(structures, model, tmp_path):
    plain = tmp_path / "taken.xyz"
    ase.io.write(plain, bulk("Cu", cubic=True))
    result = select.run(options(structures, model, taken=[str(plain)]), tmp_path / "out")
    assert set(result["indices"]) == {8, 9, 10}


def test_random_choice_needs_no_model(structures, tmp_path):
    given = {"data": str(structures), "method": "random", "n_frames": 5}
    first = select.run(select.Options(**given, seed=1), tmp_path / "a")
    again = select.run(select.Options(**given, seed=1), tmp_path / "b")
    other = select.run(select.Options(**given, seed=2), tmp_path / "c")
    assert first["indices"] == again["indices"] != other["indices"]
    assert 11 not in first["indices"]


def test_entropy_chooses_without_a_model(structures, tmp_path):
    result = select.run(
        select.Options(data=str(structures), method="entropy", n_frames=4, chunk=5), tmp_path / "out"
    )
    assert set(result["indices"]) >= {8, 9, 10}
    assert sum(i < 8 for i in result["indices"]) == 1
    assert result["redundancy"] == pytest.approx(1.0)


def test_resume_does_not_redo_features(structures, model, tmp_path, monkeypatch):
    calls = []
    original = LamCalculator.predict

    def stops_in_the_second(self, atoms, latent=False):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(len(atoms))
        return original(self, atoms, latent)

    monkeypatch.setattr(LamCalculator, "predict", stops_in_the_second)
    with pytest.raises(Interrupted, match="--resume"):
        select.run(options(structures, model), tmp_path / "out")
    rest = []
    monkeypatch.setattr(
        LamCalculator, "predict", lambda s, a, latent=False: rest.append(len(a)) or original(s, a, latent)
    )
    result = select.run(options(structures, model, resume=True), tmp_path / "out")
    assert (calls, rest) == ([5], [5, 1])
    assert len(result["indices"]) == 4


def test_features_are_memory_mapped_and_in_order(structures, model, tmp_path):
    from lamkit.stages.engine import read_frames

    source = read_frames(structures)
    calculator = LamCalculator(model, head="metals")
    latents = select.latents_of(calculator)
    features = select.features_of(source, np.arange(11), latents, tmp_path / "f", 4)
    assert isinstance(features, np.memmap)
    whole = select.features_of(source, np.arange(11), latents, tmp_path / "g", 100)
    np.testing.assert_allclose(features, whole, atol=1e-5)


def test_wrong_options_are_explained(structures, model, tmp_path):
    with pytest.raises(UserError, match="needs a model"):
        select.run(select.Options(data=str(structures)), tmp_path / "a")
    with pytest.raises(UserError, match="no head named 'metal'"):
        select.run(options(structures, model, head="metal"), tmp_path / "b")
    with pytest.raises(UserError, match="no frame keeps to the limits"):
        select.run(options(structures, model, limits={"min_distance": 5.0}), tmp_path / "c")
