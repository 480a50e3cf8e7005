"""Order, checks and pictures of the graph."""

from __future__ import annotations

from pathlib import Path

import pytest
from shop import DIAMOND, LEARN, STAGES

from lamkit.errors import UserError
from lamkit.workflow import graph, picture, spec


def load(folder: Path, text: str) -> spec.Source:
    path = folder / "flow.yaml"
    path.write_text(text)
    return spec.load(path)


def build(folder: Path, text: str) -> graph.nx.DiGraph:
    return graph.build(load(folder, text), STAGES)


def chain(**reads: str) -> str:
    """A workflow whose stage ``x`` reads ``reads[x]``."""
    lines = [f'  {name}: {{stage: fake, with: {{reads: ["${{{other}}}"]}}}}' for name, other in reads.items()]
    return "\n".join(["name: x", "stages:", *lines])


def test_a_stage_comes_after_all_it_reads_and_otherwise_in_the_order_of_the_file(tmp_path: Path) -> None:
    assert graph.order(build(tmp_path, DIAMOND)) == ["a", "b", "c", "d", "e"]


def test_after_orders_without_reading(tmp_path: Path) -> None:
    built = build(tmp_path, "name: x\nstages:\n  a: {stage: fake, after: [b]}\n  b: {stage: fake}\n")
    assert graph.order(built) == ["b", "a"]
    assert graph.inputs(built, "a") == []


def test_a_cycle_is_drawn_as_a_chain(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a → b → c → a") as caught:
        build(tmp_path, chain(a="c", b="a", c="b"))
    assert "flow.yaml:3" in str(caught.value)


def test_a_stage_that_reads_itself_is_a_cycle(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a → a"):
        build(tmp_path, chain(a="a"))


def test_all_unknown_names_are_reported_together_with_lines(tmp_path: Path) -> None:
    text = """\
name: x
stages:
  pretrain: {stage: fkae}
  b:
    stage: fake
    with:
      reads: ["${pretain}"]
    after: [bb]
"""
    with pytest.raises(UserError) as caught:
        build(tmp_path, text)
    first, second, third = str(caught.value).splitlines()
    assert "flow.yaml:3: no stage 'fkae'. Did you mean 'fake'?" in first
    assert "flow.yaml:8: after: no stage 'bb'" in second
    assert "flow.yaml:7: no stage 'pretain' for ${pretain}. Did you mean 'pretrain'?" in third


def test_the_pictures_name_every_stage_and_edge(tmp_path: Path) -> None:
    source = load(tmp_path, DIAMOND)
    built = graph.build(source, STAGES)
    drawn = picture.mermaid(built, source)
    assert drawn.startswith("flowchart TD\n")
    assert drawn.count("-->") == 4
    tree = picture.text(built, source)
    assert all(f"{name} (fake)" in tree for name in "abcde")


def test_after_is_dashed_in_the_picture(tmp_path: Path) -> None:
    source = load(tmp_path, "name: x\nstages:\n  a: {stage: fake, after: [b]}\n  b: {stage: fake}\n")
    assert "s0 -.-> s1" in picture.mermaid(graph.build(source, STAGES), source)


def test_a_loop_is_drawn_once_with_an_arrow_to_the_next_round(tmp_path: Path) -> None:
    source = load(tmp_path, LEARN)
    built = graph.build(source, STAGES)
    drawn = picture.mermaid(built, source)
    assert drawn.count("subgraph") == 1
    assert "at most 4 rounds" in drawn
    assert drawn.count("next round") == 2
    assert "learn/2" not in drawn
    tree = picture.text(built, source).splitlines()
    assert [line.split()[0].rstrip(":") for line in tree] == ["a", "learn", "train", "test", "z"]
    assert "train of the round before" in tree[2]
