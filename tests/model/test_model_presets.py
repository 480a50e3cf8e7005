"""Trunk presets: they load, and those of public models have the published sizes."""

from __future__ import annotations

import numpy as np
import pytest
from small import small_config

from lamkit import config
from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.model.potential import Potential

# Parameters of the public models, less what a force field of ours does not have: the denoising decoder,
# the confidence head of version 3, and the 118 reference energies, which stand outside of the network.
PUBLIC = {
    "orb-v2": 25_213_601 - 395_779 - 118,
    "orb-v3-direct": 25_644_479 - 1_315_843 - 78_642 - 118,
    "orb-v3-conservative": 25_510_582 - 1_315_843 - 78_642 - 118,
}


def preset(repo, kind: str, name: str) -> TrunkConfig:
    return config.load(TrunkConfig, repo / "configs" / kind / f"{name}.yaml")


def test_every_trunk_preset_loads_and_says_when_to_use_it(repo):
    files = [*(repo / "configs/trunk").glob("*.yaml"), repo / "configs/student/orb-narrow.yaml"]
    assert len(files) >= 8
    for path in files:
        config.load(TrunkConfig, path)
        assert path.read_text().startswith("# ")


def n_parameters(potential: Potential) -> int:
    return sum(p.size for p in [*potential.trunk_parameters(), *potential.head_parameters()])


@pytest.mark.parametrize("name", PUBLIC)
def test_public_presets_have_the_published_number_of_parameters(repo, name):
    assert n_parameters(Potential(preset(repo, "trunk", name), ["any"])) == PUBLIC[name]


def test_cpu_presets_are_small(repo):
    sizes = {
        name: n_parameters(Potential(preset(repo, "trunk", name), ["any"]))
        for name in ("orb-v3-small", "orb-v3-tiny")
    }
    assert 300_000 < sizes["orb-v3-small"] < 500_000
    assert 30_000 < sizes["orb-v3-tiny"] < 100_000


def test_parameters_have_their_public_names():
    names = set(Potential(small_config(layers=1), ["mptrj"]).state())
    for name in (
        "model.atom_emb.embeddings.weight",
        "model.rbf_transform.bessel_weights",
        "model._encoder._node_fn.mlp.NN-0.weight",
        "model._encoder._edge_fn.layer_norm.weight",
        "model.gnn_stacks.0._edge_mlp.mlp.NN-2.bias",
        "model.gnn_stacks.0._receive_attn.weight",
        "heads.mptrj.energy.mlp.NN-1.weight",
        "heads.mptrj.energy.normalizer.std",
        "heads.mptrj.stress.offdiag_normalizer.mean",
    ):
        assert name in names


def test_starting_weights_depend_on_seed_and_head_name_only():
    def state(heads, seed):
        return Potential(small_config(), heads, seed).state()

    one, two = state(["a"], 1), state(["b", "a"], 1)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    weight = "heads.a.energy.mlp.NN-0.weight"
    assert not np.array_equal(one[weight], two[weight.replace(".a.", ".b.")])
    assert not np.array_equal(one[weight], state(["a"], 2)[weight])


def test_what_is_not_there_yet_is_refused():
    with pytest.raises(UserError, match="confidence: true is not available yet"):
        config.parse(
            TrunkConfig, {"latent": 8, "hidden": 8, "layers": 1, "head_hidden": 8, "confidence": True}
        )
