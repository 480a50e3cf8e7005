"""What a distillation tells its user: a sentence after each round, tables at the end."""

from __future__ import annotations

from typing import Any

from lamkit.console import table


def deviations(kept: dict[str, Any]) -> str:
    """How wrong the student of the round before is on frames of its own MD."""
    if kept["deviation_mean"] is None:
        return "the student gives no finite forces on any frame of its MD"
    return (
        f"student against teacher on these: {1000 * kept['deviation_mean']:.1f} meV/Å in the mean, "
        f"{1000 * kept['deviation_max']:.1f} at most; {kept['accurate']:.0%} better than wanted"
    )


def sentence(row: dict[str, Any]) -> str:
    """Error of the student after a round, whether it is good enough, and what the guards say."""
    interval = row["heldout_forces_rmse_interval"]
    spread = f" (95 %: {1000 * interval[0]:.0f} to {1000 * interval[1]:.0f})" if interval else ""
    return (
        f"round {row['round']}: held-out forces {1000 * row['heldout_forces_rmse']:.1f} meV/Å{spread} of "
        f"{1000 * row['heldout_forces_rms_target']:.0f}, wanted below {1000 * row['threshold']:.1f}: "
        f"{'met' if row['met'] else 'not met'}; {guards(row['guards'])}"
    )


def guards(found: dict[str, Any] | None) -> str:
    """What the guards found, in words."""
    if found is None:
        return "no guards"
    if not found["stable"]:
        name, reason = next(iter(found["stopped"].items()))
        return f"MD NOT STABLE ({len(found['stopped'])} stopped; {name}: {reason})"
    text = f"MD stable for {found['picoseconds']:g} ps"
    for kind in ("rdf", "msd"):
        if found[kind]:
            name, value = max(found[kind].items(), key=lambda item: item[1])
            text += f", {kind.upper()} off by {value:.1f} σ at most ({name})"
    if found["agree"] is None:
        return f"{text}, BUT NOTHING TO COMPARE WITH: the teacher's own MD stopped early"
    verdict = "as the teacher's" if found["agree"] else "NOT THE TEACHER'S"
    return f"{text}, {found['allowed']:.1f} allowed: {verdict}"


def summary(result: dict[str, Any]) -> str:
    """The rounds, the speed and what to do next."""
    headers = (
        "round",
        "explorer",
        "frames",
        "redundancy",
        "E RMSE meV/atom",
        "F RMSE meV/Å",
        "95 %",
        "wanted",
        "met",
        "MD",
    )
    lines = [table([_row(row) for row in result["rounds"]], headers), ""]
    models = result["speed"]["models"]
    lines.append(
        table(
            [
                (n, result["parameters"][n] or "–", m["ms_per_step"], m["us_per_step_atom"])
                for n, m in models.items()
            ],
            (f"MD of {result['speed']['n_atoms']} atoms", "parameters", "ms/step", "µs/step/atom"),
        )
    )
    failed = result["speed"]["failed"].items()
    lines += [f"the speed of the {name} is not known: it failed in MD ({why})" for name, why in failed]
    if result["speed"]["ratio"] is not None:
        lines.append(f"the student is {result['speed']['ratio']} times as fast as the teacher")
    lines.append(f"guards: {guards(result['guards'])}")
    if result["true_labels"]:
        lines += ["", _true_table(result["true_labels"])]
    lines.append(_ending(result))
    lines.append(
        f"student: {result['checkpoint']} (head {result['head']}); lamkit md FILE --model {result['checkpoint']}"
    )
    if result["lammps"]:
        lines.append(f"for LAMMPS: {result['lammps']}, whose first lines say how to run it")
    else:
        lines.append("LAMMPS runs students of the kind deeppot-se: --student deeppot-se")
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    interval = row["heldout_forces_rmse_interval"]
    found = row["guards"]
    return (
        row["round"],
        row["explorer"],
        row["frames"],
        "–" if row["redundancy"] is None else f"{row['redundancy']:.2f}",
        f"{1000 * row['heldout_energy_rmse']:.2f}",
        f"{1000 * row['heldout_forces_rmse']:.1f}",
        f"{1000 * interval[0]:.0f}–{1000 * interval[1]:.0f}" if interval else "–",
        f"{1000 * row['threshold']:.1f}",
        "yes" if row["met"] else "no",
        "–" if found is None else "passed" if found["passed"] else "failed",
    )


def _ending(result: dict[str, Any]) -> str:
    if result["converged"]:
        return (
            f"converged: the criterion was met in {result['wanted_rounds']} round(s) in a row, and MD passed"
        )
    last = result["rounds"][-1]
    if last["met"] and last["guards"] is not None and not last["guards"]["passed"]:
        return f"NOT CONVERGED: the forces are good enough, but MD is not: {guards(last['guards'])}"
    if last["met"]:
        return (
            f"NOT CONVERGED: the criterion was met, but not yet in {result['wanted_rounds']} rounds in a row, and "
            f"the budget is spent. {_onwards(result)}, or criterion.rounds: 1"
        )
    return (
        f"NOT CONVERGED: the budget ended before the criterion was met. {_onwards(result)}; or anew with more frames "
        "(n_frames) or train.max_steps, a wider student, or a larger criterion.fraction"
    )


def _onwards(result: dict[str, Any]) -> str:
    return f"More rounds: the same command with --resume --rounds {len(result['rounds']) + 2}"


def _true_table(found: dict[str, Any]) -> str:
    rows = [
        (name, *(f"{1000 * e[k]:.2f}" if e[k] is not None else "–" for k in ("energy_mae", "forces_rmse")))
        for name, e in found.items()
    ]
    return table(rows, ("against your labels", "E MAE meV/atom", "F RMSE meV/Å"))
