"""The YAML files and sample data are found in a wheel, in an editable install and in a bare checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FOLDERS = ("heads", "workflows", "configs", "examples/data", "examples/model", "examples/base")


def lamkit(*arguments: str, python_path: Path | None = None, cwd: Path | str = "/") -> str:
    """Output of the command, with ``python_path`` as the only place for packages besides the standard ones."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "LAMKIT_PATH")}
    if python_path is not None:
        environment["PYTHONPATH"] = str(python_path)
    done = subprocess.run(
        [sys.executable, "-m", "lamkit", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(output: str) -> dict[str, list[str]]:
    return {kind: sorted(names) for kind, names in json.loads(output).items()}


@pytest.fixture(scope="module")
def in_repository(repo) -> dict[str, list[str]]:
    """What stands in the folders at the top of the repository."""
    found = {kind: sorted(p.stem for p in (repo / kind).glob("*.yaml")) for kind in ("heads", "workflows")}
    for folder in sorted(p for p in (repo / "configs").iterdir() if p.is_dir()):
        found[f"configs/{folder.name}"] = sorted(p.stem for p in folder.glob("*.yaml"))
    return found


@pytest.fixture(scope="module")
def wheel(repo, tmp_path_factory) -> Path:
    """A wheel built from a clean copy, as a user's pip would build it from the sources."""
    source = tmp_path_factory.mktemp("source") / "lamkit"
    wanted = [p for p in ("lamkit", *FOLDERS) if (repo / p).is_dir()]
    for name in wanted:
        shutil.copytree(repo / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repo / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [path] = out.glob("*.whl")
    return path


def test_wheel_lists_what_the_repository_holds(wheel, in_repository, tmp_path):
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
    ]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    found = lamkit("ls", "--json", python_path=site)
    assert str(site) in found
    assert listed(found) == in_repository
    assert f"checkpoint {site}" in lamkit("show", "examples/base", python_path=site)


def test_wheel_leaves_no_common_name_in_site_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lamkit"}
    assert not [name for name in names if "__pycache__" in name or name.startswith("lamkit/tests")]


def test_wheel_holds_the_sample_data(wheel, repo):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in FOLDERS[-3:]:
        files = [p for p in (repo / folder).rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
        missing = [p for p in files if f"lamkit/builtin/{p.relative_to(repo).as_posix()}" not in names]
        assert not missing


def test_bare_checkout_finds_its_files(repo, in_repository):
    found = lamkit("ls", "--json", python_path=repo)
    assert str(repo / "heads") in found
    assert listed(found) == in_repository


def test_checkout_runs_from_its_own_folder(repo, in_repository):
    assert listed(lamkit("ls", "--json", cwd=repo)) == in_repository


def test_editable_install_sees_a_new_file_at_once(repo, tmp_path):
    """An editable wheel holds a pointer to the sources and no copies, which would go stale."""
    code = f"from hatchling.build import build_editable; print(build_editable({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        files = [n for n in archive.namelist() if ".dist-info/" not in n]
        assert [Path(name).suffix for name in files] == [".pth"]
        assert archive.read(files[0]).decode().strip() == str(repo)


def test_every_test_module_has_a_name_of_its_own(repo):
    """Two of one name cannot be collected together."""
    names = [path.name for path in (repo / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
