"""kill -9 at random moments: nothing finished is done again, nothing is mixed, the end is the same."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest
from shop import Shop, workers

N_KILLS = 8


def finished(shop: Shop) -> set[str]:
    path = shop.out / "journal.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return {e["stage"] for e in map(json.loads, lines) if e["event"] == "done"}


def kill_one(shop: Shop, chance: random.Random, jobs: str) -> None:
    """Start the run and kill it, or one of its workers, after a random time."""
    process = shop.start_run("--jobs", jobs)
    time.sleep(chance.uniform(0.2, 1.6))
    victims = workers(process.pid) if process.poll() is None and chance.random() < 0.5 else []
    for victim in victims[:1]:
        os.kill(victim, signal.SIGKILL)
    if not victims:
        process.kill()
    process.communicate(timeout=60)


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_killed_at_random_moments_the_run_continues(shop: Shop, jobs: str) -> None:
    chance = random.Random(int(jobs))
    shop.edit("train: {max_steps: 2}", "train: {max_steps: 6}\n      pause: 0.1")
    for _ in range(N_KILLS):
        before = finished(shop)
        shop.forget()
        kill_one(shop, chance, jobs)
        again = before & {name.rstrip("+") for name in shop.started()}
        assert not again, f"{again} ran again although finished"
    shop.run("--jobs", jobs)
    assert (shop.out / "d" / "product.txt").read_text() == "seed;a;b;seed;a;c;d;"
    shop.forget()
    assert "nothing to do" in shop.run()


def test_a_continued_stage_repeats_no_step(shop: Shop) -> None:
    shop.edit("train: {max_steps: 2}", "train: {max_steps: 8}\n      pause: 0.15")
    for _ in range(3):
        process = shop.start_run("--only", "a", "--only", "b")
        deadline = time.monotonic() + 20
        n_steps = len(shop.diary())
        while len(shop.diary()) < n_steps + 4 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.communicate()
    shop.run()
    steps = [line for line in shop.diary() if line.startswith("b step")]
    # a step that was taken but not yet noted when the kill came is the only one that may be missing or twice
    assert len(steps) <= 8 + 3
    assert len(set(steps)) >= 8 - 3
    assert (shop.out / "b" / "product.txt").read_text() == "seed;a;b;"
