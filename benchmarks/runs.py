"""Training runs of the benchmarks: each in a process of its own, its result kept on disk and never made twice.

A killed script goes on where it was. Compiling a small network takes longer than training it for some hundred steps,
so runs that differ only in seed, rate, steps or starting weights share MindSpore's compilation cache. MindSpore looks
a graph up by the order in which it is compiled and compares nothing, so the folder of the cache is named after all
that decides on the graphs (:func:`signature`), and runs that may draw two shapes in either order go without.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PER_RUN = (
    "seed", "learning_rate", "max_steps", "max_minutes", "warmup_steps", "valid_every", "save_every", "patience",
)  # fmt: skip


def run(
    folder: Path,
    verb: str,
    options: Mapping[str, Any],
    tests: Mapping[str, str | Path],
    *,
    share: bool = True,
) -> dict[str, Any]:
    """Train and evaluate, once.

    Args:
        folder: run folder; ``benchmark.json`` in it holds the result.
        verb: ``pretrain`` or ``finetune``.
        options: options of that stage, as in a configuration file.
        tests: head, or HEAD@LABEL, → data set to evaluate the result on.
        share: take compiled graphs from, and leave them to, runs of the same signature.

    Returns:
        ``result`` of the stage, ``errors`` per head of ``tests``.
    """
    done = folder / "benchmark.json"
    if done.exists():
        return json.loads(done.read_text())
    spec = {
        "verb": verb, "options": dict(options), "tests": {k: str(v) for k, v in tests.items()}, "out": str(folder),
    }  # fmt: skip
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    if share and (name := signature(spec)):
        _process([spec, {**spec, "verb": "evaluate"}], folder.parent / "compiled" / name)
    else:
        _process([spec], None)
        _process([{**spec, "verb": "evaluate"}], folder.parent / "compiled" / _tested(folder, spec))
    result = json.loads(done.read_text())
    print(f"{folder.name}: {time.monotonic() - began:.0f} s, {brief(result)}", flush=True)
    return result


def _process(specs: Sequence[Mapping[str, Any]], compiled: Path | None) -> None:
    """Perform ``specs`` in one new process; its graphs are kept in ``compiled``, which is complete or not there."""
    environment, fresh = dict(os.environ), None
    if compiled is not None:
        fresh = None if compiled.exists() else compiled.with_name(f"{compiled.name}.{os.getpid()}")
        path = str((fresh or compiled).resolve())
        environment |= {"MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": path}
    subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), json.dumps(specs)], check=True, env=environment
    )
    if fresh is not None and compiled is not None and fresh.exists() and not compiled.exists():
        fresh.rename(compiled)


def _tested(folder: Path, spec: Mapping[str, Any]) -> str:
    """A name for all graphs that the evaluation of a finished run will compile."""
    from lamkit import config
    from lamkit.train import checkpoint

    model = checkpoint.read(folder)
    facts = [config.dump(model.trunk), len(model.heads), spec["tests"], _code()]
    return "tests-" + hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:16]


@functools.cache
def _code() -> str:
    """A name for the sources that graphs are made from."""
    import lamkit

    sources = sorted(Path(lamkit.__file__).parent.glob("*/**/*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def brief(result: Mapping[str, Any]) -> str:
    """Force errors of a result, for the log."""
    return ", ".join(f"{head} F {1000 * e['forces_rmse']:.0f} meV/Å" for head, e in result["errors"].items())


def signature(spec: Mapping[str, Any]) -> str | None:
    """A name for all graphs that the run will compile, in their order; None where the order is open."""
    from lamkit import config
    from lamkit.data.buckets import Buckets, measure
    from lamkit.stages import finetune, pretrain, sources
    from lamkit.train import checkpoint
    from lamkit.train.tasks import make_task

    options: Any = config.parse(
        {"pretrain": pretrain, "finetune": finetune}[spec["verb"]].Options,
        spec["options"],
        origin="benchmark",
    )
    if spec["verb"] == "finetune":
        if not isinstance(options.data, str | Path):
            return None
        trunk, data = checkpoint.read(options.checkpoint).trunk, {options.head: options.data}
    else:
        trunk, data = options.trunk, options.data
    if len(data) != 1:
        return None  # several heads draw their shapes in an order that depends on the seed
    train, (name, path) = options.train, next(iter(data.items()))
    task = make_task(
        name, path, sources.head_of(name, path), split=train.split, valid_fraction=train.valid_fraction,
        seed=train.seed, n_frames=options.n_frames,
    )  # fmt: skip
    need = measure(task.train, trunk.cutoff, trunk.max_neighbors, train.batch_atoms, train.seed)
    if need.rare is not None:
        return None
    bare = {k: v for k, v in spec["options"].items() if k not in ("train", "n_frames")}
    kept = {k: v for k, v in config.dump(train).items() if k not in PER_RUN}
    # Heads are ranked on some of the frames: their sizes, which depend on the seed, decide on one more shape.
    sizes = task.train.n_atoms.tolist()
    ranked = [sizes, train.seed] if spec["verb"] == "finetune" and len(set(sizes)) > 1 else None
    facts = [spec["verb"], bare, spec["tests"], kept, config.dump(trunk), list(Buckets([need], [1.0]).shapes)]
    facts.append(_code())
    return hashlib.sha256(json.dumps([facts, ranked], default=str).encode()).hexdigest()[:16]


def perform(spec: Mapping[str, Any]) -> None:
    """Train, or evaluate what was trained, in this process."""
    from lamkit import config, console
    from lamkit.stages import evaluate, finetune, pretrain

    console.setup(-1)
    out = Path(spec["out"])
    if spec["verb"] != "evaluate":
        stage = {"pretrain": pretrain, "finetune": finetune}[spec["verb"]]
        stage.run(config.parse(stage.Options, spec["options"], origin="benchmark"), out)
        return
    errors = {
        label: evaluate.run(evaluate.Options(model=str(out), data={head: path}, part="all"), None)[head]
        for label, path in spec["tests"].items()
        for head in [label.partition("@")[0]]
    }
    done = {"result": json.loads((out / "result.json").read_text()), "errors": errors}
    temporary = out / "benchmark.part"
    temporary.write_text(json.dumps(done, indent=1))
    temporary.rename(out / "benchmark.json")


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Mean ± standard error over the seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.{digits}f}"


def geometric(values: Sequence[float]) -> float:
    """Geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


if __name__ == "__main__":
    for one in json.loads(sys.argv[1]):
        perform(one)
