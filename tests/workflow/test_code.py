"""Which code decides about a stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamkit.workflow import code
from lamkit.workflow.hashing import HashCache


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a stage that imports one module, and another module that it does not."""
    home = tmp_path / "wheel"
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / "stage.py").write_text("def run():\n    from wheel import hub\n    return hub\n")
    (home / "hub.py").write_text("from . import spoke\nSIZE = 3\n")
    (home / "spoke.py").write_text("LENGTH = 5\n")
    (home / "other.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(code, "PACKAGE", "wheel")
    code._source.cache_clear()
    return home


def of() -> dict[str, str]:
    return code.of("wheel.stage", HashCache())


def test_imports_inside_of_functions_and_relative_ones_are_followed(package: Path) -> None:
    assert set(of()) == {"wheel", "wheel.stage", "wheel.hub", "wheel.spoke"}


def test_a_changed_line_counts_and_a_comment_or_docstring_does_not(package: Path) -> None:
    before = of()
    (package / "spoke.py").write_text('"""What a spoke is."""\n\n# of wood\nLENGTH = 5\n')
    assert of() == before
    (package / "spoke.py").write_text("LENGTH = 6\n")
    assert {name for name, value in of().items() if before[name] != value} == {"wheel.spoke"}


def test_compiled_sources_beside_a_module_count(package: Path) -> None:
    (package / "fast.cpp").write_text("int size = 3;")
    assert "wheel/fast.cpp" in of()


def test_the_network_is_part_of_training_and_not_of_conversion() -> None:
    cache = HashCache()
    code._source.cache_clear()
    assert "lamkit.model.trunk" in code.of("lamkit.stages.pretrain", cache)
    convert = code.of("lamkit.stages.convert", cache)
    assert "lamkit.data.convert" in convert or "lamkit.data.dataset" in convert
    assert "lamkit.model.trunk" not in convert
    assert not any(name.startswith(("lamkit.workflow", "lamkit.cli", "lamkit.report")) for name in convert)
    assert "lamkit.report.html" in code.of("lamkit.stages.report", cache)
