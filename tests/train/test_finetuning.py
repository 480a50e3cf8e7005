"""Fine-tuning runs, small: never worse than the start, old heads watched and replayed, several heads at once."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from toy_data import FAST, TINY, make_dataset

from lamkit import config
from lamkit.cli import main
from lamkit.cli.training import run_folder
from lamkit.console import log
from lamkit.errors import UserError
from lamkit.stages import beginning, evaluate, finetune, pretrain, rebias, replay, sources
from lamkit.train import checkpoint
from lamkit.train.config import TrainConfig
from lamkit.train.tasks import make_task

SHORT = {**FAST, "max_steps": 4, "valid_every": 2}


@pytest.fixture(scope="module")
def base(emt_data, tmp_path_factory):
    """A checkpoint of two heads."""
    out = tmp_path_factory.mktemp("base") / "run"
    data = {k: str(emt_data[k]) for k in ("cu", "alloy")}
    pretrain.run(
        pretrain.Options(data=data, trunk=TINY, train={**FAST, "max_steps": 30, "valid_every": 30}), out
    )
    return out


def tuned(base, out, **options):
    return finetune.run(config.parse(finetune.Options, {"checkpoint": str(base), **options}), out)


def rows(out, step):
    """Rows of metrics.csv of a step, by head."""
    lines = [line.split(",") for line in (out / "metrics.csv").read_text().splitlines()[1:]]
    return {row[1]: row for row in lines if int(row[0]) == step}


@pytest.fixture(scope="module")
def harmed(base, tmp_path_factory):
    """A run of the heads alone, so hasty that it does harm, on data 3 eV per atom lower."""
    root = tmp_path_factory.mktemp("harmed")
    for part, seed in (("train", 1), ("valid", 2)):
        make_dataset(root / "data" / part, ["Cu"], 6, seed=seed, shift=-3.0)
    hasty = {
        "learning_rate": 3.0,
        "warmup_steps": 0,
        "ema": 0.0,
        "max_steps": 40,
        "patience": 2,
        "tune": "heads",
    }
    train = {**SHORT, **hasty, "valid_frames": 64}
    return root, tuned(base, root / "tuned", head="cu", data=str(root / "data"), train=train)


def test_training_that_does_harm_returns_the_start_with_its_reference_refitted(base, harmed):
    root, result = harmed
    assert result["best_step"] == 0
    assert result["steps"] == 4  # patience
    assert result["heads"]["cu"] == result["first"]["cu"]
    assert result["last"]["cu"]["forces_rmse"] > result["first"]["cu"]["forces_rmse"]
    start, best = checkpoint.read(base), checkpoint.read(root / "tuned")
    for name, value in start.weights.items():
        np.testing.assert_array_equal(best.weights[name], value, err_msg=name)
    assert best.references["cu"][29] - start.references["cu"][29] == pytest.approx(-3.0, abs=0.2)


def test_heads_alone_leave_the_trunk_and_the_other_heads_to_the_last_bit(base, harmed):
    root, result = harmed
    start, last = checkpoint.read(base), checkpoint.read(root / "tuned" / "checkpoints" / "last")
    moved = {name for name, value in start.weights.items() if not np.array_equal(last.weights[name], value)}
    assert moved
    assert all(name.startswith("heads.cu.") for name in moved)
    kept = result["retention"]["alloy"]
    assert kept["labels"] == "real"
    assert kept["forces_rmse_after"] == kept["forces_rmse_before"] > 0


def test_step_zero_is_the_base_model_plus_the_shift_of_its_reference(base, harmed, tmp_path):
    root, result = harmed
    data = str(root / "data")
    only = rebias.run(rebias.Options(checkpoint=str(base), head="cu", data=data), tmp_path / "rebias")
    assert only["reference"]["Cu"] == pytest.approx(
        checkpoint.read(root / "tuned").references["cu"][29], abs=1e-6
    )
    assert only["energy_rmse_before"] == pytest.approx(3.0, abs=0.2)
    assert only["energy_rmse_after"] < 0.1 * only["energy_rmse_before"]
    options = evaluate.Options(model=only["checkpoint"], data={"cu": f"{data}/valid"})
    alone, zero = evaluate.run(options, None)["cu"], rows(root / "tuned", 0)["cu"]
    for column, name in ((3, "energy_mae"), (5, "forces_mae"), (6, "forces_rmse")):
        assert float(zero[column]) == pytest.approx(1000 * alone[name], rel=1e-3, abs=0.01), name
        assert result["first"]["cu"][name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5)


@pytest.mark.slow
def test_several_heads_at_once_with_old_ones_replayed_on_their_own_labels(base, emt_data, tmp_path):
    gold = make_dataset(tmp_path / "gold", ["Au"], 8, seed=5)
    replay = {"n_frames": 8, "temperatures": [300.0], "probability": 0.4}
    result = tuned(
        base, tmp_path / "tuned", head=["gold", "silver"], data={"gold": str(gold), "silver": str(emt_data["ag"])},
        replay=replay, init={"gold": "alloy"}, train={**SHORT, "max_steps": 6, "tune": {"lora": 2}},
    )  # fmt: skip
    assert result["head"] == ["gold", "silver"]
    assert result["began_as"]["gold"] == "alloy"
    assert result["began_as"]["silver"] == result["ranking"]["silver"][0]["head"]
    assert result["new_elements"] == {"Au": "Ag"}
    # silver and gold hold no copper, but the old heads' own data are still there to explore from
    assert result["replayed"] == ["cu", "alloy"]
    assert result["chances"]["cu"] + result["chances"]["alloy"] == pytest.approx(0.4)
    table = result["retention"]
    assert {head: table[head]["labels"] for head in table} == {"cu": "real", "alloy": "real"}
    assert all(np.isfinite(table[h][f"forces_rmse_{w}"]) for h in table for w in ("before", "after"))
    start, new = checkpoint.read(base), checkpoint.read(tmp_path / "tuned")
    assert new.heads == ("gold", "silver", "cu", "alloy")
    np.testing.assert_array_equal(new.references["alloy"], start.references["alloy"])
    assert new.head_configs["cu"] == start.head_configs["cu"]
    assert json.loads((tmp_path / "tuned" / "result.json").read_text())["retention"] == table


@pytest.mark.slow
def test_without_data_an_old_head_is_watched_on_its_own_labels(base, emt_data, tmp_path):
    """As for a checkpoint from elsewhere, whose data are not on this machine."""
    import shutil

    moved = tmp_path / "model"
    shutil.copytree(base / "checkpoints" / "best", moved)
    text = (moved / "config.yaml").read_text().replace(str(emt_data["cu"].parent), "/no/such/folder")
    (moved / "config.yaml").write_text(text)
    train = {**SHORT, "valid_fraction": 0.01}  # one frame: none tells chance, which would hand back the start
    result = tuned(moved, tmp_path / "tuned", head="ag", data=str(emt_data["ag"]), train=train, init="alloy")
    kept = result["retention"]["alloy"]  # knows silver; cu does not
    assert kept["labels"] == "own"
    assert kept["forces_rmse_before"] < 1e-4 < kept["forces_rmse_after"]
    assert result["not_measured"] == ["cu"]


def test_no_head_is_random_and_no_element_new_in_silence(base, emt_data, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    start, facts = checkpoint.read(base), sources.head_of("ag", emt_data["ag"])
    task = make_task("ag", emt_data["ag"], facts, valid_fraction=0.2, seed=0)
    assert beginning.begin(start, task, "random", None).origin is None
    assert "head ag begins with random weights, as asked" in caplog.text
    pretrain._going_on([task], start)
    assert "ag: no head of" in caplog.text
    assert "random weights to begin with" in caplog.text
    gold = replace(task, elements=("Au",))
    beginning.warn(start, gold, {"Au": "Ag"}, "full")
    assert "Au never occurred in the data of" in caplog.text
    assert "begins as Ag" in caplog.text
    assert "stays so" not in caplog.text
    beginning.warn(start, gold, {"Au": "Ag"}, "heads")
    assert "stays so" in caplog.text


def test_a_run_that_was_stopped_before_it_trained_can_be_called_again(tmp_path):
    out = tmp_path / "run"
    for name in ("data", "retention"):
        (out / name / "cu").mkdir(parents=True)
    args = SimpleNamespace(out=str(out), resume=False, node=None)
    assert run_folder(args, "other") == out
    assert [p.name for p in out.iterdir()] == ["data"]  # labels may be those of another starting model
    (out / "config.yaml").write_text("")
    with pytest.raises(UserError, match="already holds a run"):
        run_folder(args, "other")


def test_an_old_head_replays_real_data_where_they_are_given(base, emt_data, tmp_path):
    start, facts = checkpoint.read(base), sources.head_of("ag", emt_data["ag"])
    new = make_task("ag", emt_data["ag"], facts, valid_fraction=0.2, seed=0)
    wanted = replay.Replay(heads=["cu"], data={"cu": str(emt_data["cu"])})
    [old] = replay.tasks(start, wanted, [new], TrainConfig(), tmp_path, "CPU")
    assert old.train.dataset.path == emt_data["cu"]
    np.testing.assert_array_equal(
        old.reference.reference, start.references["cu"]
    )  # under which it was trained
    assert not list(tmp_path.iterdir())  # nothing was explored
    chances = replay.chances([new], [old], wanted, TrainConfig())
    assert chances == pytest.approx({"ag": 0.5, "cu": 0.5})


def test_rank_heads_prints_each_head_with_its_card(base, emt_data, capsys):
    assert main(["rank-heads", str(base), "--data", str(emt_data["ag"]), "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    ranking = found["ranking"]
    assert [r["forces_rmse"] for r in ranking] == sorted(r["forces_rmse"] for r in ranking)
    unseen = {r["head"]: r["unseen"] for r in ranking}
    assert unseen == {"cu": ["Ag"], "alloy": []}
    assert {r["head"]: r["level_of_theory"]["functional"] for r in ranking}["alloy"] == "EMT -100 eV/atom"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "x", "init": "copper"}, r"init: no head named 'copper'.*Known: auto, random, cu, alloy"),
        ({"head": ["x", "y"]}, "2 heads, one folder"),
        ({"head": "x", "replay": {"heads": ["gold"]}}, r"'gold' is no old head of .*It has: cu, alloy"),
        ({"head": "x", "init": {"y": "cu"}}, "init: 'y' is no head of this run"),
        ({"head": "cu", "replay": {"data": {"cu": "d"}}}, "'cu' is no old head"),
        (
            {"head": "x", "replay": {"data": {"cu": "/gone"}}},
            r"replay\.data: /gone: no such data set \(for head 'cu'",
        ),
    ],
)
def test_wrong_choices_of_heads_are_refused_before_training(base, emt_data, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        tuned(base, tmp_path / "out", data=str(emt_data["cu"]), train=SHORT, **{"init": "cu", **options})
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_head_called_auto_takes_the_name_that_its_data_have(emt_data):
    from lamkit.stages.beginning import named_by_data

    assert named_by_data("auto", str(emt_data["ag"])) == {"ag": str(emt_data["ag"])}
    with pytest.raises(UserError, match="which data"):
        named_by_data("auto", None)
