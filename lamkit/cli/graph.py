"""``lamkit graph``: the graph of a workflow, as Mermaid or as a tree of lines."""

from __future__ import annotations

import argparse

from lamkit import presets
from lamkit.cli import shared_flags
from lamkit.stages import STAGES

HELP = "draw a workflow"
EPILOG = """examples:
  lamkit graph workflows/quickstart.yaml              Mermaid; GitHub draws it in a ```mermaid block
  lamkit graph workflows/quickstart.yaml --text
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``lamkit graph``."""
    parser.add_argument("workflow", help="YAML file, or name of a workflow (`lamkit ls workflows`)")
    parser.add_argument("--text", action="store_true", help="a tree of lines instead of Mermaid")
    shared_flags(parser, out=False)


def run(args: argparse.Namespace) -> dict[str, object]:
    """Print the picture; with --json the stages in order and the edges."""
    from lamkit.workflow import graph, picture, spec

    source = spec.load(presets.find("workflows", args.workflow))
    built = graph.build(source, STAGES)
    if not args.json:
        print((picture.text if args.text else picture.mermaid)(built, source))
    return {
        "stages": [node.id for node in picture.shown(built)],
        "edges": [[arrow.start, arrow.end] for arrow in picture.arrows(built)],
    }
