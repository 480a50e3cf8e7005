"""Padded shapes of a calculator: few, large enough, and the same again after a restart."""

from __future__ import annotations

import json

import numpy as np

from lamkit.data.batch import Shape
from lamkit.data.buckets import holds
from lamkit.data.shapes import MAX_SHAPES, Shapes


def needs(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        atoms = int(rng.integers(1, 400))
        yield Shape(atoms + 1, atoms * int(rng.integers(5, 60)), 2)


def test_shapes_are_few_and_hold_what_is_asked():
    shapes = Shapes()
    for needed in needs(500):
        assert holds(shapes.fit(needed), needed)
    assert len(shapes.shapes) <= MAX_SHAPES + 4


def test_a_fluctuating_structure_keeps_its_shape():
    shapes, rng = Shapes(), np.random.default_rng(0)
    for _ in range(300):
        shapes.fit(Shape(109, int(4000 * (1 + 0.05 * rng.standard_normal())), 2))
    assert len(shapes.shapes) <= 2


def test_restored_shapes_go_on_as_those_they_were_taken_from():
    shapes, again = Shapes(), Shapes()
    for needed in needs(60):
        shapes.fit(needed)
    again.restore(json.loads(json.dumps(shapes.state())))
    for needed in needs(200, seed=1):
        assert shapes.fit(needed) == again.fit(needed)
