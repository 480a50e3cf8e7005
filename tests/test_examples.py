"""The examples as shipped, with fewer steps: they run, and what their pages show is known to the command line."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

SMALL = (
    "{version: v3, latent: 8, hidden: 8, layers: 1, head_hidden: 8, cutoff: 3.5, lmax: 0, repulsion: false}"
)


def run(repo, cwd, *words):
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(repo)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_first_steps_from_ase(repo, tmp_path):
    script = repo / "examples" / "ase" / "first_steps.py"
    said = run(repo, tmp_path, script, "--steps", "20", "--out", "first").stdout
    constant = float(re.search(r"lattice constant ([\d.]+) Å", said)[1])
    assert 3.8 < constant < 4.3  # BaTiO3: 4.00 Å measured
    done = run(repo, tmp_path, "-m", "lamkit", "show", repo / "examples" / "model")
    assert "pbe_oxides" in done.stdout + done.stderr
    assert len((tmp_path / "first" / "md.extxyz").read_text().splitlines()) == 3 * 42


def test_an_input_json_of_deepmd_trains(repo, tmp_path):
    for head in ("gfn2_molecules", "pbe_oxides"):
        source = repo / "examples" / "data" / f"{head}.extxyz"
        run(
            repo, tmp_path, "-m", "lamkit", "data", "convert", source, "--head", head, "--out", f"data/{head}"
        )
    given = repo / "examples" / "deepmd" / "input.json"
    few = ["--set", f"trunk={SMALL}", "--set", "train.max_steps=2", "--set", "train.valid_frames=2"]
    done = run(repo, tmp_path, "-m", "lamkit", "pretrain", given, "--out", "pretrained", *few)
    assert "without a counterpart" in done.stderr
    assert json.loads((tmp_path / "pretrained" / "result.json").read_text())["steps"] == 2


@pytest.mark.parametrize("page", ["ase", "deepmd"])
def test_the_commands_of_the_pages_are_known(repo, page):
    text = (repo / "examples" / page / "README.md").read_text()
    lines = [
        line for block in re.findall(r"```bash\n(.*?)```", text, flags=re.S) for line in block.splitlines()
    ]
    shown = [shlex.split(line)[1:] for line in lines if line.startswith("lamkit ")]
    assert shown
    for words in shown:
        verb = words[:2] if words[0] == "data" else words[:1]
        help_page = run(repo, repo, "-m", "lamkit", *verb, "--help").stdout
        for flag in (w for w in words if w.startswith("--")):
            assert flag in help_page, (words, flag)
