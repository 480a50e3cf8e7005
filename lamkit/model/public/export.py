"""A LAMKit model as a file that orb-models loads: arrays under public names, and the code that loads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamkit.errors import UserError
from lamkit.model.config import TrunkConfig
from lamkit.model.public.names import COUNTER, N_REFERENCES, REFERENCE, lamkit_name, public_shapes

CUTOFF = 6.0  # Å; orb-models has no other
DECODER = "model._decoder."


def refuse_inexpressible(trunk: TrunkConfig, where: str) -> None:
    """Refuse an architecture that orb-models 0.5 cannot build.

    Raises:
        UserError: all reasons.
    """
    reasons = []
    if trunk.cutoff != CUTOFF:
        reasons.append(f"its cutoff is {trunk.cutoff} Å, orb-models has {CUTOFF} Å fixed in its code")
    if trunk.repulsion and trunk.repulsion_rule != "orb":
        reasons.append(
            f"its pair repulsion follows the rule '{trunk.repulsion_rule}', orb-models knows the rule 'orb' alone"
        )
    if reasons:
        raise UserError(f"{where}: cannot be an Orb file: " + "; ".join(reasons))


def public_arrays(
    trunk: TrunkConfig,
    weights: Mapping[str, NDArray[Any]],
    reference: NDArray[np.float64],
    head: str,
    where: str,
) -> dict[str, NDArray[Any]]:
    """Arrays of a public file from those of a LAMKit checkpoint.

    Weights and normalisers become float32. References become float32 where that is exact, else they stay
    float64: orb-models rounds them itself when it runs in float32, and keeps them when it runs in float64.

    Args:
        trunk: architecture.
        weights: as in the checkpoint.
        reference: [119] eV by atomic number.
        head: which head.
        where: the checkpoint, for messages.

    Raises:
        UserError: arrays are missing, or the reference of an element that does not fit.
    """
    if reference[N_REFERENCES:].any():
        raise UserError(f"{where}: has a reference energy of element 118 (Og); Orb files end at 117")
    arrays: dict[str, NDArray[Any]] = {}
    for name, shape in public_shapes(trunk.model_copy(update={"decoder": True})).items():
        own = lamkit_name(name, head)
        if name == REFERENCE:
            arrays[name] = _as_exact(reference[:N_REFERENCES])
        elif name.startswith(DECODER) and not trunk.decoder:
            # orb-models insists on its denoising decoder, which no energy or force depends on.
            arrays[name] = np.zeros(shape, np.float32)
        elif own not in weights:
            raise UserError(f"{where}: {own} is missing; the checkpoint is damaged")
        else:
            kind = np.int64 if name.endswith(COUNTER) else np.float32
            arrays[name] = np.asarray(weights[own]).astype(kind).reshape(shape)
    return arrays


def _as_exact(values: NDArray[np.float64]) -> NDArray[Any]:
    narrow = values.astype(np.float32)
    return narrow if (narrow == values).all() else values.astype(np.float64)


# -- how to load it --------------------------------------------------------------------------------------

_LOAD = """\
# needs orb-models 0.5.5
from orb_models.forcefield import pretrained
from orb_models.forcefield.atomic_system import SystemConfig
from orb_models.forcefield.calculator import ORBCalculator
{imports}
system = SystemConfig(radius=6.0, max_num_neighbors={max_neighbors})
{build}
model = pretrained.load_model(model, {path!r}, device="cpu", precision="float32-highest", compile=False)
calculator = ORBCalculator(model, device="cpu")
"""
_V2 = 'model = pretrained.orb_v2_architecture(num_message_passing_steps={layers}, device="cpu", system_config=system)'
_V3 = """\
model = pretrained.orb_v3_{output}_architecture(
    latent_dim={latent}, base_mlp_hidden_dim={hidden}, head_mlp_hidden_dim={head_hidden},
    num_message_passing_steps={layers}, has_charge_spin_cond={conditioning}, has_stress={stress},
    device="cpu", system_config=system,
)"""
_PARTS_IMPORTS = """\
from functools import partial
from orb_models.forcefield import angular, conservative_regressor, direct_regressor, featurization_utilities
from orb_models.forcefield import forcefield_heads as heads, gns, nn_util, rbf
"""
_PARTS = """\
head = dict(latent_dim={latent}, num_mlp_layers=1, mlp_hidden_dim={head_hidden}, activation={activation!r})
outputs = {{"energy": heads.EnergyHead(predict_atom_avg=True, **head)}}
{outputs}
trunk = gns.MoleculeGNS(
    latent_dim={latent}, num_message_passing_steps={layers}, num_mlp_layers=2, mlp_hidden_dim={hidden},
    {edges},
    use_embedding=True, interaction_params={{"distance_cutoff": True, "attention_gate": "sigmoid"}},
    node_feature_names=["feat"], edge_feature_names=["feat"], conditioner={conditioner},
    activation={activation!r}, mlp_norm={norm!r},
)
model = {regressor}(
    heads=outputs, model=trunk, pair_repulsion={repulsion}, system_config=system{extra},
)"""
_GAUSSIANS = """\
num_node_in_features={latent}, num_node_out_features=3, num_edge_in_features={n_edge_inputs},
    rbf_transform=partial(featurization_utilities.gaussian_basis_function, num_bases={gaussians}, radius={reach})"""
_BESSEL = """\
rbf_transform=rbf.BesselBasis(r_max=6.0, num_bases={bessel}), outer_product_with_cutoff=True,
    angular_transform=angular.SphericalHarmonics(lmax={lmax}, normalize=True, normalization="component")"""
_OUTPUTS = {
    "forces": 'outputs["forces"] = heads.ForceHead(remove_mean=True, remove_torque_for_nonpbc_systems=True, **head)',
    "stress v2": 'outputs["stress"] = heads.GraphHead(target="stress", node_aggregation="mean", **head)',
    "stress v3": 'outputs["stress"] = heads.StressHead(node_aggregation="mean", **head)',
    "confidence": 'outputs["confidence"] = heads.ConfidenceHead(**head)',
}


def loading_code(trunk: TrunkConfig, path: str) -> str:
    """Python lines that make an ASE calculator of an exported file with orb-models 0.5.5."""
    values = {
        **trunk.model_dump(),
        "path": path,
        "n_edge_inputs": trunk.n_edge_inputs,
        "reach": trunk.gaussians / 2,
    }
    if trunk.version == "v2":
        usual = (trunk.latent, trunk.hidden, trunk.head_hidden, trunk.gaussians) == (256, 512, 256, 20)
        usual = (
            usual
            and trunk.output == "direct"
            and trunk.stress
            and not (trunk.conditioning or trunk.confidence)
        )
        build = _V2 if usual else None
    else:
        usual = trunk.repulsion and trunk.confidence and (trunk.bessel, trunk.lmax) == (8, 3)
        build = _V3 if usual else None
    imports = "" if build else _PARTS_IMPORTS
    text = build.format(**values) if build else _from_parts(trunk, values)
    return _LOAD.format(**values, imports=imports, build=text)


def _from_parts(trunk: TrunkConfig, values: Mapping[str, Any]) -> str:
    """For sizes and choices that the ready-made architectures of orb-models do not offer."""
    v2, conservative = trunk.version == "v2", trunk.conservative
    wanted = [] if conservative else ["forces", *([f"stress {trunk.version}"] if trunk.stress else [])]
    wanted += ["confidence"] if trunk.confidence else []
    kind = "conservative" if conservative else "direct"
    return _PARTS.format(
        **values,
        activation="ssp" if v2 else "silu",
        norm="layer_norm" if v2 else "rms_norm",
        outputs="\n".join(_OUTPUTS[name] for name in wanted),
        edges=(_GAUSSIANS if v2 else _BESSEL).format(**values),
        conditioner=f"nn_util.ChargeSpinConditioner({trunk.latent})" if trunk.conditioning else None,
        regressor=f"{kind}_regressor.{kind.capitalize()}ForcefieldRegressor",
        extra=f", ensure_grad_loss_weights=False, has_stress={trunk.stress}" if conservative else "",
    )
