"""Command line: one verb per file, imported only when it is called.

``lamkit --help`` must be fast, so this module knows each verb by name and one line only.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamkit import __version__, console
from lamkit.errors import Interrupted, LamkitError, UserError, suggest

# verb -> (module, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "data": ("lamkit.cli.data", "convert, inspect, check and split data sets"),
    "pretrain": ("lamkit.cli.pretrain", "train one trunk with many heads"),
    "finetune": ("lamkit.cli.finetune", "fit one head of a checkpoint to new data"),
    "distill": ("lamkit.cli.distill", "teach a small fast student with a large model"),
    "evaluate": ("lamkit.cli.evaluate", "errors of a model on a data set"),
    "rebias": ("lamkit.cli.rebias", "refit only the energy reference of a head"),
    "rank-heads": ("lamkit.cli.rank_heads", "which head of a checkpoint fits a data set before any training"),
    "import": ("lamkit.cli.import_", "public Orb weights as a checkpoint"),
    "export": ("lamkit.cli.export", "a model in the form of another program"),
    "generate": ("lamkit.cli.generate", "make structures: occupations, defects, strains, displacements"),
    "explore": ("lamkit.cli.explore", "run MD with a model to find new structures"),
    "select": ("lamkit.cli.select", "choose a diverse part of a set of structures"),
    "label": ("lamkit.cli.label", "label structures with a model, an ASE calculator, CP2K or VASP"),
    "md": ("lamkit.cli.md", "molecular dynamics with a model"),
    "relax": ("lamkit.cli.relax", "relax positions and cells with a model"),
    "run": ("lamkit.cli.run", "run a workflow"),
    "status": ("lamkit.cli.status", "how a workflow stands"),
    "graph": ("lamkit.cli.graph", "draw a workflow"),
    "report": ("lamkit.cli.report", "write report.html for a run or workflow folder"),
    "show": ("lamkit.cli.show", "what a checkpoint or data set holds"),
    "ls": ("lamkit.cli.ls", "list heads, configs and workflows"),
    "cp": ("lamkit.cli.cp", "copy a built-in YAML file out to edit it"),
    "schema": ("lamkit.cli.schema", "keys that a YAML file may hold"),
    "doctor": ("lamkit.cli.doctor", "check this installation"),
}

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # nobody's mistake, and no traceback helps

EXAMPLES = """examples:
  lamkit run workflows/quickstart.yaml       the whole chain on the sample data, with a report
  lamkit data convert OUTCAR* --out mydata   VASP runs to a data set
  lamkit pretrain --multitask                many heads on the sample data
  lamkit finetune --head mptrj --from CKPT --data mydata
  lamkit distill --teacher CKPT --head NAME
"""


class _Parser(argparse.ArgumentParser):
    """Parser whose errors are one clear message with a suggestion (exit code 2)."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse; what this parser does not know is refused here, where it knows what is like it."""
        found, strange = super().parse_known_args(args, namespace)
        if strange:
            near = suggest(strange[0].partition("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(strange)}.{near}")
        return found, strange

    def error(self, message: str) -> None:  # type: ignore[override]
        verb = self.prog.removeprefix("lamkit").strip()
        end = "" if message.endswith((".", "?")) else "."
        raise UserError(f"{verb + ': ' if verb else ''}{message}{end} See '{self.prog} --help'.")


def shared_flags(parser: argparse.ArgumentParser, *, out: bool = True, training: bool = False) -> None:
    """Add the flags that verbs have in common; a verb calls this with what it needs."""
    if out:
        parser.add_argument("--out", metavar="DIR", help="folder to write")
    if training:
        parser.add_argument(
            "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
            help="override a config key, for example train.max_steps=100 (may be repeated)",
        )  # fmt: skip
        parser.add_argument("--seed", type=int, help="seed of every random choice")
        parser.add_argument("--device", choices=["CPU", "GPU", "Ascend"], default="CPU")
        parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.add_argument("-q", "--quiet", action="store_true", help="warnings and errors only")
    parser.add_argument("-v", "--verbose", action="store_true", help="debug messages too")


def ranks_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of verbs that train on several processes and machines."""
    ranks = parser.add_argument_group("several processes")
    ranks.add_argument("--ranks", type=int, metavar="N", help="processes that train together (train.ranks)")
    ranks.add_argument("--nodes", type=int, metavar="M", help="machines; call this on each of them")
    ranks.add_argument("--node", type=int, metavar="K", help="number of this machine, from 0")
    ranks.add_argument("--master", metavar="HOST:PORT", help="address of machine 0, a free port there")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code (0 done, 1 failed, 2 the user's input is wrong, 130 stopped)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(argv)
    except UserError as error:
        print(f"lamkit: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        print(f"lamkit: stopped. {error}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("lamkit: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `lamkit ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except LamkitError as error:
        print(f"lamkit: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            place = error.filename or "a file"
            print(f"lamkit: {place}: {error.strerror}; free space, or name another folder", file=sys.stderr)
            return 1
        _own_error(argv)
        return 1


def _own_error(argv: Sequence[str]) -> None:
    """Put the traceback of the error that is being handled into a file, and say so."""
    place = Path.cwd() / "lamkit-error.log"
    try:
        place.write_text(f"lamkit {__version__}: {' '.join(argv)}\n\n{traceback.format_exc()}")
        print(f"lamkit: an error of LAMKit's own; the traceback is in {place}", file=sys.stderr)
    except OSError:
        traceback.print_exc()
    print(f"lamkit: {traceback.format_exc(limit=0).strip().splitlines()[-1]}", file=sys.stderr)


def _main(argv: list[str]) -> int:
    parser = _Parser(
        prog="lamkit",
        description="Pre-train, fine-tune and distil interatomic potentials over many levels of theory.",
        epilog=EXAMPLES + "\n'lamkit VERB --help' tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lamkit {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=_Parser)
    name = next((a for a in argv if not a.startswith("-")), None)
    if name is not None and name not in VERBS:
        raise UserError(f"no verb '{name}'.{suggest(name, VERBS)} Known: {', '.join(VERBS)}")
    modules = {}
    for verb, (module, help_text) in VERBS.items():
        child = verbs.add_parser(
            verb, help=help_text, description=help_text[0].upper() + help_text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        if verb == name:
            modules[verb] = importlib.import_module(module)
            modules[verb].add_arguments(child)
            child.epilog = getattr(modules[verb], "EPILOG", None)
    args = parser.parse_args(argv)
    if args.verb is None:
        parser.print_help()
        return 0
    console.setup(-1 if getattr(args, "quiet", False) else int(getattr(args, "verbose", False)))
    try:
        result = modules[args.verb].run(args)
    except UserError:
        made = getattr(args, "made", None)  # by run_folder, for a run that has not begun
        if made is not None and made.is_dir() and not any(made.iterdir()):
            made.rmdir()
        raise
    result, code = result if isinstance(result, tuple) else (result, 0)  # some results are not a success
    if isinstance(result, dict):
        if getattr(args, "json", False):
            print(json.dumps(result, default=str))
        return int(code)
    return int(result or 0)
