"""What a step changes: everything, heads, upper layers, or low-rank adapters; and rows of new elements."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from lamkit import config
from lamkit.data.batch import Shape, collate, make_graph
from lamkit.data.frame import from_atoms
from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.model.runtime import setup
from lamkit.train import elements, tune
from lamkit.train.config import TrainConfig

ms = setup()

from mindspore import Tensor  # noqa: E402

from lamkit.model.potential import Potential  # noqa: E402
from lamkit.train.objective import tensors  # noqa: E402
from lamkit.train.step import TrainStep  # noqa: E402

TRUNK = TrunkConfig(latent=8, hidden=10, layers=2, head_hidden=6, cutoff=3.5, bessel=4, lmax=1)
LAYERS = "model.gnn_stacks."


def public(potential):
    """Weights of the trunk by public name."""
    return {name: p.asnumpy().copy() for name, p in potential.trunk.named() if p.requires_grad}


class Stepper:
    """A step of some kind with a batch to call it on."""

    def __init__(self, what):
        self.config = config.parse(TrainConfig, {"tune": what, "learning_rate": 0.01, "weight_decay": 0.01})
        self.potential, self.average = Potential(TRUNK, ["a"], seed=3), Potential(TRUNK, ["a"], seed=3)
        self.step = TrainStep(self.potential, self.average, self.config)
        rng = np.random.default_rng(0)
        frames = []
        for k in range(2):
            atoms = bulk("Cu", cubic=True)
            atoms.rattle(0.1, seed=k)
            frames.append(
                from_atoms(atoms, energy=float(k), forces=rng.normal(size=(4, 3)), stress=np.ones(6))
            )
        batch = collate([make_graph(f, TRUNK.cutoff, None) for f in frames], Shape(9, 400, 3), np.zeros(119))
        n = len(self.step.objective.loss.names)
        self.arguments = (Tensor(np.ones(n), ms.float32), Tensor(np.ones(3), ms.float32), *tensors(batch))

    def __call__(self, step):
        numbers = (0.01, 0.9**step, 0.99**step, 0.9**step, 0.99**step, 0.5, 0.5)
        self.step(Tensor(0, ms.int32), Tensor(np.array(numbers), ms.float32), *self.arguments)


def test_what_is_frozen_stays_to_the_last_bit():
    """Of a run that trains heads only, :mod:`test_finetuning` finds the same."""
    stepper = Stepper({"freeze": 1})
    before, heads = (
        public(stepper.potential),
        [p.asnumpy().copy() for p in stepper.potential.head_parameters()],
    )
    stepper(1)
    stepper(2)
    after = public(stepper.potential)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert all(
        not np.array_equal(a, p.asnumpy())
        for a, p in zip(heads, stepper.potential.head_parameters(), strict=True)
    )
    assert moved
    assert all(name.startswith(f"{LAYERS}1.") for name in moved)
    for name, value in public(stepper.average).items():
        assert np.array_equal(value, before[name]) == (name not in moved)


def test_adapters_move_matrices_by_products_of_their_rank_and_are_found_again_by_a_resumed_run():
    stepper = Stepper({"lora": 2})
    before = public(stepper.potential)
    stepper(1)
    stepper(2)
    saved, middle = stepper.step.state(), public(stepper.average)
    stepper(3)
    after, average = public(stepper.potential), public(stepper.average)
    ranks = {}
    for name in before:
        singular = np.linalg.svd(np.atleast_2d(after[name] - before[name]), compute_uv=False)
        ranks[name] = int((singular > 1e-5 * max(singular[0], 1e-30)).sum()) if singular[0] > 0 else 0
    adapted = {name for name, rank in ranks.items() if rank}
    assert adapted == {
        n
        for n in before
        if n.endswith(".weight") and before[n].ndim == 2 and "emb" not in n and "attn" not in n
    }
    assert {ranks[n] for n in adapted} <= {1, 2}
    assert 2 in {ranks[n] for n in adapted}
    for name in adapted:  # plain weights everywhere: nothing has to be merged by whoever reads them
        np.testing.assert_allclose(average[name], 0.5 * (middle[name] + after[name]), atol=1e-6)
    stepper.step.load_state(saved)
    for name, p in stepper.average.trunk.named():
        if name in middle:
            p.set_data(Tensor(middle[name]))
    stepper(3)
    again = public(stepper.potential)
    for name in after:
        np.testing.assert_array_equal(again[name], after[name], err_msg=name)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"freeze": 3}, "3 layers are to be frozen, the trunk has 2"),
        ({"lora": 50}, "rank of 50 is no less than"),
    ],
)
def test_more_than_there_is_cannot_be_frozen_or_adapted(what, message):
    with pytest.raises(UserError, match=message):
        tune.trained(Potential(TRUNK, ["a"]), config.parse(TrainConfig, {"tune": what}).tune)


def test_a_wrong_choice_is_said_in_one_line():
    with pytest.raises(UserError) as caught:
        config.parse(TrainConfig, {"tune": {"rank": 3}})
    assert "expected full, heads, {freeze: LAYERS} or {lora: RANK}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError) as caught:
        config.parse(TrainConfig, {"tune": {"lora": 0}})
    assert "tune: {'lora': 0}: Input should be greater than or equal to 1" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match="--tune lora: expected"):
        tune.from_text("lora")


def test_new_elements_begin_as_the_nearest_of_their_group_or_as_the_mean():
    assert elements.nearest("Au", ["Cu", "Ag", "Zr"]) == "Ag"
    assert elements.nearest("K", ["Li", "Rb", "Na"]) == "Na"  # the lighter of two neighbours
    assert elements.nearest("H", ["Li", "Na"]) is None
    assert elements.nearest("Eu", ["La", "Lu"]) == "La"


def test_rows_of_known_elements_are_not_touched(tmp_path):
    import tiny

    from lamkit.train import checkpoint

    start = checkpoint.read(tiny.write_model(tmp_path / "m"))
    changed, said = elements.with_rows(start, ["Cu", "Ag", "H", "Pt"])
    old, new = start.weights[elements.TABLE], changed.weights[elements.TABLE]
    assert said == {"Ag": "Cu", "Pt": "the mean of all known elements"}
    np.testing.assert_array_equal(new[47], old[29])
    np.testing.assert_allclose(new[78], old[[1, 8, 13, 29]].mean(axis=0), rtol=1e-6)
    rest = [z for z in range(119) if z not in (47, 78)]
    np.testing.assert_array_equal(new[rest], old[rest])
    assert elements.with_rows(replace(start), ["Cu"])[1] == {}
