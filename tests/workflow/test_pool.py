"""Parts of a stage done by several processes of this machine."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import fake_parts
import pytest
from shop import HERE, REPO

from lamkit.errors import LamkitError
from lamkit.workflow import claims, pool
from lamkit.workflow.cores import Cores, available


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The folder of a stage with six parts, and a function that does them by two processes."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [HERE, REPO])))

    def do(**changes: object) -> Counter[str]:
        options = {"diary": str(tmp_path / "diary"), "n": 6, "pause": 0.2, **changes}
        task = {"id": "wheel", "stage": "label", "module": "fake_parts", "options": options}
        (tmp_path / "stage.json").write_text(json.dumps(task))
        try:
            pool.run(fake_parts, fake_parts.Options(**options), tmp_path, 2, available())
        finally:
            lines = (tmp_path / "diary").read_text().splitlines()
            (tmp_path / "diary").unlink()
        return Counter(line.split()[0] for line in lines) + Counter(
            {f"pid {line.split()[1]}": 1 for line in lines}
        )

    return do


def test_two_processes_share_the_parts_and_do_each_once(stage, tmp_path: Path) -> None:
    done = stage()
    assert {name: n for name, n in done.items() if name.startswith("part")} == {
        f"part-{k}": 1 for k in range(6)
    }
    assert sum(name.startswith("pid") for name in done) == 2
    assert claims.missing(tmp_path, [f"part-{k}" for k in range(6)]) == []


def test_a_mistake_in_one_part_ends_the_pool_and_what_is_done_stays(stage, tmp_path: Path) -> None:
    with pytest.raises(pool.PartFailed) as caught:
        stage(wrong=3)
    assert caught.value.code == 2
    assert json.loads((tmp_path / "error.json").read_text())["message"] == "part-3 has no spokes"
    assert "part-3" in claims.missing(tmp_path, [f"part-{k}" for k in range(6)])
    assert claims.missing(tmp_path, ["part-0"]) == []


def test_a_killed_process_is_told_and_the_next_pool_does_only_what_is_missing(stage, tmp_path: Path) -> None:
    with pytest.raises(LamkitError, match="killed by SIGKILL"):
        stage(killed=2)
    left = set(claims.missing(tmp_path, [f"part-{k}" for k in range(6)]))
    done = stage()
    assert {name for name in done if name.startswith("part")} == left


def test_a_part_in_the_hands_of_another_process_is_left_to_it(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    given = claims.claim(tmp_path, names)
    assert next(given) == "a"
    child = os.fork()
    if child == 0:
        os._exit(0 if list(claims.claim(tmp_path, names)) == ["b", "c"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_stage_alone_gets_all_cores_and_two_at_once_get_half_each() -> None:
    cores = Cores(cores=[0, 1, 2, 3])
    assert cores.grant("convert", waiting=1) == [0, 1, 2, 3]
    assert cores.grant("convert", waiting=1) == []
    cores.give_back([0, 1, 2, 3])
    assert cores.grant("convert", waiting=2) == [0, 1]
    assert cores.grant("convert", waiting=1) == [2, 3]


def test_a_training_waits_for_its_cores_while_small_stages_start() -> None:
    cores = Cores(cores=[0, 1])
    assert cores.grant("convert", waiting=3) == [0]
    assert cores.grant("pretrain", waiting=2) == []
    assert cores.grant("convert", waiting=2) == [1]
    cores.give_back([0])
    cores.give_back([1])
    assert cores.grant("pretrain", waiting=1) == [0, 1]


def test_more_stages_than_cores_share_them_when_the_user_says_so() -> None:
    cores = Cores(places=3, cores=[0, 1])
    assert [cores.grant("pretrain", waiting=5) for _ in range(4)] == [[0], [1], [0], []]
