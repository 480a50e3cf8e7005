"""Energies of atoms and products with the Hessian: kept by every file and turned with the frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from frames import random_frame

from lamkit.cli import main
from lamkit.data.batch import collate, make_graph, random_rotations, rotate, shape_of
from lamkit.data.curvature import directions
from lamkit.data.dataset import open_dataset, write_dataset
from lamkit.data.exchange import export
from lamkit.data.frame import without_labels
from lamkit.data.summary import label_counts
from lamkit.stages import parts


def labelled(seed: int, energies: bool = True, k: int = 2, n_atoms: int = 4):
    frame = random_frame(seed, n_atoms=n_atoms)
    rng = np.random.default_rng(100 + seed)
    own = directions(frame, k)
    return replace(
        frame,
        atom_energies=rng.normal(size=n_atoms) if energies else None,
        hessian=np.stack([own, rng.normal(size=own.shape)], axis=1) if k else None,
    )


def some() -> list:
    """Every combination, two sizes, other numbers of directions."""
    return [
        labelled(0),
        labelled(1, k=0),
        labelled(2, energies=False, k=3),
        random_frame(3),
        labelled(4, n_atoms=6),
        labelled(5),
    ]


def same(one, two) -> None:
    for name in ("atom_energies", "hessian", "forces", "stress"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-15, err_msg=name)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("extra") / "data"
    write_dataset(some(), out)
    return open_dataset(out)


def test_data_set_gives_back_what_each_frame_has_and_nothing_else(data):
    found = {data.frame(i).step: data.frame(i) for i in range(len(data))}
    for frame in some():
        same(frame, found[frame.step])
    counts = label_counts(data)
    assert (counts["atom_energies"], counts["hessian"]) == (4, 4)
    assert data.facts.labels["hessian"] == 4


def test_conversion_keeps_them(data, tmp_path):
    assert main(["data", "convert", str(data.path), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    again = open_dataset(tmp_path / "again")
    found = {again.frame(i).step: again.frame(i) for i in range(len(again))}
    assert len(found) == len(some())
    for frame in some():
        same(frame, found[frame.step])


def test_part_of_a_stopped_run_keeps_them(tmp_path):
    parts.save_frames(tmp_path / "part.npz", some())
    for one, two in zip(some(), parts.load_frames(tmp_path / "part.npz"), strict=True):
        same(one, two)


def test_deepmd_gets_its_own_file_only(data, tmp_path):
    export(data, "deepmd", tmp_path / "dp")
    names = {p.name for p in (tmp_path / "dp").rglob("*.npy")}
    assert "atom_ener.npy" in names
    assert "hessian_products.npy" not in names


def test_directions_belong_to_the_structure_and_have_unit_components():
    one, other = random_frame(1), random_frame(2)
    np.testing.assert_array_equal(directions(one, 2), directions(without_labels(one), 2))
    assert not np.allclose(directions(one, 1), directions(other, 1))
    np.testing.assert_allclose(np.square(directions(one, 3)).mean(axis=(1, 2)), 1.0)


def test_batch_has_one_direction_of_each_frame_and_masks_the_rest():
    graphs = [
        make_graph(f, 4.0, None, np.float64) for f in (labelled(0), random_frame(3), labelled(2, False, 3))
    ]
    reference = np.linspace(-1, 1, 119)
    batch = collate(graphs, shape_of(graphs), reference, np.float64, direction=4)
    first, last = labelled(0), labelled(2, False, 3)
    np.testing.assert_array_equal(batch.directions[:4], first.hessian[0, 0])
    np.testing.assert_array_equal(batch.products[8:12], last.hessian[1, 1])
    np.testing.assert_array_equal(batch.products_mask, [1] * 4 + [0] * 4 + [1] * 4 + [0])
    np.testing.assert_array_equal(batch.atom_energies_mask, [1] * 4 + [0] * 9)
    np.testing.assert_allclose(batch.atom_energies[:4], first.atom_energies - reference[first.numbers])


def test_directions_and_products_turn_with_the_frame():
    graphs = [make_graph(labelled(0), 4.0, None, np.float64)]
    batch = collate(graphs, shape_of(graphs), None, np.float64)
    turn = random_rotations(np.random.default_rng(1), 2)
    turned = rotate(batch, turn)
    for name in ("directions", "products", "forces"):
        np.testing.assert_allclose(
            getattr(turned, name)[:4], getattr(batch, name)[:4] @ turn[0].T, atol=1e-12
        )
    np.testing.assert_array_equal(turned.atom_energies, batch.atom_energies)
