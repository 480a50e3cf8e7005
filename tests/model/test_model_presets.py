"""Trunk presets: they load, and those of public models have the published sizes."""

from __future__ import annotations

import numpy as np
import pytest
from parity import REFERENCE, ours
from small import small_config

from lamkit import config
from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig, architecture
from lamkit.model.normalizers import Statistic
from lamkit.model.potential import Potential

# Of each public model: entries and values of its checkpoint (parameters and buffers), parameters, and those
# that are trained by default. The 118 reference energies are in the first three and not in the last.
PUBLIC = {
    "orb-v2": (345, 25_213_610, 25_213_601, 25_213_483),
    "orb-d3-sm-v2": (245, 17_328_800, 17_328_791, 17_328_673),
    "orb-d3-xs-v2": (145, 9_443_990, 9_443_981, 9_443_863),
    "orb-v3-direct-20": (144, 25_644_552, 25_644_479, 25_644_361),
    "orb-v3-direct-inf": (144, 25_644_552, 25_644_479, 25_644_361),
    "orb-v3-conservative-20": (133, 25_510_652, 25_510_582, 25_510_464),
    "orb-v3-conservative-inf": (133, 25_510_652, 25_510_582, 25_510_464),
    "orb-v3-direct-omol": (146, 25_906_300, 25_906_233, 25_906_115),
    "orb-v3-conservative-omol": (145, 25_839_740, 25_839_670, 25_839_552),
    "separate-d3-3layer": (108, 17_244_676, 17_244_603, 17_244_485),
}
N_REFERENCES = 118  # energies of the elements, which stand outside of our network


def preset(repo, kind: str, name: str) -> TrunkConfig:
    return config.load(TrunkConfig, repo / "configs" / kind / f"{name}.yaml")


def test_every_trunk_preset_loads_and_says_when_to_use_it(repo):
    files = [*(repo / "configs/trunk").glob("*.yaml"), *(repo / "configs/student").glob("*.yaml")]
    assert len(files) >= 8
    for path in files:
        found = architecture(config.read_yaml(path)[0], str(path))
        assert found.conservative or path.parent.name == "trunk"  # students run MD
        assert path.read_text().startswith("# ")


def n_parameters(potential: Potential) -> int:
    return sum(p.size for p in [*potential.trunk_parameters(), *potential.head_parameters()])


@pytest.mark.parametrize("name", PUBLIC)
def test_public_presets_have_the_published_numbers_of_parameters_and_state(repo, name):
    potential = Potential(preset(repo, "trunk", name), ["any"])
    state = potential.state()
    buffers = (".bn.", "bin_edges", "rbf_transform")
    weights = {key: value for key, value in state.items() if not any(b in key for b in buffers)}
    entries, values, parameters, trained = PUBLIC[name]
    assert len(state) + 1 == entries
    assert sum(v.size for v in state.values()) + N_REFERENCES == values
    assert sum(v.size for v in weights.values()) + N_REFERENCES == parameters
    decoder = sum(p.size for p in potential.decoder_parameters())
    assert decoder > 0
    assert n_parameters(potential) + decoder == trained


PUBLISHED_NAMES = {
    "orb_v2": "orb-v2",
    "orb_d3_sm_v2": "orb-d3-sm-v2",
    "orb_d3_xs_v2": "orb-d3-xs-v2",
    "orb_v3_direct": "orb-v3-direct-20",
    "orb_v3_conservative": "orb-v3-conservative-inf",
    "orb_v3_direct_omol": "orb-v3-direct-omol",
    "orb_v3_conservative_omol": "orb-v3-conservative-omol",
    "separate_d3_3layer": "separate-d3-3layer",
}


@pytest.mark.parametrize("published", PUBLISHED_NAMES)
def test_every_public_name_and_shape_is_in_the_state(repo, shared, published):
    lines = (shared / "design/orb_param_names" / f"{published}.txt").read_text().splitlines()
    expected = {ours(name): shape for name, shape, *_ in (x.split("\t") for x in lines if x[0] != "#")}
    assert expected.pop(ours(REFERENCE)) == "[118]"
    state = Potential(preset(repo, "trunk", PUBLISHED_NAMES[published]), ["one"]).state()
    assert {name: str(list(value.shape)) for name, value in state.items()} == expected


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
        "heads.mptrj.energy.normalizer.bn.running_var",
        "heads.mptrj.grad_stress_normalizer.bn.num_batches_tracked",
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


def test_state_survives_single_precision_bit_by_bit():
    """As a public checkpoint that is read and written again."""
    source, target = (
        Potential(small_config(confidence=True, conditioning=True, decoder=True), ["a"], s) for s in (1, 2)
    )
    source.set_statistic("a", "forces", Statistic(float(np.float32(0.1)), float(np.float32(1.7)), 1234))
    target.load_state(source.state())
    for name, value in target.state().items():
        np.testing.assert_array_equal(value, source.state()[name], err_msg=name)
    assert target.statistic("a", "forces") == source.statistic("a", "forces")


def test_single_numbers_may_have_either_shape_that_public_files_have():
    potential = Potential(small_config(), ["a"])
    name = "heads.a.energy.normalizer.bn.num_batches_tracked"
    for value in (np.array(7), np.array([7])):
        potential.load_state({name: value}, strict=False)
        assert potential.statistic("a", "energy").batches == 7
    with pytest.raises(UserError, match=r"num_batches_tracked has shape \(2,\), this model needs \(1,\)"):
        potential.load_state({name: np.array([7, 8])}, strict=False)


def test_conditioning_needs_a_width_that_can_be_cut_in_four():
    with pytest.raises(UserError, match="latent: 10 must be a multiple of 4"):
        config.parse(
            TrunkConfig, {"latent": 10, "hidden": 8, "layers": 1, "head_hidden": 8, "conditioning": True}
        )
