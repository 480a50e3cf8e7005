"""``lamkit run``: a chain of stages, only those that have to run, going on where a run was cut off."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamkit import presets
from lamkit.cli import shared_flags
from lamkit.console import duration, log, table
from lamkit.errors import UserError
from lamkit.stages import STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamkit.workflow.execute import Outcome
    from lamkit.workflow.plan import Plan

HELP = "run a workflow"
REASON_WIDTH = 90
EPILOG = """examples:
  lamkit run workflows/quickstart.yaml              the whole chain on the sample data
  lamkit run my.yaml --dry-run                      what would run, and why
  lamkit run my.yaml --set stages.pretrain.with.train.max_steps=800
  lamkit run my.yaml --from distill                 distill and all that follows, once more

The same command again does nothing that is already done, and goes on after Ctrl-C, a crash or kill -9.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``lamkit run``."""
    parser.add_argument("workflow", help="YAML file, or name of a workflow (`lamkit ls workflows`)")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override a key of the workflow: stages.ID.with.OPTION=VALUE (may be repeated)",
    )  # fmt: skip
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would run, and why")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ID", help="run this stage alone (repeatable)"
    )
    parser.add_argument(
        "--from", dest="start", action="append", default=[], metavar="ID",
        help="run this stage and all that depends on it, up to date or not",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="run every stage, up to date or not")
    parser.add_argument(
        "--trust-code", action="store_true",
        help="keep what was made by another version of LAMKit's code, when nothing else has changed",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", "-j", type=int, default=0, metavar="N",
        help="independent stages at a time (default: as the cores suffice; a training uses up to 8 by itself)",
    )  # fmt: skip
    parser.add_argument(
        "--on", default="local", metavar="FILE",
        help="cluster file: label, explore and train stages go to Slurm, PBS, LSF, SSH (`lamkit schema cluster`)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="seed for every stage that has one")
    parser.add_argument(
        "--device", choices=["CPU", "GPU", "Ascend"], help="device for every stage that has one"
    )
    shared_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Plan, run (or only show the plan), and tell how it ended."""
    from lamkit.workflow import execute, spec

    if args.jobs < 0:
        raise UserError(f"--jobs {args.jobs}: must be at least 1, or 0 for as many as the cores suffice")
    source = spec.load(presets.find("workflows", args.workflow), args.overrides)
    folder = Path(args.out or source.workflow.name)
    settings = _settings(args)
    if args.dry_run:
        _show_plan(execute.preview(source, folder, STAGES, settings), args.json)
        return 0
    outcomes = execute.run(source, folder, STAGES, settings)
    code = execute.exit_code(list(outcomes.values()))
    _show_outcomes(outcomes, folder, code, _again(args), args.json)
    return code


def _settings(args: argparse.Namespace) -> Any:
    from lamkit.workflow.execute import Settings
    from lamkit.workflow.plan import Choice

    choice = Choice(tuple(args.only), tuple(args.start), args.force, args.trust_code)
    common = {key: value for key in ("seed", "device") if (value := getattr(args, key)) is not None}
    return Settings(choice, args.jobs, args.on, common)


def _show_plan(plan: Plan, as_json: bool) -> None:
    from lamkit.workflow.plan import NOT_NEEDED

    rows = [
        (name, "run" if d.runs else "-", d.why)
        for name, d in plan.decisions.items()
        if d.why != NOT_NEEDED and not plan.only_perhaps(name)
    ]
    for name, loop in plan.loops.loops.items():
        more = {n.split("/")[1] for n in plan.to_run if n.startswith(f"{name}/") and plan.only_perhaps(n)}
        if more:
            words = f"until {' and '.join(loop.until)}" if loop.until else "unless the time is spent"
            rows.append((f"{name}/…", "perhaps", f"up to {len(more)} more rounds, {words}"))
    print(table(rows, ("stage", "action", "why")), file=sys.stderr)
    if as_json:
        facts = {
            name: {"runs": d.runs, "why": d.why, "key": plan.tasks[name].key}
            for name, d in plan.decisions.items()
        }
        print(json.dumps({"stages": facts}))


def _show_outcomes(
    outcomes: Mapping[str, Outcome], folder: Path, code: int, again: str, as_json: bool
) -> None:
    shown = {name: outcome for name, outcome in outcomes.items() if _worth_a_line(name, outcome)}
    if all(outcome.state == "up to date" for outcome in shown.values()):
        log.info("%s: all %d stages are up to date; nothing to do", folder, len(shown))
    else:
        rows = [
            (name, o.state, "" if o.seconds is None else duration(o.seconds), _first_line(o.reason, o.state))
            for name, o in shown.items()
        ]
        log.info("\n%s", table(rows, ("stage", "outcome", "time", "reason")))
        log.info("%s: %s", folder, _verdict(outcomes, code, again))
    if as_json:
        stages = {
            name: {"outcome": o.state, "seconds": o.seconds, "reason": o.reason, "folder": str(folder / name)}
            for name, o in outcomes.items()
        }
        print(json.dumps({"folder": str(folder), "ok": code == 0, "stages": stages}))


def _worth_a_line(name: str, outcome: Outcome) -> bool:
    """Not a round of a loop that never came."""
    _, number, _ = name.split("/") if "/" in name else ("", "1", "")
    return outcome.state != "not needed" and (outcome.state != "skipped" or number == "1")


def _first_line(reason: str, state: str) -> str:
    """What fits into the table; the whole of it was said when it happened."""
    text = "" if state in ("up to date", "done") else reason.partition("\n")[0]
    return text if len(text) <= REASON_WIDTH else text[: REASON_WIDTH - 1] + "…"


def _again(args: argparse.Namespace) -> str:
    """The command that goes on with this run: without --from and --force, which would begin it anew."""
    words = ["lamkit", "run", args.workflow]
    for flag, values in (
        ("--out", [args.out]),
        ("--set", args.overrides),
        ("--only", args.only),
        ("--jobs", [args.jobs or None]),
        ("--on", [args.on if args.on != "local" else None]),
        ("--seed", [args.seed]),
        ("--device", [args.device]),
    ):
        words += [str(word) for value in values if value is not None for word in (flag, value)]
    words += ["--trust-code"] if args.trust_code else []
    return shlex.join(words)


def _verdict(outcomes: Mapping[str, Outcome], code: int, again: str) -> str:
    from lamkit.workflow.folder import LOG

    states = [outcome.state for outcome in outcomes.values()]
    if code == 130:
        return f"stopped; go on with: {again}"
    if code:
        n = states.count("failed")
        return f"{n} failed; each folder has a {LOG} with all output. Mend it, then: {again}"
    return f"done ({states.count('done')} run, {states.count('up to date')} up to date)"
