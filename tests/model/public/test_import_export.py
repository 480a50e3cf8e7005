"""``lamkit import`` and ``lamkit export`` through the command line: the same numbers in and out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.build import bulk, molecule
from torch_files import old_names, public_arrays, records_of, small_trunk, write, write_zip

from lamkit.cli import main
from lamkit.data.heads import HeadConfig, LevelOfTheory
from lamkit.model.public.names import REFERENCE
from lamkit.model.public.torch_zip import TorchFile
from lamkit.stages import import_
from lamkit.stages.export import TARGETS
from lamkit.train import checkpoint

TRUNK = small_trunk(max_neighbors=20)
TOLD = ["--max-neighbors", "20"]
WB97 = LevelOfTheory(method="DFT", functional="wB97X", basis="def2-TZVP")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def arrays():
    return public_arrays(TRUNK)


@pytest.fixture(scope="module")
def public(tmp_path_factory, arrays):
    return write(tmp_path_factory.mktemp("public") / "mine.ckpt", arrays)


def run(capsys, *arguments) -> tuple[dict, str]:
    """Result and messages of a command that must do."""
    capsys.readouterr()
    code = main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out), captured.err


def refused(capsys, *arguments) -> str:
    """Message of a command that must refuse, having written nothing."""
    capsys.readouterr()
    code = main([*map(str, arguments), "-q"])
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.err.startswith("lamkit: ")
    assert "Traceback" not in captured.err
    return captured.err


def contents(path) -> dict[str, np.ndarray]:
    with TorchFile(path) as file:
        return {name: array.load() for name, array in file.arrays.items()}


def assert_same(found, expected) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


def same_model(one, other) -> None:
    assert one.trunk == other.trunk
    assert one.elements == other.elements
    assert one.head_configs == other.head_configs
    assert_same(one.references, other.references)
    assert_same(one.weights, other.weights)


# -- import ----------------------------------------------------------------------------------------------


def test_an_imported_file_is_a_checkpoint_with_every_bit(capsys, public, arrays):
    result, _ = run(capsys, "import", public, "--out", "model", *TOLD)
    found = checkpoint.read("model")
    assert result["checkpoint"] == "model"
    assert found.trunk == TRUNK
    assert found.heads == ("orb",)
    assert found.references["orb"].dtype == np.float64
    assert np.array_equal(found.references["orb"][:118], arrays[REFERENCE])
    assert np.array_equal(
        found.weights["heads.orb.energy.mlp.NN-0.weight"], arrays["heads.energy.mlp.NN-0.weight"]
    )
    assert len(found.weights) == len(arrays) - 1
    assert result["n_values"] == sum(a.size for a in arrays.values())


def test_the_checkpoint_is_named_after_the_file_where_no_folder_is_given(capsys, public):
    run(capsys, "import", public, *TOLD)
    assert checkpoint.read("mine").trunk == TRUNK


def test_in_a_folder_of_a_workflow_the_checkpoint_lies_beside_the_log(public, tmp_path):
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "stage.log").write_text("")
    import_.run(import_.Options(file=str(public), max_neighbors=20), tmp_path / "stage")
    assert checkpoint.read(tmp_path / "stage").trunk == TRUNK
    assert (tmp_path / "stage" / "stage.log").exists()


def test_a_head_of_the_library_brings_its_level_of_theory(capsys, public):
    run(capsys, "import", public, "--out", "model", *TOLD, "--head", "mptrj")
    assert checkpoint.read("model").head_configs["mptrj"].level_of_theory.functional == "PBE"


def test_a_public_name_brings_head_elements_and_neighbours(capsys, tmp_path):
    trunk = small_trunk(layers=5, output="direct")
    path = write(tmp_path / "orb-v3-direct-inf-omat-20250404.ckpt", public_arrays(trunk))
    result, _ = run(capsys, "import", path, "--out", "model")
    found = checkpoint.read("model")
    assert result["known_as"] == "orb-v3-direct-inf-omat"
    assert (result["head"], found.trunk.max_neighbors) == ("omat24", 120)
    assert len(found.elements["omat24"]) == 89
    assert "Po" not in found.elements["omat24"]


def test_elements_can_be_named(capsys, public):
    run(capsys, "import", public, "--out", "model", *TOLD, "--elements", "O,H Cu")
    assert checkpoint.read("model").elements["orb"] == ["H", "O", "Cu"]
    assert "'Cx' is no element" in refused(
        capsys, "import", public, "--out", "other", *TOLD, "--elements", "Cx"
    )


def test_what_is_left_out_is_said_aloud(capsys, public):
    result, err = run(capsys, "import", public, "--out", "model", *TOLD, "--layers", "1", "--skip-reference")
    assert "layers after the first 1" in err
    assert REFERENCE in err
    assert "lamkit rebias" in err
    assert result["trunk"]["layers"] == 1
    assert not checkpoint.read("model").references["orb"].any()


def test_missing_heads_begin_as_in_a_new_model_when_allowed(capsys, tmp_path, arrays):
    bare = {n: a for n, a in arrays.items() if n.startswith("model.")}
    path = write(tmp_path / "bare.ckpt", bare)
    flags = [*TOLD, "--output", "direct", "--out", "model"]
    assert "--partial-heads" in refused(capsys, "import", path, *flags)
    result, err = run(capsys, "import", path, *flags, "--partial-heads")
    assert "heads.forces.mlp.NN-0.weight" in result["missing"]
    assert "begin as in a new model" in err
    found = checkpoint.read("model")
    assert found.weights["heads.orb.forces.mlp.NN-1.weight"].shape == (3, TRUNK.latent)
    assert_same({n: a for n, a in found.weights.items() if n.startswith("model.")}, bare)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--out", "model"], "give --max-neighbors"),
        ([*TOLD, "--out", "model", "--cutoff", "5"], "the file says 6.0"),
        ([*TOLD, "--out", "model", "--output", "direct"], "holds a conservative model"),
        ([*TOLD, "--out", "model", "--layers", "7"], "has 2 interaction layers"),
        ([*TOLD, "--out", "model", "--layers", "0"], "layers"),
        ([*TOLD, "--out", "model", "--head", "a/b"], "letters, digits"),
        ([*TOLD, "--out", "model", "--max-neighbours", "3"], "unrecognized arguments"),
    ],
)
def test_wrong_flags_are_refused_and_nothing_is_written(capsys, public, here, flags, reason):
    assert reason in refused(capsys, "import", public, *flags)
    assert list(here.iterdir()) == []


def test_a_folder_that_holds_something_is_not_overwritten(capsys, public, here):
    (here / "model").mkdir()
    (here / "model" / "precious.txt").write_text("mine")
    assert "already exists" in refused(capsys, "import", public, "--out", "model", *TOLD)
    assert [p.name for p in (here / "model").iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("content", [b"", b"hello", b"<html>", b"PK\x03\x04" + bytes(50), b"\n" + bytes(40)])
def test_a_file_of_something_else_is_refused(capsys, tmp_path, here, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    assert "a.ckpt: " in refused(capsys, "import", tmp_path / "a.ckpt", "--out", "model", *TOLD)
    assert list(here.iterdir()) == []


# -- export ----------------------------------------------------------------------------------------------


def test_import_and_export_give_the_same_file(capsys, public, arrays):
    run(capsys, "import", public, "--out", "model", *TOLD)
    result, err = run(capsys, "export", "model", "--to", "orb", "--out", "again.ckpt")
    found = contents("again.ckpt")
    assert_same(found, arrays)
    assert {n: a.dtype for n, a in found.items()} == {n: a.dtype for n, a in arrays.items()}
    assert "pretrained.load_model" in result["load_with"]
    assert result["load_with"] in err


def test_files_of_release_0_4_become_files_of_0_5(capsys, tmp_path):
    expected = public_arrays(small_trunk(version="v2"))
    path = write(tmp_path / "old.ckpt", old_names(expected))
    run(capsys, "import", path, "--out", "model", *TOLD, "--cutoff", "6")
    run(capsys, "export", "model", "--to", "orb", "--out", "new.ckpt")
    assert_same(contents("new.ckpt"), expected)


def trained(folder, trunk, heads=("mols", "other"), seed=0):
    """A checkpoint of several heads with energies of all-electron size."""
    from lamkit.model.runtime import setup

    setup("CPU")
    from lamkit.model.potential import Potential

    potential = Potential(trunk, list(heads), seed)
    potential.set_scale(heads[0], "energy", 0.123456789, 2.34567)
    rng = np.random.default_rng(seed)
    references = {h: np.append(rng.normal(-3e4, 1e4, 118), 0.0) for h in heads}
    made = checkpoint.Checkpoint(
        path=folder, trunk=trunk, heads=tuple(heads), weights=potential.state(), references=references,
        head_configs={h: HeadConfig(name=h, level_of_theory=WB97, citation=f"Paper on {h}") for h in heads},
        elements={h: ["H", "C", "O", "Cu"] for h in heads}, state={"step": 5},
    )  # fmt: skip
    checkpoint.write(folder, made)
    return made


VARIANTS = [
    {},
    {"output": "direct", "confidence": False, "lmax": 1},
    {"version": "v2", "gaussians": 12},
    {"conditioning": True, "stress": False},
    {"repulsion": False, "decoder": False, "confidence": False, "lmax": 0, "bessel": 5},
]


@pytest.mark.parametrize("choices", VARIANTS, ids=str)
def test_a_model_exported_and_imported_is_the_same_model(capsys, choices):
    before = trained("model", small_trunk(max_neighbors=31, **choices))
    _, err = run(capsys, "export", "model", "--to", "orb", "--head", "mols", "--out", "mols.ckpt")
    assert 'precision="float64"' in err  # energies of 30,000 eV lose their millielectronvolts otherwise
    result, _ = run(capsys, "import", "mols.ckpt", "--out", "again")
    after = checkpoint.read("again")
    assert result["head"] == "mols"
    assert result["missing"] == result["extra"] == []
    assert after.trunk == before.trunk
    assert after.elements["mols"] == before.elements["mols"]
    assert after.head_configs["mols"] == before.head_configs["mols"]
    assert np.array_equal(after.references["mols"], before.references["mols"])
    mine = {n: a for n, a in before.weights.items() if not n.startswith("heads.other.")}
    assert set(after.weights) == set(mine)
    for name, array in mine.items():
        # Normalisers are double here and single there.
        assert np.array_equal(after.weights[name], array.astype(np.float32) if ".bn." in name else array), (
            name
        )


def test_energies_survive_export_and_import(capsys):
    from lamkit.calculator import LamCalculator

    trained("model", TRUNK)
    run(capsys, "export", "model", "--to", "orb", "--head", "mols", "--out", "mols.ckpt")
    run(capsys, "import", "mols.ckpt", "--out", "again")
    atoms = [molecule("CH3OH"), bulk("Cu", cubic=True)]
    for a in atoms:
        a.rattle(0.1)
    before, after = (LamCalculator(m, "mols").predict(atoms) for m in ("model", "again"))
    for one, other in zip(before, after, strict=True):
        assert other["energy"] == pytest.approx(one["energy"], rel=0, abs=1e-6)
        np.testing.assert_allclose(other["forces"], one["forces"], rtol=0, atol=1e-6)


def test_an_imported_model_can_be_shown_and_evaluated(capsys, tmp_path):
    import tiny

    path = write(tmp_path / "mine.ckpt", public_arrays(small_trunk(confidence=False)))
    run(capsys, "import", path, "--out", "model", *TOLD, "--head", "metals")
    tiny.write_labelled("data", "model", "metals", tiny.metals(3))
    shown, _ = run(capsys, "show", "model")
    assert shown["parameters"]["heads"]["metals"] > 0
    errors, _ = run(capsys, "evaluate", "model", "--data", "data")
    assert errors["metals"]["forces_mae"] < 1e-5


def test_a_head_named_like_a_path_is_refused(capsys, tmp_path, arrays, here):
    head = {"name": "../../evil", "level_of_theory": {"method": "DFT", "functional": "PBE"}}
    record = json.dumps({"trunk": TRUNK.model_dump(), "head": head}).encode()
    path = write_zip(tmp_path / "a.ckpt", {**records_of(arrays), "lamkit.json": record})
    assert "its head is named ../../evil" in refused(capsys, "import", path, "--out", "model")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--to", "orbit"], "invalid choice"),
        (["--to", "orb"], "several heads"),
        (["--to", "orb", "--head", "mol"], "Did you mean 'mols'?"),
        ([], "--to"),
    ],
)
def test_wrong_flags_of_an_export_are_refused(capsys, here, flags, reason):
    trained("model", TRUNK)
    assert reason in refused(capsys, "export", "model", "--out", "x.ckpt", *flags)
    assert [p.name for p in here.iterdir()] == ["model"]


def test_a_model_that_orb_models_cannot_build_is_refused_with_every_reason(capsys, here):
    trained("model", small_trunk(cutoff=4.5, repulsion_rule="physical"), ["mols"])
    message = refused(capsys, "export", "model", "--to", "orb", "--out", "x.ckpt")
    assert "4.5" in message
    assert "physical" in message
    assert not (here / "x.ckpt").exists()


def test_an_existing_file_is_not_overwritten(capsys, here):
    trained("model", TRUNK, ["mols"])
    (here / "x.ckpt").write_text("precious")
    assert "already exists" in refused(capsys, "export", "model", "--to", "orb", "--out", "x.ckpt")
    assert (here / "x.ckpt").read_text() == "precious"


def test_every_form_of_export_has_a_module_that_can_do_it():
    import importlib

    for module, _ in TARGETS.values():
        found = importlib.import_module(module)
        assert found.SUFFIX.startswith(".")
        assert callable(found.run)


@pytest.mark.slow
def test_an_imported_model_can_be_fine_tuned(capsys, tmp_path):
    import tiny

    path = write(tmp_path / "mine.ckpt", public_arrays(small_trunk(version="v2")))
    run(capsys, "import", path, "--out", "model", *TOLD, "--cutoff", "6", "--head", "metals")
    tiny.write_labelled("data", "model", "metals", tiny.metals(8), tiny.shifted(0.1, 0.1, 0.01))
    result, _ = run(
        capsys, "finetune", "--head", "metals", "--from", "model", "--data", "data", "--out", "tuned",
        "--set", "train.max_steps=2",
    )  # fmt: skip
    assert result["began_as"] == "metals"
