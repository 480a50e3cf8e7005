"""Loops: stages repeated until a criterion is met or a budget is spent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shop import LEARN, STAGES, Shop

from lamkit.errors import UserError
from lamkit.workflow import execute, graph, journal, loops, spec, status, unroll, until


@pytest.fixture
def learning(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.write(LEARN)
    (tmp_path / "input.txt").write_text("seed;")
    return shop


def result(shop: Shop) -> dict:
    return json.loads((shop.out / "learn" / "result.json").read_text())


def test_a_loop_ends_when_its_criterion_is_met_and_what_follows_reads_the_last_round(learning: Shop) -> None:
    said = learning.run()
    assert learning.started() == ["a", "t", "v", "t", "v", "t", "v", "z"]
    assert "learn: ends: ${test}.steps >= 3 after round 3" in said
    assert not (learning.out / "learn" / "4").exists()
    assert result(learning)["n_rounds"] == 3
    assert result(learning)["converged"]
    assert [r["test.steps"] for r in result(learning)["rounds"]] == [1, 2, 3]
    third = (learning.out / "learn" / "3" / "train" / "product.txt").read_text()
    assert (learning.out / "learn" / "train" / "product.txt").read_text() == third
    assert (learning.out / "z" / "product.txt").read_text() == third + "z;"
    table = learning.verb("status", "out")[0]
    assert "learn/3/test" in table
    assert "learn/4" not in table
    assert "${test}.steps >= 3 after round 3" in table
    assert "all 9 stages are up to date; nothing to do" in learning.run()
    planned = learning.run("--dry-run", "--from", "learn/2/train")
    assert "up to 2 more rounds, until ${test}.steps >= 3" in planned
    assert "learn/4" not in planned


@pytest.mark.usefixtures("here")
class TestHere:
    """The same engine, stages in this process."""

    def test_a_round_reads_the_one_before_and_all_earlier_ones(self, learning: Shop) -> None:
        learning.here()
        home = learning.out / "learn"
        trained = {n: (home / str(n) / "train" / "product.txt").read_text() for n in (1, 2, 3)}
        tested = {n: (home / str(n) / "test" / "product.txt").read_text() for n in (1, 2)}
        assert trained[1] == "seed;a;t;"
        assert trained[2] == trained[1] + tested[1] + "t;"
        assert trained[3] == trained[2] + tested[1] + tested[2] + "t;"

    def test_a_loop_that_is_over_is_not_run_again(self, learning: Shop) -> None:
        learning.here()
        learning.forget()
        assert set(learning.here().values()) == {"up to date", "not needed"}
        assert learning.started() == []

    def test_a_stricter_criterion_goes_on_where_the_loop_ended(self, learning: Shop) -> None:
        learning.here()
        learning.forget()
        learning.edit(">= 3", ">= 4")
        learning.here()
        assert learning.started() == ["t", "v", "z"]
        assert result(learning)["n_rounds"] == 4

    def test_a_smaller_budget_takes_back_rounds_without_running_them(self, learning: Shop) -> None:
        learning.here()
        learning.forget()
        learning.here("stages.learn.loop.max_rounds=2")
        assert learning.started() == ["z"]
        assert result(learning)["n_rounds"] == 2
        assert result(learning)["ended"] == "all 2 rounds are done without ${test}.steps >= 3"
        second = (learning.out / "learn" / "2" / "train" / "product.txt").read_text()
        assert (learning.out / "z" / "product.txt").read_text() == second + "z;"
        assert "learn/3/train" not in {standing.id for standing in status.read(learning.out)}

    def test_a_budget_of_minutes_begins_no_round_after_it(
        self, learning: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(loops.Loops, "seconds", lambda self, loop, number, records: 40.0 * number)
        learning.edit("max_rounds: 4", "max_rounds: 4\n      max_minutes: 1")
        learning.here()
        assert result(learning)["ended"] == "1 minutes were spent after round 2"

    def test_a_failure_in_a_round_leaves_what_follows_and_goes_on_there(self, learning: Shop) -> None:
        learning.edit('train: {max_steps: "${round}"}', 'train: {max_steps: "${round}"}, fails_at: 2')
        states = learning.here()
        assert states["learn/2/test"] == "failed"
        assert {states[name] for name in ("learn/3/train", "learn", "z")} == {"skipped"}
        learning.forget()
        learning.edit(", fails_at: 2", "")
        learning.here()
        assert learning.started()[:2] == ["v", "t"]
        assert result(learning)["n_rounds"] == 3

    def test_a_condition_on_a_value_that_is_not_there_fails_the_loop_with_what_is(
        self, learning: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        learning.edit("${test}.steps", "${test}.stepps")
        assert learning.here()["learn"] == "failed"
        events = journal.read(learning.out / journal.NAME)
        (reason,) = [e["reason"] for e in events if e["event"] == "failed"]
        assert "learn/1/test/result.json has no 'stepps' at its top. Did you mean 'steps'?" in reason
        learning.edit("${test}.stepps", "${test}.steps")
        learning.forget()
        learning.here()
        assert learning.started()[0] == "t"
        assert result(learning)["n_rounds"] == 3

    def test_from_a_loop_runs_all_of_it_anew(self, learning: Shop) -> None:
        learning.here()
        learning.forget()
        learning.here(start=("learn",))
        assert learning.started() == ["t", "v", "t", "v", "t", "v", "z"]

    def test_from_a_round_runs_it_and_what_follows(self, learning: Shop) -> None:
        learning.here()
        learning.forget()
        learning.here(start=("learn/3/test",))
        assert learning.started() == ["v", "z"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("${train@last}", "${trian@last}", "no stage 'trian' in this loop for ${trian@last}. Did you mean 'train'?"),
        ("${train@last}", "${test@last}", "say under 'first:' what 'test' is then"),
        ("${train@last}", "${train@lst}", "expected @last, @past or @all. Did you mean 'last'?"),
        ('reads: ["${train}"]', 'reads: ["${trian}"]', "no stage 'trian' for ${trian}"),
        ("name: v,", 'name: "${test@past}",', "must be an item of a list"),
        ("${test}.steps", "${tset}.steps", "until: the loop has no stage 'tset'. Did you mean 'test'?"),
        (">= 3", "=> 3", "expected '${ID}.KEY < NUMBER'"),
        ("first: {train:", "first: {trian:", "first: the loop has no stage 'trian'"),
        ("max_rounds: 4", "max_round: 4", "unknown key. Did you mean 'max_rounds'?"),
        ("${learn}/train/product.txt", "${train}/product.txt", "inside of the loop 'learn'; from outside its last"),
        ("loop:", "stage: fake\n    loop:", "give either 'stage:' (with 'with:') or 'loop:'"),
        ("        test:", "        a:", "unique in the whole file"),
        ("train: {max_steps", "train: {max_stps", "train.max_stps: unknown key. Did you mean 'max_steps'?"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_line_and_suggestion(
    tmp_path: Path, stages: dict[str, str], old: str, new: str, message: str
) -> None:
    assert old in LEARN
    (tmp_path / "flow.yaml").write_text(LEARN.replace(old, new))
    (tmp_path / "input.txt").write_text("x")
    with pytest.raises(UserError) as caught:
        execute.preview(spec.load(tmp_path / "flow.yaml"), tmp_path / "out", STAGES, execute.Settings())
    assert message in str(caught.value)
    assert "flow.yaml:" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_an_override_inside_of_a_loop_is_checked(tmp_path: Path) -> None:
    (tmp_path / "flow.yaml").write_text(LEARN)
    source = spec.load(tmp_path / "flow.yaml", ["stages.learn.loop.stages.train.with.pause=1"])
    assert source.workflow.stages["learn"].loop.stages["train"].options["pause"] == 1
    with pytest.raises(UserError, match=r"the loop 'learn' has no stage 'trian'\. Did you mean 'train'"):
        spec.load(tmp_path / "flow.yaml", ["stages.learn.loop.stages.trian.with.pause=1"])


def test_a_criterion_may_have_to_hold_for_rounds_one_after_the_other() -> None:
    text = "${test}.mine.forces_rmse < 0.05 for 2 rounds"
    condition = until.parse(text)
    assert condition.keys == ("mine", "forces_rmse")
    values = [{text: v} for v in (0.04, 0.06, 0.049, 0.03)]
    assert [until.hold([condition], values[:n]) for n in range(1, 5)] == [False, False, False, True]
    assert not until.hold([], values)


def test_rounds_wait_for_each_other_even_without_reading(tmp_path: Path) -> None:
    text = LEARN.replace('reads: ["${train@last}", "${test@past}"]', "reads: []")
    (tmp_path / "flow.yaml").write_text(text)
    built = graph.build(spec.load(tmp_path / "flow.yaml"), STAGES)
    assert "learn/1/test" in graph.nx.ancestors(built, "learn/2/train")
    assert graph.inputs(built, "learn/2/train") == []
    assert unroll.node_id("learn", 4, "test") in graph.nx.ancestors(built, "learn")
