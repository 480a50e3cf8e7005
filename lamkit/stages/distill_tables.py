"""What a distillation tells its user: a sentence after each round, tables at the end."""

from __future__ import annotations

from typing import Any

from lamkit.console import table


def sentence(row: dict[str, Any]) -> str:
    """Error of the student after a round, and whether it is good enough."""
    interval = row["heldout_forces_rmse_interval"]
    spread = f" (95 %: {1000 * interval[0]:.0f} to {1000 * interval[1]:.0f})" if interval else ""
    return (
        f"round {row['round']}: held-out forces {1000 * row['heldout_forces_rmse']:.1f} meV/Å{spread} of "
        f"{1000 * row['heldout_forces_rms_target']:.0f}, wanted below {1000 * row['threshold']:.1f}: "
        f"{'converged' if row['converged'] else 'not converged'}"
    )


def summary(result: dict[str, Any]) -> str:
    """The rounds, the speed and what to do next."""
    rows = [
        (
            row["round"],
            row["frames"],
            "–" if row["redundancy"] is None else f"{row['redundancy']:.2f}",
            f"{1000 * row['heldout_energy_rmse']:.2f}",
            f"{1000 * row['heldout_forces_rmse']:.1f}",
            f"{1000 * row['threshold']:.1f}",
            "yes" if row["converged"] else "no",
        )
        for row in result["rounds"]
    ]
    headers = ("round", "frames", "redundancy", "E RMSE meV/atom", "F RMSE meV/Å", "wanted", "converged")
    lines = [table(rows, headers), ""]
    models = result["speed"]["models"]
    lines.append(
        table(
            [
                (n, result["parameters"][n], m["ms_per_step"], m["us_per_step_atom"])
                for n, m in models.items()
            ],
            (f"MD of {result['speed']['n_atoms']} atoms", "parameters", "ms/step", "µs/step/atom"),
        )
    )
    lines.append(f"the student is {result['speed']['ratio']} times as fast as the teacher")
    if result["true_labels"]:
        lines += ["", _true_table(result["true_labels"])]
    if not result["converged"]:
        lines.append(
            "NOT CONVERGED: the budget ended before the criterion was met. More frames (n_frames), rounds or "
            "train.max_steps, a wider student, or a larger criterion.fraction"
        )
    lines.append(f"student: {result['checkpoint']} (head {result['head']})")
    return "\n".join(lines)


def _true_table(found: dict[str, Any]) -> str:
    rows = [
        (name, *(f"{1000 * e[k]:.2f}" if e[k] is not None else "–" for k in ("energy_mae", "forces_rmse")))
        for name, e in found.items()
    ]
    return table(rows, ("against your labels", "E MAE meV/atom", "F RMSE meV/Å"))
