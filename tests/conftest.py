"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repo() -> Path:
    """Top of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def shared() -> Path:
    """Third-party reference data that are not part of the repository; tests skip where they are absent."""
    root = Path(os.environ.get("LAMKIT_SHARED", REPO.parent / "shared"))
    if not (root / "data").is_dir():
        pytest.skip(f"third-party data not present: set LAMKIT_SHARED (looked in {root})")
    return root


def pytest_configure(config: pytest.Config) -> None:
    """A shell that starts the tests in the background has them ignore Ctrl-C, and all that they start as well."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests run only when a marker expression (``-m slow``) asks for them."""
    if config.option.markexpr:
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))
