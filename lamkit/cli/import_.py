"""``lamkit import``: public Orb weights as a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lamkit.cli import shared_flags
from lamkit.errors import UserError

EPILOG = """examples:
  lamkit import orb-v3-conservative-inf-omat-20250404.ckpt --out orb-v3
  lamkit import mine.ckpt --out mine --max-neighbors 20 --cutoff 6 --head mptrj
  lamkit import orb-v2-20241011.ckpt --out small --layers 5          the first five layers
Reads .ckpt of orb-models (0.4 and later; neither torch nor the package is needed, and nothing in the file is
executed) and of MindSpore. The checkpoint then serves 'lamkit evaluate', 'finetune --from' and LamCalculator."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("file", metavar="FILE", help="weights, .ckpt")
    parser.add_argument(
        "--head", metavar="NAME", help="name of the head; one of 'lamkit ls heads' brings its facts"
    )
    parser.add_argument(
        "--max-neighbors", type=int, metavar="N", help="neighbours of the graph (public: 20 or 120)"
    )
    parser.add_argument(
        "--cutoff", type=float, metavar="Å", help="of an orb-v2 whose name is not a public one"
    )
    parser.add_argument("--output", choices=["conservative", "direct"], help="of a file without heads")
    parser.add_argument(
        "--repulsion", action=argparse.BooleanOptionalAction, default=None,
        help="pair repulsion at short distance (in v3 it is on, in v2 off)",
    )  # fmt: skip
    parser.add_argument("--elements", metavar="H,C,…", help="elements that the model was trained on")
    parser.add_argument("--layers", type=int, metavar="K", help="keep only the first K interaction layers")
    parser.add_argument("--skip-reference", action="store_true", help="leave the energies per element out")
    parser.add_argument(
        "--partial-heads", action="store_true",
        help="let arrays of heads be missing (they begin at random) or unknown (left out); all are listed",
    )  # fmt: skip
    shared_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Import and print where the checkpoint is."""
    from lamkit import config
    from lamkit.stages import import_

    out = Path(args.out or Path(args.file).stem)
    taken = out.exists() and not (out.is_dir() and not any(out.iterdir()))
    if taken and Path(args.file).is_file():
        raise UserError(f"{out}: already exists; --out DIR names another folder")
    names = (
        "file",
        "head",
        "max_neighbors",
        "cutoff",
        "output",
        "repulsion",
        "layers",
        "skip_reference",
        "partial_heads",
    )
    given = {name: getattr(args, name) for name in names}
    if args.elements is not None:
        given["elements"] = [s for s in args.elements.replace(",", " ").split() if s]
    return import_.run(config.parse(import_.Options, given, origin="lamkit import"), out)
