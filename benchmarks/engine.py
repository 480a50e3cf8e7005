"""The workflow engine on long workflows: overhead of a stage, and memory of a stage of very many tasks.

    python benchmarks/engine.py stages            500 stages whose workers are done at once: milliseconds a stage
    python benchmarks/engine.py tasks             10 000 frames, each a task of its own: memory along the way
    python benchmarks/engine.py tasks --n 1000    the same, shorter

The first measures the engine alone: reading and checking the file, keys, folders, journal (flushed to disk after
each event). The second labels cells of copper with ASE's EMT, by two processes, as `lamkit run` does it, and
reads the resident memory of every process from /proc.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lamkit.workflow.local import Ending

LOOK_SECONDS = 0.5


class Instant:
    """A worker that is done at once."""

    seconds = 0.0

    def __init__(self, folder: Path, lock: int, cores: list[int]) -> None:
        self.folder, self.cores = folder, cores

    def ended(self) -> Ending:
        """It is done."""
        return Ending("", "", 0.0)

    def signal(self, number: int) -> None:
        """Nobody to ask."""

    def wait(self) -> None:
        """Nothing to wait for."""

    def news(self) -> None:
        """Nothing."""


def stages(n: int) -> dict[str, float]:
    """A workflow of ``n`` stages in chains of ten, run, and planned once more."""
    from lamkit.stages import STAGES
    from lamkit.workflow import execute, spec

    logging.disable(logging.INFO)
    home = Path(tempfile.mkdtemp(prefix="lamkit-engine-"))
    (home / "x.extxyz").write_text("")
    lines = ["name: many", "stages:"]
    for k in range(n):
        source = f"${{s{k - 1}}}/data" if k % 10 else "${here}/x.extxyz"
        lines.append(
            f'  s{k}: {{stage: label, with: {{data: "{source}", calculator: "ase.calculators.emt:EMT"}}}}'
        )
    (home / "flow.yaml").write_text("\n".join(lines))
    execute.START, execute.REDRAW_SECONDS = Instant, 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    source = spec.load(home / "flow.yaml")
    read = time.perf_counter()
    outcomes = execute.run(source, home / "out", STAGES, execute.Settings())
    end, used = time.perf_counter(), time.process_time() - cpu
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    plan = time.perf_counter()
    execute.preview(source, home / "out", STAGES, execute.Settings())
    return {
        "stages": n,
        "ms_per_stage_wall": 1e3 * (end - wall) / n,
        "ms_per_stage_cpu": 1e3 * used / n,
        "ms_reading_the_file": 1e3 * (read - wall),
        "ms_planning_again": 1e3 * (time.perf_counter() - plan),
    }


def tasks(n: int) -> dict[str, object]:
    """A labelling stage of ``n`` tasks; memory of all its processes whenever another tenth is done."""
    import ase.io
    from ase.build import bulk

    home = Path(tempfile.mkdtemp(prefix="lamkit-engine-"))
    frames = [bulk("Cu", cubic=True, a=3.5 + 1e-5 * k) for k in range(n)]
    ase.io.write(home / "copper.extxyz", frames)
    (home / "flow.yaml").write_text(
        "name: many\nstages:\n"
        '  label: {stage: label, with: {data: "${here}/copper.extxyz", chunk: 1, '
        'calculator: "ase.calculators.emt:EMT"}}\n'
    )
    command = [sys.executable, "-m", "lamkit", "run", "flow.yaml", "--out", "out"]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=home, stderr=subprocess.DEVNULL)
    rows: list[dict[str, float]] = []
    peak: dict[str, float] = {}
    while process.poll() is None:
        time.sleep(LOOK_SECONDS)
        memory = resident(process.pid)
        for name, value in memory.items():
            peak[name] = max(peak.get(name, 0.0), value)
        done = len(list((home / "out" / "label" / "parts").glob("*.npz")))
        if done >= (len(rows) + 1) * n / 10:
            rows.append({"done": done, "seconds": round(time.perf_counter() - start, 1), **memory})
            print(json.dumps(rows[-1]), flush=True)
    assert process.returncode == 0
    seconds = time.perf_counter() - start
    return {"tasks": n, "seconds": seconds, "ms_per_task": 1e3 * seconds / n, "peak_MB": peak, "rows": rows}


def resident(pid: int) -> dict[str, float]:
    """Resident memory in MB of the run, its worker and the largest process of its pool."""
    found = {"run": _rss(pid)}
    for worker in _children(pid):
        found["worker"] = _rss(worker)
        found["pool"] = max((_rss(child) for child in _children(worker)), default=0.0)
    return found


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _rss(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["stages", "tasks"])
    parser.add_argument("--n", type=int, help="how many (500 stages, 10 000 tasks)")
    arguments = parser.parse_args()
    result = stages(arguments.n or 500) if arguments.what == "stages" else tasks(arguments.n or 10_000)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
