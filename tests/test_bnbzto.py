"""``examples/bnbzto``: its workflow can be planned, its structures are those of its labels, and it runs, reduced."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest

from lamkit.cli import main
from lamkit.crystal import disorder, occupations, symmetry
from lamkit.stages import STAGES, generate
from lamkit.workflow import execute, spec
from lamkit.workflow.execute import Settings

# a few steps of everything
REDUCED = {
    "finetune.with.train.max_steps": 30,
    "scratch.with.train.max_steps": 10,
    "explore.with.n_starts": 2,
    "explore.with.temperatures": "[300.0]",
    "explore.with.dynamics.steps": 20,
    "next_labels.with.n_frames": 3,
    "distill.with.n_starts": 2,
    "distill.with.temperatures": "[300.0]",
    "distill.with.dynamics": "{steps: 30, save_every: 5, equilibrate: 5}",
    "distill.with.n_frames": 10,
    "distill.with.rounds": 1,
    "distill.with.guards": "{steps: 20, save_every: 1}",
    "distill.with.train": "{max_steps: 60, valid_fraction: 0.2}",
}


@pytest.fixture
def workflow(repo) -> Path:
    return repo / "examples/bnbzto/bnbzto.yaml"


def test_it_can_be_planned_as_it_stands(workflow, tmp_path):
    source = spec.load(workflow)
    plan = execute.preview(source, tmp_path / "out", STAGES, Settings())
    assert len(plan.to_run) == len(source.workflow.stages)


def test_the_command_for_the_labels_makes_the_structures_of_the_workflow(repo, workflow, tmp_path):
    """labels.sh and the first stage of the workflow are the same sixteen random copies."""
    words = (repo / "examples/bnbzto/labels.sh").read_text().replace("\\\n", " ").split("lamkit generate ")[1]
    arguments = words.splitlines()[0].replace("bnbzto-structures", str(tmp_path / "a")).split()
    arguments[0] = str(repo / "examples/data/perovskite.vasp")
    assert main(["generate", *arguments, "-q"]) == 0
    stage = spec.load(workflow).workflow.stages["arrangements"]
    given = {**getattr(stage, "with"), "structures": [str(repo / "examples/data/perovskite.vasp")]}
    generate.run(generate.Options(**given), tmp_path / "b")
    first, second = (ase.io.read(tmp_path / name / "structures.extxyz", ":") for name in "ab")
    assert len(first) == len(second) == 16
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)


@pytest.fixture
def arrangement(repo):
    """Which of the sixteen a frame is; displaced atoms belong to the nearest sites."""
    parent = disorder.number_parent(ase.io.read(repo / "examples/data/perovskite.vasp"))
    cell = parent.repeat(2)
    shared = disorder.find_pools(cell, {"Ba": "Ba4Na2Bi2", "Ti": "Ti7Zr1"}, {}, {})
    sites, pools = disorder.pools_of(shared)
    group = symmetry.permutations(cell, disorder.labels(cell, shared), sites)
    known = [row.tobytes() for row in occupations.enumerate_all(pools, group).occupations]
    order = [layer.species for layer in occupations.layers(pools)]

    def number(atoms):
        cations = atoms[[s != "O" for s in atoms.get_chemical_symbols()]]
        apart = cell.get_scaled_positions()[sites][:, None] - cations.get_scaled_positions()[None]
        nearest = np.linalg.norm(apart - np.round(apart), axis=2).argmin(axis=1)
        assert len(set(nearest)) == 16
        symbols = cations[nearest].get_chemical_symbols()
        row = np.array([order.index(s) + 1 if s in order else 0 for s in symbols], dtype=np.int8)
        return known.index(occupations.canonical(pools, group, row).tobytes())

    return number


def test_the_shipped_labels_are_one_of_each_of_the_sixteen(repo, arrangement):
    frames = ase.io.read(repo / "examples/data/pbesol_bnbzto_sixteen.extxyz", ":")
    assert sorted(arrangement(atoms) for atoms in frames) == list(range(16))
    assert all(atoms.calc.results.keys() >= {"energy", "forces", "stress"} for atoms in frames)


def test_the_labels_of_the_test_are_of_two_of_the_sixteen(repo, arrangement):
    frames = ase.io.read(repo / "examples/data/pbesol_bnbzto.extxyz", ":")
    assert {(a.info["group"], arrangement(a)) for a in frames} == {("bnbzto-0", 0), ("bnbzto-1", 10)}


@pytest.mark.slow
def test_reduced_it_runs_from_sixteen_structures_to_a_model_for_lammps(workflow, tmp_path):
    flags = [f"--set=stages.{key}={value}" for key, value in REDUCED.items()]
    assert main(["run", str(workflow), "--out", str(tmp_path / "out"), *flags]) == 0
    result = {
        name: json.loads((tmp_path / "out" / name / "result.json").read_text())
        for name in ("arrangements", "next_labels", "export", "evaluate_student")
    }
    assert result["arrangements"]["n_structures"] == 16
    assert result["next_labels"]["n_frames"] == 3
    assert Path(result["export"]["file"]).suffix == ".dp"
    assert result["evaluate_student"]["pbesol_bnbzto"]["n_frames"] >= 1
    assert (tmp_path / "out/report/report.html").is_file()
