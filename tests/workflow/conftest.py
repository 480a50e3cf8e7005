"""Fixtures: a workflow of fake stages in a folder of its own, new or already run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from shop import DIAMOND, HERE, STAGES, Here, Shop

from lamkit.workflow import execute


def new_shop(home: Path) -> Shop:
    shop = Shop(home)
    shop.write(DIAMOND)
    (home / "input.txt").write_text("seed;")
    return shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """The workflow, never run."""
    return new_shop(tmp_path)


@pytest.fixture(scope="session")
def finished_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The workflow, run once to its end; not to be changed."""
    shop = new_shop(tmp_path_factory.mktemp("finished"))
    shop.run("--jobs", "2")
    return shop


@pytest.fixture
def ran(finished_shop: Shop, tmp_path: Path) -> Shop:
    """A copy of the finished workflow (a project may be moved without anything running again)."""
    home = tmp_path / "copy"
    shutil.copytree(finished_shop.home, home)
    return Shop(home)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The fake stage for code that runs in this process."""
    monkeypatch.syspath_prepend(str(HERE))
    return STAGES


@pytest.fixture
def here(stages: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages run in this process: many workflows in little time."""
    monkeypatch.setattr(execute, "START", Here)
    monkeypatch.setattr(execute, "REDRAW_SECONDS", 0.0)
