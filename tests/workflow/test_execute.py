"""Whole workflows, run by the real command in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from shop import Shop, workers

from lamkit.workflow import execute, spec
from lamkit.workflow.local import Ending


def outcomes(answer: str) -> dict[str, str]:
    return {name: stage["outcome"] for name, stage in json.loads(answer)["stages"].items()}


def run_json(shop: Shop, *flags: str, code: int = 0) -> dict[str, str]:
    flags = ("--jobs", "1", *flags)
    return outcomes(shop.verb("run", "flow.yaml", "--out", "out", "--json", *flags, code=code)[0])


LONG = "train: {max_steps: 1000}\n      pause: 0.1"


def stop(process: subprocess.Popen[str]) -> None:
    """Stop a run as Ctrl-C does."""
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def running(pid: int) -> bool:
    """Whether a process lives (a dead one that nobody has waited for does not count)."""
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(shop: Shop, line: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while line not in shop.diary():
        assert time.monotonic() < deadline, shop.diary()
        time.sleep(0.02)


def test_stages_run_in_order_and_a_second_run_does_nothing(shop: Shop) -> None:
    said = shop.run()
    assert shop.started() == ["a", "b", "c", "d", "e"]
    assert (shop.out / "d" / "product.txt").read_text() == "seed;a;b;seed;a;c;d;"
    assert json.loads((shop.out / "b" / "result.json").read_text()) == {"steps": 2}
    assert "done (5 run, 0 up to date)" in said
    shop.forget()
    assert "all 5 stages are up to date; nothing to do" in shop.run()
    assert shop.started() == []


def test_a_changed_option_runs_the_stage_and_its_descendants_in_empty_folders(shop: Shop) -> None:
    shop.run()
    shop.forget()
    states = run_json(shop, "--set", "stages.b.with.train.max_steps=1")
    assert shop.started() == ["b", "d"]
    assert states == {"a": "up to date", "b": "done", "c": "up to date", "d": "done", "e": "up to date"}
    assert not (shop.out / "b" / "step-1").exists()
    assert (shop.out / ".previous" / "b" / "step-1").exists()


def test_independent_stages_run_at_the_same_time(shop: Shop) -> None:
    shop.write(
        shop.home.joinpath("flow.yaml")
        .read_text()
        .replace("name: ", "pause: 0.8, name: ")
        .replace("pause: 0.8, name: diamond", "name: diamond")
        .replace("pause: 0.8, name: b", "name: b\n      pause: 0.8")
    )
    shop.run("--jobs", "2", "--set", "stages.b.with.train.max_steps=1")
    diary = shop.diary()
    assert diary.index("e start") < diary.index("a end")
    assert diary.index("c start") < diary.index("b end")


def test_a_failure_skips_only_its_descendants(shop: Shop) -> None:
    shop.edit("name: b\n", "name: b\n      ending: user\n")
    answer, said = shop.verb("run", "flow.yaml", "--out", "out", "--json", code=2)
    assert outcomes(answer) == {"a": "done", "b": "failed", "c": "done", "d": "skipped", "e": "done"}
    assert "b: failed: frame 3 has no energy; give one" in said
    assert "Traceback" not in said
    assert "Traceback" not in (shop.out / "b" / "stage.log").read_text()


def test_a_mended_failure_goes_on_where_the_workflow_stopped(shop: Shop) -> None:
    shop.edit("name: b\n", "name: b\n      ending: user\n")
    shop.run(code=2)
    shop.edit("      ending: user\n", "")
    shop.forget()
    shop.run()
    assert shop.started() == ["b", "d"]


def test_an_error_of_the_program_leaves_a_traceback_in_the_log_and_code_1(shop: Shop) -> None:
    shop.edit("name: b\n", "name: b\n      ending: error\n")
    said = shop.run(code=1)
    assert "b: failed: RuntimeError: the matrix is singular" in said
    assert str(Path("out") / "b" / "stage.log") in said
    assert "Traceback" in (shop.out / "b" / "stage.log").read_text()


def test_a_killed_worker_is_told_as_such_and_continues(shop: Shop) -> None:
    shop.edit("name: b\n", "name: b\n      ending: kill-once\n")
    said = shop.run(code=1)
    assert "the process was killed by SIGKILL" in said
    shop.forget()
    said = shop.run()
    assert "b: goes on" in said
    assert shop.diary()[:2] == ["b start resume", "b step 1"]
    assert shop.started() == ["b+", "d"]


def test_two_runs_on_one_folder_refuse_each_other(shop: Shop) -> None:
    shop.edit("train: {max_steps: 2}", LONG)
    first = shop.start_run()
    wait_for(shop, "b start")
    said = shop.run(code=2)
    assert f"another run is at work here: pid {first.pid}" in said
    stop(first)


def test_ctrl_c_stops_and_the_same_command_continues(shop: Shop) -> None:
    shop.edit("name: b\n", "name: b\n      pause: 0.6\n")
    process = shop.start_run()
    wait_for(shop, "b step 0")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped; go on with: lamkit run flow.yaml --out out" in said
    events = [json.loads(line) for line in (shop.out / "journal.jsonl").read_text().splitlines()]
    assert [e["stage"] for e in events if e["event"] == "interrupted"] == ["b"]
    shop.forget()
    said = shop.run()
    assert "b: goes on (interrupted: continues)" in said
    assert shop.started() == ["b+", "c", "d", "e"]
    assert "b step 0" not in shop.diary()


def test_a_run_killed_in_the_middle_leaves_no_process_and_continues(shop: Shop) -> None:
    shop.edit("name: b\n", "name: b\n      pause: 0.6\n")
    process = shop.start_run()
    wait_for(shop, "b step 0")
    (worker,) = workers(process.pid)
    process.kill()
    process.communicate()
    time.sleep(0.2)
    assert not running(worker)
    standing = json.loads(shop.verb("status", "out", "--json")[0])["stages"]
    assert {s["id"]: s["state"] for s in standing}["b"] == "interrupted"
    shop.forget()
    shop.run()
    assert shop.started()[0] == "b+"
    assert "a start" not in shop.diary()
    assert "b step 0" not in shop.diary()


def test_a_stage_that_ended_while_its_run_was_killed_is_not_run_again(shop: Shop) -> None:
    shop.run()
    journal = shop.out / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert '"done"' in lines[-1]
    journal.write_text("".join(lines[:-1]) + lines[-1][:20])
    shop.forget()
    assert "nothing to do" in shop.run()
    assert shop.started() == []
    assert json.loads(journal.read_text().splitlines()[-1])["event"] == "done"


def test_an_interrupted_stage_whose_options_changed_starts_afresh(shop: Shop) -> None:
    shop.edit("name: b\n", "name: b\n      ending: kill\n")
    shop.run(code=1)
    shop.edit("ending: kill", "ending: good")
    shop.forget()
    shop.run()
    assert shop.diary()[:3] == ["b start", "b step 0", "b step 1"]


def test_a_mistake_in_the_file_makes_no_folder(shop: Shop) -> None:
    shop.edit("max_steps", "max_stps")
    said = shop.run(code=2)
    assert "Did you mean 'max_steps'" in said
    assert "Traceback" not in said
    assert not shop.out.exists()


def test_a_place_to_run_that_is_no_cluster_file_is_refused(shop: Shop) -> None:
    assert "expected 'local' or a cluster file" in shop.run("--on", "slurm", code=2)
    assert "no such file" in shop.run("--on", "slurm.yaml", code=2)


def test_files_of_the_user_cannot_hide_python_modules_from_a_stage(shop: Shop) -> None:
    (shop.home / "queue.py").write_text("raise RuntimeError('not this one')")
    (shop.home / "select.py").write_text("raise RuntimeError('not this one')")
    shop.run("--only", "a")


def test_a_folder_that_no_stage_made_is_never_removed(shop: Shop) -> None:
    (shop.out / "a").mkdir(parents=True)
    (shop.out / "a" / "thesis.tex").write_text("years of work")
    assert "exists, and no workflow made it" in shop.run(code=2)
    assert (shop.out / "a" / "thesis.tex").exists()
    assert shop.diary() == []


def test_half_of_a_file_that_a_kill_left_is_no_folder_of_the_users(shop: Shop) -> None:
    (shop.out / "a").mkdir(parents=True)
    (shop.out / "a" / ".stage.json.0a1b2c3d.tmp").write_text('{"id": "a", "st')
    shop.run("--only", "a")


def test_out_must_not_be_a_file(shop: Shop) -> None:
    shop.out.write_text("")
    assert "is a file" in shop.run(code=2)


def test_five_hundred_stages_are_scheduled_in_milliseconds_each(
    tmp_path: Path, stages: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 500
    lines = ["name: many", "stages:"]
    for i in range(n):
        reads = f'["${{s{i - 1}}}"]' if i % 10 else "[]"
        lines.append(f"  s{i}: {{stage: fake, with: {{name: s{i}, diary: none, reads: {reads}}}}}")
    (tmp_path / "flow.yaml").write_text("\n".join(lines))
    monkeypatch.setattr(execute, "START", Instant)
    monkeypatch.setattr(execute, "REDRAW_SECONDS", 0.0)
    began = time.process_time()
    source = spec.load(tmp_path / "flow.yaml")
    outcomes = execute.run(source, tmp_path / "out", stages, execute.Settings())
    assert (time.process_time() - began) / n < 0.010
    assert {outcome.state for outcome in outcomes.values()} == {"done"}


class Instant:
    """A worker that is done at once."""

    seconds = 0.0

    def __init__(self, folder: Path, lock: int, cores: list[int]) -> None:
        self.folder, self.cores = folder, cores

    def ended(self) -> Ending:
        return Ending("", "", 0.0)

    def wait(self) -> None:
        pass

    def news(self) -> None:
        pass


def test_dry_run_writes_nothing(shop: Shop) -> None:
    said = shop.run("--dry-run")
    assert "never run" in said
    assert not shop.out.exists()
    assert shop.diary() == []


def test_status_and_graph_tell_how_it_stands(shop: Shop) -> None:
    shop.edit("name: b\n", "name: b\n      ending: user\n")
    shop.run(code=2)
    answer, _ = shop.verb("status", "out")
    assert "frame 3 has no energy" in answer
    states = {s["id"]: s["state"] for s in json.loads(shop.verb("status", "out", "--json")[0])["stages"]}
    assert states == {"a": "done", "b": "failed", "c": "done", "d": "skipped", "e": "done"}
    assert shop.verb("graph", "flow.yaml")[0].startswith("flowchart TD")
    assert "a (fake)" in shop.verb("graph", "flow.yaml", "--text")[0]
    assert "not a workflow folder" in shop.verb("status", ".", code=2)[1]


def test_status_of_a_run_at_work_shows_progress(shop: Shop) -> None:
    shop.edit("train: {max_steps: 2}", LONG)
    process = shop.start_run()
    wait_for(shop, "b step 1")
    standing = {s["id"]: s for s in json.loads(shop.verb("status", "out", "--json")[0])["stages"]}
    assert standing["b"]["state"] == "running"
    assert standing["b"]["text"].startswith("step ")
    assert standing["d"]["state"] == "waiting"
    stop(process)
