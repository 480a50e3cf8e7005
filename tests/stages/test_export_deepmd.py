"""``lamkit export --to deepmd``: the files, and what DeePMD-kit and LAMMPS make of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io.lammpsdata import read_lammps_data
from deepmd_reference import atomic_energies, read
from deeppot_toy import water, write_student
from tiny import write_model

from lamkit.cli import main
from lamkit.data.dataset import write_dataset
from lamkit.data.facts import DatasetFacts
from lamkit.data.frame import from_atoms
from lamkit.data.heads import LevelOfTheory
from lamkit.stages.student import write_example

SIDE = Path(__file__).resolve().parent.parent / "deepmd_side.py"
BAR = 1.602176634e6  # bar per eV/Å³


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    """A run folder: checkpoint and training data."""
    run = tmp_path_factory.mktemp("student") / "run"
    write_student(run / "checkpoints" / "best")
    level = LevelOfTheory(method="DFT", functional="PBE")
    frame = from_atoms(water(3), energy=-1.0, source="made.xyz", step=0, group="g")
    write_dataset([frame], run / "data" / "train", DatasetFacts(head="water", level_of_theory=level))
    return run


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "student.dp"
    assert main(["export", str(student), "--to", "deepmd", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def own(student) -> dict:
    """Our energy, forces and virial in double precision."""
    from lamkit.calculator import LamCalculator

    atoms = water(3)
    atoms.calc = LamCalculator(student, dtype="float64")
    virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
    return {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "virial": virial}


def test_lammps_files_stand_beside_the_model(exported):
    text = (exported.parent / "in.lammps").read_text()
    assert "pair_style      deepmd student.pb" in text
    assert "pair_coeff      * * H O" in text
    assert "boundary        p p p" in text
    with open(exported.parent / "conf.lmp") as stream:
        atoms = read_lammps_data(stream, atom_style="atomic", units="metal")
    assert atoms.get_chemical_formula() == water(3).get_chemical_formula()
    np.testing.assert_allclose(atoms.cell.cellpar(), water(3).cell.cellpar(), atol=1e-9)


def test_file_holds_what_compression_and_other_back_ends_need(exported):
    tree = read(exported)
    assert tree["min_nbor_dist"] == tree["@variables"]["min_nbor_dist"] == 0.9
    assert tree["model_def_script"]["descriptor"]["sel"] == tree["model"]["descriptor"]["sel"] == [72, 40]
    assert tree["model_def_script"]["descriptor"]["type_one_side"] is True


def test_double_precision_calculator_agrees_with_the_file(exported, own):
    atoms = water(3)
    energies = atomic_energies(
        read(exported), atoms.get_chemical_symbols(), atoms.positions, atoms.cell.array
    )
    assert np.ptp(energies[atoms.numbers == 8]) > 0.01
    assert own["energy"] == pytest.approx(energies.sum(), rel=1e-12)


@pytest.fixture(scope="module")
def single(student, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("single") / "student.dp"
    flags = ["--to", "deepmd", "--precision", "float32"]
    assert main(["export", str(student), *flags, "--out", str(out)]) == 0
    return out


def test_networks_in_single_precision_mean_the_same_but_for_rounding(single, own):
    tree = read(single)
    text = json.dumps(tree, default=lambda array: str(array.dtype))
    assert '"precision": "float32"' in text
    assert '"precision": "float64"' not in text
    layer = tree["model"]["fitting"]["nets"]["networks"][0]["layers"][0]["@variables"]
    assert layer["w"].dtype == layer["b"].dtype == np.float32
    assert tree["model"]["fitting"]["@variables"]["bias_atom_e"].dtype == np.float64
    atoms = water(3)
    energies = atomic_energies(tree, atoms.get_chemical_symbols(), atoms.positions, atoms.cell.array)
    assert energies.sum() == pytest.approx(own["energy"], abs=1e-5 * len(atoms))


def test_files_of_the_users_own_stay(student, tmp_path, caplog):
    (tmp_path / "in.lammps").write_text("mine")
    assert main(["export", str(student), "--to", "deepmd", "--out", str(tmp_path / "a.dp")]) == 0
    assert (tmp_path / "in.lammps").read_text() == "mine"


@pytest.fixture
def moved(student, tmp_path) -> Path:
    """The checkpoint alone, as somebody else gets it."""
    return shutil.copytree(student / "checkpoints" / "best", tmp_path / "sent" / "model")


def export(model: Path, out: Path, *more: str) -> int:
    return main(["export", str(model), "--to", "deepmd", "--out", str(out), *more])


def test_a_moved_checkpoint_brings_its_structure_along(student, moved, exported, tmp_path):
    write_example(student / "data" / "train", moved)
    assert export(moved, tmp_path / "lammps" / "a.dp") == 0
    both = [read_lammps_data(p / "conf.lmp", units="metal") for p in (tmp_path / "lammps", exported.parent)]
    np.testing.assert_allclose(both[0].positions, both[1].positions, atol=1e-6)


def test_a_structure_can_be_named(moved, tmp_path, capsys):
    water_alone = Atoms("OH2", [[0, 0, 0], [1, 0, 0], [0, 1, 0]], cell=[5, 6, 7], pbc=True)
    ase.io.write(tmp_path / "one.xyz", water_alone)
    ase.io.write(tmp_path / "iron.xyz", bulk("Fe"))
    assert export(moved, tmp_path / "a.dp", "--structure", str(tmp_path / "iron.xyz")) == 2
    assert "holds Fe, which the model does not know (it knows H, O)" in capsys.readouterr().err
    assert not (tmp_path / "a.dp").exists()
    assert export(moved, tmp_path / "a.dp", "--structure", str(tmp_path / "one.xyz")) == 0
    with open(tmp_path / "conf.lmp") as stream:
        atoms = read_lammps_data(stream, atom_style="atomic", units="metal")
    assert atoms.get_chemical_formula() == "H2O"
    np.testing.assert_allclose(atoms.cell.lengths(), [5, 6, 7])


def test_without_a_structure_the_missing_file_and_the_cure_are_named(moved, tmp_path, capsys):
    assert export(moved, tmp_path / "a.dp") == 0
    assert "conf.lmp is not there" in (said := capsys.readouterr().err)
    assert "--structure FILE" in said
    assert (tmp_path / "in.lammps").is_file()


def test_an_orb_takes_no_structure(tmp_path, capsys):
    model = write_model(tmp_path / "orb")
    flags = ["--to", "orb", "--head", "water", "--out", str(tmp_path / "a.ckpt")]
    assert main(["export", str(model), *flags, "--structure", str(tmp_path)]) == 2
    assert "for --to deepmd only" in capsys.readouterr().err


def test_an_orb_is_refused_with_the_way_to_a_student(tmp_path, capsys):
    model = write_model(tmp_path / "orb")
    assert (
        main(["export", str(model), "--to", "deepmd", "--head", "water", "--out", str(tmp_path / "a.dp")])
        == 2
    )
    assert "lamkit distill" in capsys.readouterr().err
    assert not (tmp_path / "a.dp").exists()


def copper(n: int):
    """Strained and rattled cells around the lattice constant of EMT, with its labels."""
    rng = np.random.default_rng(7)
    for i in range(n):
        atoms = bulk("Cu", "fcc", a=3.61 * rng.uniform(0.97, 1.03) if i else 3.61, cubic=True)
        atoms.positions += rng.normal(0, 0.15 if i else 0.01, atoms.positions.shape)
        atoms.calc = EMT()
        energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        atoms.calc = None
        yield from_atoms(
            atoms, energy=energy, forces=forces, stress=stress, source="made.xyz", step=i, group=f"g{i}"
        )


# -- DeePMD-kit and LAMMPS themselves ---------------------------------------------------------------


@pytest.fixture(scope="module")
def deepmd() -> Path:
    """The environment of tests/deepmd_environment.sh."""
    folder = os.environ.get("LAMKIT_DEEPMD")
    if not folder:
        pytest.skip("DeePMD-kit and LAMMPS: LAMKIT_DEEPMD is not set (bash tests/deepmd_environment.sh DIR)")
    return Path(folder)


def call(environment: Path, *command: str, cwd: Path) -> str:
    """Run a program of an environment; its output."""
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(environment), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(environment / "bin" / command[0]), *command[1:]],
        cwd=cwd, env=variables, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def evaluated(environment: Path, model: Path, folder: Path) -> dict:
    """What DeePMD-kit finds for the structure."""
    atoms = water(3)
    types = np.array([["H", "O"].index(s) for s in atoms.get_chemical_symbols()])
    np.savez(folder / "in.npz", positions=atoms.positions, cell=atoms.cell.array, types=types)
    call(
        environment,
        "python",
        str(SIDE),
        str(model),
        str(folder / "in.npz"),
        str(folder / "out.npz"),
        cwd=folder,
    )
    with np.load(folder / "out.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def frozen(deepmd, exported) -> Path:
    """The model for TensorFlow and LAMMPS."""
    path = exported.with_suffix(".pb")
    call(deepmd, "dp", "convert-backend", str(exported), str(path), cwd=exported.parent)
    return path


@pytest.mark.deepmd
@pytest.mark.parametrize("version", ["", "-3.0"])
def test_energies_are_those_of_deepmd_kit(deepmd, version, exported, own, tmp_path):
    environment = Path(f"{deepmd}{version}")
    if not environment.is_dir():
        pytest.skip(f"{environment} is not there (bash tests/deepmd_environment.sh)")
    found = evaluated(environment, exported, tmp_path)
    assert found["energy"][0] == pytest.approx(own["energy"], rel=1e-12)


@pytest.mark.deepmd
def test_forces_and_virial_are_those_of_deepmd_kit(deepmd, frozen, own, tmp_path):
    found = evaluated(deepmd, frozen, tmp_path)
    assert found["energy"][0] == pytest.approx(own["energy"], rel=1e-12)
    np.testing.assert_allclose(found["forces"], own["forces"], atol=1e-8)
    np.testing.assert_allclose(found["virial"], own["virial"], atol=1e-8)


@pytest.mark.deepmd
def test_forces_in_single_precision_are_the_same_but_for_rounding(deepmd, single, own, tmp_path):
    call(deepmd, "dp", "convert-backend", str(single), str(tmp_path / "single.pb"), cwd=tmp_path)
    found = evaluated(deepmd, tmp_path / "single.pb", tmp_path)
    assert found["energy"][0] == pytest.approx(own["energy"], abs=1e-4 * len(own["forces"]))
    np.testing.assert_allclose(found["forces"], own["forces"], atol=1e-4)
    assert np.abs(found["forces"] - own["forces"]).max() > 1e-10  # it is single precision


@pytest.mark.deepmd
def test_jax_finds_the_same_forces_and_virial(deepmd, exported, own, tmp_path):
    environment = Path(f"{deepmd}-jax")
    if not environment.is_dir():
        pytest.skip(f"{environment} is not there (bash tests/deepmd_environment.sh)")
    path = tmp_path / "student.hlo"
    call(environment, "dp", "convert-backend", str(exported), str(path), cwd=tmp_path)
    found = evaluated(environment, path, tmp_path)
    assert found["energy"][0] == pytest.approx(own["energy"], rel=1e-12)
    np.testing.assert_allclose(found["forces"], own["forces"], atol=1e-8)
    np.testing.assert_allclose(found["virial"], own["virial"], atol=1e-8)


@pytest.mark.deepmd
def test_lammps_finds_the_same_forces_and_pressure(deepmd, frozen, exported, own, tmp_path):
    for path in (frozen, exported.parent / "in.lammps", exported.parent / "conf.lmp"):
        shutil.copy(path, tmp_path)
    text = (tmp_path / "in.lammps").read_text().split("velocity")[0]
    text += (
        "thermo_style custom step pe pxx pyy pzz pxy pxz pyz\nthermo_modify format float %.14g\n"
        "dump 1 all custom 1 out.txt id type fx fy fz\ndump_modify 1 sort id format float %.14g\nrun 0\n"
    )
    (tmp_path / "in.lammps").write_text(text)
    output = call(deepmd, "lmp", "-in", "in.lammps", cwd=tmp_path).splitlines()
    at = next(i for i, line in enumerate(output) if line.split()[:2] == ["Step", "PotEng"])
    numbers = [float(x) for x in output[at + 1].split()[1:]]
    forces = np.loadtxt(tmp_path / "out.txt", skiprows=9)[:, 2:]
    # LAMMPS turns the cell: compare in its frame.
    with open(tmp_path / "conf.lmp") as stream:
        cell = read_lammps_data(stream, atom_style="atomic", units="metal").cell.array
    turn = np.linalg.solve(water(3).cell.array, cell)
    assert numbers[0] == pytest.approx(own["energy"], rel=1e-12)
    np.testing.assert_allclose(forces, own["forces"] @ turn, atol=1e-8)
    pressure = turn.T @ own["virial"] @ turn / water(3).get_volume() * BAR
    expected = [pressure[i, j] for i, j in [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]]
    np.testing.assert_allclose(numbers[1:], expected, rtol=2e-7, atol=1e-2)


@pytest.fixture(scope="module")
def pytorch(deepmd) -> Path:
    """DeePMD-kit with PyTorch."""
    folder = Path(f"{deepmd}-torch")
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there (WITH_TORCH=1 bash tests/deepmd_environment.sh)")
    return folder


@pytest.fixture(scope="module")
def training(deepmd, frozen, exported, tmp_path_factory) -> Path:
    """A folder with an input for ``dp train``, and a frame that the model labelled itself."""
    folder = tmp_path_factory.mktemp("training")
    data = folder / "data" / "set.000"
    data.mkdir(parents=True)
    atoms = water(3)
    types = [["H", "O"].index(s) for s in atoms.get_chemical_symbols()]
    np.savetxt(folder / "data" / "type.raw", types, fmt="%d")
    (folder / "data" / "type_map.raw").write_text("H\nO\n")
    before = evaluated(deepmd, frozen, folder)
    np.save(data / "coord.npy", atoms.positions.reshape(1, -1))
    np.save(data / "box.npy", atoms.cell.array.reshape(1, 9))
    np.save(data / "energy.npy", before["energy"])
    np.save(data / "force.npy", before["forces"].reshape(1, -1))
    script = {
        "model": read(exported)["model_def_script"],
        "learning_rate": {"type": "exp", "start_lr": 1e-12, "stop_lr": 1e-13, "decay_steps": 1},
        "loss": {"type": "ener", "start_pref_e": 1, "limit_pref_e": 1, "start_pref_f": 1, "limit_pref_f": 1},
        "training": {
            "training_data": {"systems": [str(folder / "data")], "batch_size": 1},
            "numb_steps": 2, "disp_freq": 1, "seed": 1,
        },
    }  # fmt: skip
    (folder / "input.json").write_text(json.dumps(script))
    return folder


def first_errors(pytorch: Path, training: Path, folder: Path, *start: str) -> dict[str, float]:
    """Errors of ``dp --pt train`` at its first step."""
    call(pytorch, "dp", "--pt", "train", str(training / "input.json"), *start, cwd=folder)
    lines = (folder / "lcurve.out").read_text().splitlines()
    return dict(zip(lines[0].split()[1:], np.loadtxt(folder / "lcurve.out", ndmin=2)[0], strict=True))


@pytest.mark.deepmd
def test_dp_train_goes_on_from_the_frozen_model(pytorch, training, exported, tmp_path):
    """The first errors on data that the model labelled itself are rounding: training begins with its weights."""
    call(pytorch, "dp", "convert-backend", str(exported), "student.pth", cwd=tmp_path)
    errors = first_errors(pytorch, training, tmp_path, "--init-frz-model", "student.pth")
    assert errors["rmse_e_trn"] < 1e-6
    assert errors["rmse_f_trn"] < 1e-5


@pytest.mark.deepmd
@pytest.mark.parametrize("start", ["--finetune", "--init-model"])
def test_dp_train_goes_on_from_the_checkpoint_that_the_script_makes(
    pytorch, training, exported, tmp_path, start
):
    script = str(exported.parent / "checkpoint.py")
    call(pytorch, "python", script, str(exported), "student.pt", cwd=tmp_path)
    errors = first_errors(pytorch, training, tmp_path, start, "student.pt")
    assert errors["rmse_e_trn"] < 1e-6
    assert errors["rmse_f_trn"] < 1e-5


@pytest.mark.deepmd
@pytest.mark.slow
def test_ten_picoseconds_at_constant_energy_do_not_drift(deepmd, tmp_path):
    """A student of EMT copper, trained here, in LAMMPS: 32 atoms at 300 K, 10 000 steps of 1 fs."""
    data = tmp_path / "cu"
    level = LevelOfTheory(method="empirical", functional="EMT")
    write_dataset(copper(80), data, DatasetFacts(head="cu", level_of_theory=level))
    config = tmp_path / "train.py"
    config.write_text(TRAIN.format(data=str(data), out=str(tmp_path / "run")))
    subprocess.run([sys.executable, str(config)], check=True, timeout=1800)
    shutil.copytree(data, tmp_path / "run" / "data" / "train")
    out = tmp_path / "lmp" / "cu.dp"
    out.parent.mkdir()
    assert main(["export", str(tmp_path / "run"), "--to", "deepmd", "--out", str(out)]) == 0
    call(deepmd, "dp", "convert-backend", "cu.dp", "cu.pb", cwd=out.parent)
    text = (
        (out.parent / "in.lammps")
        .read_text()
        .split("velocity")[0]
        .replace("read_data       conf.lmp", "read_data       conf.lmp\nreplicate       2 2 2")
    )
    (out.parent / "in.lammps").write_text(text + NVE)
    output = call(deepmd, "lmp", "-in", "in.lammps", cwd=out.parent).splitlines()
    rows = [line.split() for line in output if len(line.split()) == 4 and line.split()[0].isdigit()]
    energy = np.array([float(r[3]) for r in rows])[1:]
    temperature = np.array([float(r[1]) for r in rows])[1:]
    drift = np.polyfit(np.arange(len(energy)) / 10, energy, 1)[0] / 32  # eV/atom/ps: a line each 100 fs
    assert 100 < temperature.mean() < 400
    assert abs(drift) < 1e-6


NVE = """velocity        all create 600.0 1234 mom yes rot yes
fix             1 all nve
thermo          100
thermo_style    custom step temp pe etotal
thermo_modify   format float %.12g
run             10000
"""
TRAIN = """
from pathlib import Path
from lamkit.data.heads import HeadConfig, LevelOfTheory
from lamkit.model.config import DeepPotConfig
from lamkit.stages import student
from lamkit.train.config import TrainConfig
head = HeadConfig(name="cu", level_of_theory=LevelOfTheory(method="empirical", functional="EMT"))
trunk = DeepPotConfig(version="deeppot-se", cutoff=4.5, embedding=[8, 16, 32], axis=4, fitting=[32, 32])
train = TrainConfig(max_steps=600, batch_atoms=32, learning_rate=0.003, warmup_steps=20, ema=0.98, valid_every=300)
student.fit(Path({data!r}), head, trunk, train, Path({out!r}))
"""
