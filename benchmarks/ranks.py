"""Data-parallel training: what the sum of gradients costs, and what that means for 4 to 512 ranks.

    python benchmarks/ranks.py --out /tmp/ranks

1. The flat buffer is summed over 2, 3 and 4 processes of this machine (MindSpore's collectives over TCP), in sizes
   from a kilobyte to 100 MB. A ring over R ranks takes 2 (R − 1) messages of 1/R of the buffer, so
   t = 2 (R − 1) (a + bytes / (R b)); a and b are fitted to what was measured.
2. The sample heads train for some steps with 1 rank, with 1 rank that accumulates 2 batches, and with 2 ranks.
3. The model is evaluated for 4 to 512 ranks and for links of other machines, whose a and b are assumptions that the
   table states, for a given time of one batch and number of parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from lamkit.console import table

SIZES = (256, 16_384, 262_144, 1_500_000, 6_000_000, 25_000_000)  # numbers of 4 bytes
RANKS = (4, 8, 16, 32, 64, 128, 256, 512)
# a (s per message) and b (bytes/s) of a ring: assumptions, typical of the kind of link.
LINKS = {
    "10 Gb/s Ethernet": (50e-6, 1.0e9),
    "100 Gb/s InfiniBand": (5e-6, 11e9),
    "8 cards by NVLink or HCCS": (5e-6, 100e9),
}
# Networks and machines: parameters, seconds of a batch on one device. Those of the laptop are from RESULTS.md.
JOBS = {
    "orb-v3-small, CPU, 0.25 s": (0.3e6, 0.25),
    "25 M parameters, CPU, 12 s": (25e6, 12.0),
    "25 M parameters, card, 0.2 s": (25e6, 0.2),
}


def work(repeats: int) -> None:
    """One rank: times of the sums, printed by the first as JSON."""
    from mindspore import Tensor

    from lamkit.model.runtime import setup
    from lamkit.train.world import join, schedule

    if os.environ["MS_ROLE"] == "MS_SCHED":
        schedule()
        return
    setup("CPU")
    world = join()
    found = {}
    for size in SIZES:
        flat = Tensor(np.full(size, world.rank + 1.0, np.float32))
        times = []
        for _ in range(repeats):
            world.gather(np.zeros(1, np.int64))  # all begin together
            begin = time.perf_counter()
            total = world.sum(flat).asnumpy()
            times.append(time.perf_counter() - begin)
        assert np.all(total == world.size * (world.size + 1) / 2)
        found[size] = float(np.median(times[1:]))
    if world.leader:
        print(json.dumps(found), flush=True)


def sums(size: int, out: Path, repeats: int) -> dict[int, float]:
    """Seconds of a sum by number of elements, over ``size`` processes here."""
    from lamkit.train.launch import _free_port

    port = str(_free_port())
    common = {"MS_WORKER_NUM": str(size), "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": port, "GLOG_v": "3"}
    common |= {"MS_RECEIVE_MSG_TIMEOUT": "600", "MS_CPU_COMM_OP_TIMEOUT": "600", "MS_NODE_TIMEOUT": "300"}

    def start(role: str, rank: int) -> subprocess.Popen:
        words = [sys.executable, __file__, "--work", str(repeats)]
        env = {**os.environ, **common, "MS_ROLE": role, "MS_NODE_ID": str(rank)}
        log = open(out / f"{role}-{rank}.log", "w")  # noqa: SIM115
        return subprocess.Popen(words, env=env, stdout=log, stderr=log)

    scheduler = start("MS_SCHED", 0)
    ranks = [start("MS_WORKER", k) for k in range(size)]
    try:
        for process in ranks:
            process.wait()
    finally:
        scheduler.kill()
        scheduler.wait()
    lines = [x for x in (out / "MS_WORKER-0.log").read_text().splitlines() if x.startswith("{")]
    return {int(k): v for k, v in json.loads(lines[-1]).items()}


def fit(measured: dict[int, dict[int, float]]) -> tuple[float, float]:
    """Parameters a (s) and b (bytes/s) of the ring, by least squares of relative errors."""
    rows, right = [], []
    for ranks, times in measured.items():
        for size, seconds in times.items():
            rows.append([2 * (ranks - 1) / seconds, 2 * (ranks - 1) * 4 * size / ranks / seconds])
            right.append(1.0)
    a, inverse = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    return float(max(a, 0.0)), float(1.0 / inverse)


def ring(ranks: int, n_bytes: float, a: float, b: float) -> float:
    """Seconds of a sum over a ring."""
    return 2 * (ranks - 1) * (a + n_bytes / ranks / b)


def runs(out: Path, steps: int) -> list[tuple[object, ...]]:
    """Milliseconds of a step and batches per second of real runs."""
    rows = []
    for name, ranks, accumulate in (
        ("1 rank", 1, 1),
        ("1 rank, 2 batches per step", 1, 2),
        ("2 ranks", 2, 1),
    ):
        folder = out / f"run-{ranks}-{accumulate}"
        if not (folder / "result.json").exists():
            options = {"max_steps": steps, "max_minutes": "null", "valid_every": steps, "valid_frames": 2,
                       "save_every": steps, "accumulate": accumulate, "batch_atoms": 64}  # fmt: skip
            words = [
                sys.executable,
                "-m",
                "lamkit",
                "pretrain",
                "--multitask",
                "--heads",
                "pbe_oxides,wb97x_molecules",
            ]
            words += ["--out", str(folder), "--ranks", str(ranks), "-q"]
            subprocess.run([*words, *(f"--set=train.{k}={v}" for k, v in options.items())], check=True)
        result = json.loads((folder / "result.json").read_text())
        each = result["step_milliseconds"]
        rows.append((name, result["parameters"], f"{each:.0f}", f"{1000 * ranks * accumulate / each:.2f}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("ranks-benchmark"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--no-runs", action="store_true", help="only the sums and the model")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work is not None:
        work(args.work)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    place = args.out / "sums.json"
    measured = (
        {int(r): {int(k): v for k, v in t.items()} for r, t in json.loads(place.read_text()).items()}
        if place.exists()
        else {}
    )
    for ranks in (2, 3, 4):
        if ranks not in measured:
            measured[ranks] = sums(ranks, args.out, args.repeats)
            place.write_text(json.dumps(measured))
    a, b = fit(measured)
    header = ("ranks", *(f"{4 * s / 1e6:.3g} MB" for s in SIZES))
    print("Seconds of one sum of the flat buffer, processes of this machine:")
    print(table([(r, *(f"{t[s]:.4f}" for s in SIZES)) for r, t in measured.items()], header))
    print(f"ring model: {1e3 * a:.2f} ms per message, {b / 1e6:.0f} MB/s")
    if not args.no_runs:
        print(table(runs(args.out, args.steps), ("run", "parameters", "ms/step", "batches/s")))
    links = {"this machine (measured)": (a, b), **LINKS}
    print("\nModel: speed-up over one rank = R t / (t + t_sum(R)); 3.07 on 4 cards is the reference to beat.")
    rows = []
    for job, (parameters, seconds) in JOBS.items():
        for link, (la, lb) in links.items():
            gained = [r * seconds / (seconds + ring(r, 4 * parameters, la, lb)) for r in RANKS]
            rows.append((job, link, *(f"{g:.3g}" for g in gained)))
    print(table(rows, ("network and machine", "link", *(f"R={r}" for r in RANKS))))


if __name__ == "__main__":
    main()
