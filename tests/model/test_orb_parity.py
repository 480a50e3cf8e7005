"""The same numbers as the public Orb models in double precision, on every structure of the reference set."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
from small import Predictor, ms

from lamkit.data.batch import Shape, collate, make_graph, shape_of
from lamkit.data.frame import Frame
from lamkit.model.config import TrunkConfig
from lamkit.model.potential import Potential

PARITY = 1e-9  # eV, eV/Å, eV/Å³: what the reference set suggests for double precision
MODELS = ["orb_v2_direct_L3", "orb_v3_direct_L3", "orb_v3_conservative_L3"]


@pytest.fixture(scope="module")
def reference(shared):
    folder = shared / "orb_parity"
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}")
    return folder


def config_of(facts: dict, name: str) -> TrunkConfig:
    return TrunkConfig(
        version="v2" if "v2" in facts["arch"] else "v3",
        output="conservative" if "conservative" in facts["arch"] else "direct",
        latent=facts["latent_dim"],
        hidden=facts["base_mlp_hidden_dim"],
        layers=facts["num_message_passing_steps"],
        head_hidden=facts["head_mlp_hidden_dim"],
        cutoff=facts["radius"],
        max_neighbors=facts["max_num_neighbors"],
        repulsion="v3" in facts["arch"],
        repulsion_rule="orb",
    )


def renamed(weights, own: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Public names to ours: the trunk as it stands, heads under a name, variances to deviations."""
    state = {}
    for name, value in weights.items():
        target = name.replace("heads.", "heads.one.")
        if ".bn.running_" in name:
            spread = name.endswith("running_var")
            value = (np.sqrt(value.astype(np.float64)) if spread else value).reshape(())
            target = target.replace(".bn.running_mean", ".mean").replace(".bn.running_var", ".std")
        halves = [
            target.replace("stress.normalizer", f"stress.{half}_normalizer") for half in ("diag", "offdiag")
        ]
        state.update((t, value) for t in set(halves) if t in own)
    return state


def frames_of(path) -> list[Frame]:
    """The structures; a box around a molecule is kept, as the public code looks at the cell alone."""
    return [
        Frame(numbers=a.numbers, positions=a.positions, cell=a.cell.array, pbc=a.pbc, source=a.info["name"])
        for a in ase.io.read(path, ":")
    ]


@pytest.mark.parametrize("name", MODELS)
def test_predictions_are_those_of_the_public_model(reference, name):
    facts = json.loads((reference / "configs.json").read_text())["models"][name]
    config = config_of(facts, name)
    potential = Potential(config, ["one"], dtype=ms.float64)
    weights = dict(np.load(reference / "weights" / f"{name}.npz"))
    own = potential.state()
    state = renamed(weights, own)
    # Only conservative models have no normalisers for forces and stress under these names.
    assert all("normalizer" in missing and config.conservative for missing in set(own) - set(state))
    potential.load_state({**own, **state})

    frames = frames_of(reference / "structures.extxyz")
    graphs = [make_graph(f, config.cutoff, config.max_neighbors, np.float64) for f in frames]
    tight = shape_of(graphs)
    shape = Shape(tight.n_atoms + 3, tight.n_edges + 11, tight.n_graphs + 1)
    out = Predictor(potential).predict(collate(graphs, shape, dtype=np.float64), 0, latents=True)

    expected = np.load(reference / "reference" / f"{name}__BATCH_ALL.npz")
    kind = "grad_" if config.conservative else ""
    n = len(expected["graph/atomic_numbers"])
    table = np.zeros(119)
    table[:118] = weights["heads.energy.reference.linear.weight"].ravel()
    energy = [e * len(f) + table[f.numbers].sum() for e, f in zip(out["energy"], frames, strict=False)]
    np.testing.assert_allclose(energy, expected["pred/energy"], rtol=0, atol=PARITY)
    np.testing.assert_allclose(out["forces"][:n], expected[f"pred/{kind}forces"], rtol=0, atol=PARITY)
    np.testing.assert_allclose(out["latents"][:n], expected["final_node_features"], rtol=0, atol=PARITY)
    # Without periodic axis only v2 gives a stress that means something (its raw output).
    compared = [i for i, f in enumerate(frames) if f.pbc.any() or config.version == "v2"]
    assert len(compared) >= 5
    stress = expected[f"pred/{kind}stress"]
    np.testing.assert_allclose(out["stress"][compared], stress[compared], rtol=0, atol=PARITY)
