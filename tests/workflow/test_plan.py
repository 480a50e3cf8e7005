"""What runs, and why, as ``--dry-run`` says it."""

from __future__ import annotations

import shutil

import pytest
from shop import Shop

from lamkit.errors import UserError
from lamkit.workflow import code, execute, hashing, plan, spec, task
from lamkit.workflow.execute import Settings
from lamkit.workflow.plan import Choice

pytestmark = pytest.mark.usefixtures("stages")


def why(
    shop: Shop, *overrides: str, common: dict[str, object] | None = None, **choice: object
) -> dict[str, str]:
    """Stage → reason, of the stages that would run."""
    source = spec.load(shop.home / "flow.yaml", overrides)
    settings = Settings(Choice(**choice), common=common or {})
    made = execute.preview(source, shop.out, {"fake": "fake_stage"}, settings)
    return {name: decision.why for name, decision in made.decisions.items() if decision.runs}


def test_all_stages_of_a_new_workflow_were_never_run(shop: Shop) -> None:
    assert why(shop) == dict.fromkeys("abcde", "never run")
    assert not shop.out.exists()


def test_nothing_runs_twice(ran: Shop) -> None:
    assert why(ran) == {}


def test_a_changed_option_is_named_and_reaches_the_descendants_only(ran: Shop) -> None:
    assert why(ran, "stages.b.with.train.max_steps=4") == {
        "b": "option train.max_steps changed 2 → 4",
        "d": "upstream b will run",
    }


def test_an_option_that_is_given_its_default_changes_nothing(ran: Shop) -> None:
    assert why(ran, "stages.a.with.train.max_steps=1") == {}


def test_a_changed_input_file_is_named(ran: Shop) -> None:
    (ran.home / "input.txt").write_text("other;")
    assert why(ran)["a"] == "input input.txt changed"


def test_an_input_of_another_name_is_an_option_that_changed(ran: Shop) -> None:
    shutil.copy(ran.home / "input.txt", ran.home / "more.txt")
    assert (
        why(ran, "stages.a.with.reads=['${here}/more.txt']")["a"]
        == "option reads.0 changed input.txt → more.txt"
    )


def test_two_inputs_of_one_name_are_told_apart(ran: Shop) -> None:
    for folder in ("one", "two"):
        (ran.home / folder).mkdir()
        (ran.home / folder / "OUTCAR").write_text(folder)
    ran.edit('reads: ["${here}/input.txt"]', 'reads: ["${here}/one/OUTCAR", "${here}/two/OUTCAR"]')
    ran.run()
    assert why(ran) == {}
    (ran.home / "two" / "OUTCAR").write_text("three")
    assert why(ran)["a"] == "input OUTCAR (2) changed"


def test_moving_the_whole_project_changes_nothing(
    ran: Shop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("else") / "where"
    shutil.move(ran.home, home)
    assert why(Shop(home)) == {}


def test_a_missing_product_is_named(ran: Shop) -> None:
    (ran.out / "b" / "step-1").unlink()
    assert why(ran) == {"b": "product step-1 is missing", "d": "upstream b will run"}


def test_a_damaged_product_is_named(ran: Shop) -> None:
    (ran.out / "c" / "product.txt").write_text("")
    assert why(ran)["c"].startswith("product product.txt changed: ")


def test_a_missing_folder_is_named(ran: Shop) -> None:
    shutil.rmtree(ran.out / "e")
    assert why(ran) == {"e": "product folder e is missing"}


def test_logs_and_files_of_the_user_do_not_count_as_products(ran: Shop) -> None:
    (ran.out / "b" / "notes.md").write_text("mine")
    (ran.out / "b" / "stage.log").unlink()
    assert why(ran) == {}


def test_changed_code_of_a_stage_is_a_reason_and_names_the_module(
    ran: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = code.of("fake_stage", hashing.HashCache())
    assert {"fake_stage", "lamkit.config"} <= set(known)
    changed = {**known, "lamkit.config": "0"}
    monkeypatch.setattr(code, "of", lambda module, cache: changed)
    assert why(ran)["a"].startswith("the code of lamkit.config changed")
    assert why(ran, trust_code=True) == {}
    assert "option" in why(ran, "stages.b.with.train.max_steps=4", trust_code=True)["b"]


def test_from_runs_a_stage_and_its_descendants(ran: Shop) -> None:
    assert why(ran, start=("c",)) == {"c": "asked for", "d": "asked for"}


def test_force_runs_everything(ran: Shop) -> None:
    assert set(why(ran, force=True)) == set("abcde")


def test_only_runs_one_stage_and_leaves_the_others(ran: Shop) -> None:
    change = "stages.b.with.train.max_steps=4"
    assert set(why(ran, change, only=("b",))) == {"b"}
    assert set(why(ran, only=("b",), force=True)) == {"b"}
    assert why(ran, change, only=("c",)) == {}


def test_only_refuses_when_what_the_stage_reads_is_not_up_to_date(ran: Shop) -> None:
    with pytest.raises(
        UserError, match=r"it reads b, which is not up to date \(option train\.max_steps changed"
    ):
        why(ran, "stages.b.with.train.max_steps=4", only=("d",))


def test_an_unknown_stage_is_suggested(ran: Shop) -> None:
    with pytest.raises(UserError, match=r"no stage 'bb'\. Did you mean 'b'"):
        why(ran, only=("bb",))


def test_after_only_run_again_the_descendants_follow_later(ran: Shop) -> None:
    ran.run("--only", "b", "--force")
    assert why(ran) == {"d": "upstream b ran again"}


def test_flags_common_to_all_stages_reach_those_that_have_the_option(ran: Shop) -> None:
    assert why(ran, common={"seed": 3}) == {}
    assert why(ran, common={"pause": 0.001})["e"] == "option pause changed 0.0 → 0.001"


def test_all_mistakes_in_all_options_are_told_before_anything_runs(
    shop: Shop, stages: dict[str, str]
) -> None:
    shop.edit("train: {max_steps: 2}", "train: {max_stps: 2}")
    shop.edit("name: e,", "name: [e],")
    with pytest.raises(UserError) as caught:
        why(shop)
    first, second = str(caught.value).splitlines()
    assert "flow.yaml:13: train.max_stps: unknown key. Did you mean 'max_steps'?  (stage b)" in first
    assert "flow.yaml:22: name: Input should be a valid string" in second


def test_a_missing_input_is_told_with_its_line(shop: Shop) -> None:
    (shop.home / "input.txt").unlink()
    with pytest.raises(UserError, match=r"flow.yaml:6: input .*input.txt does not exist"):
        why(shop)


def test_a_stage_of_another_version_is_a_mistake_of_the_user(shop: Shop) -> None:
    with pytest.raises(UserError, match="stage 'fake' is not part of this version"):
        task.load_stage("fake", "lamkit.stages.not_there")


def test_a_difference_that_has_no_old_record_is_a_missing_folder() -> None:
    assert plan.difference({}, {"stage": "fake"}) == "its folder is missing"


def test_the_seed_of_a_training_stage_keeps_its_default_preset() -> None:
    from lamkit.stages import pretrain

    given = task._with_common(pretrain.Options, {"data": {}}, {"seed": 7, "device": "GPU"})
    assert given["train"] == {"preset": pretrain.Options.model_fields["train"].default, "seed": 7}
    assert given["device"] == "GPU"


def test_a_changed_head_file_is_a_reason(ran: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ran.home)
    (ran.home / "heads").mkdir()
    (ran.home / "heads" / "e.yaml").write_text("name: e\n")
    assert why(ran) == {"e": "head e changed"}
