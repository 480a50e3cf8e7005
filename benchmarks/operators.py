"""GFLOP/s of the C++ operators beside numpy's matrix product, on the sizes of the 25M-parameter models.

Operations are those of the matrix products alone (node parts of the first layer once per node), so what packing,
activations, norms and sums cost shows as a lower figure.

Run: python benchmarks/operators.py
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import numpy as np

from lamkit.model.native.build import library
from lamkit.model.native.predict import ordered

D = 256
CASES = [("v3", 2160, 108, 1024), ("v3", 6400, 320, 1024), ("v2", 2160, 108, 512), ("v2", 6400, 320, 512)]


def prepared(lib: ctypes.CDLL, name: str, arrays: list[np.ndarray]) -> Callable[[], int]:
    """A call of one operator as MindSpore makes it."""
    n = len(arrays)
    pointers = (ctypes.c_void_p * n)(*[a.ctypes.data for a in arrays])
    shapes = [(ctypes.c_int64 * max(1, a.ndim))(*a.shape) for a in arrays]
    table = (ctypes.POINTER(ctypes.c_int64) * n)(*shapes)
    function = getattr(lib, name)
    alive = (arrays, shapes)  # the pointers stay valid as long as the closure
    return lambda: (function(n, pointers, None, table, None, None, None), alive)[0]


def best(call: Callable[[], object], repeats: int = 6) -> float:
    """Shortest time of a few calls, s."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def operators(
    version: str, edges: int, nodes: int, hidden: int
) -> dict[str, tuple[Callable[[], int], float]]:
    """Calls of the edge network and the operations of each, GFLOP."""
    lib = ctypes.CDLL(str(library(version, "float32").path))
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32) * np.float32(0.03)

    def empty(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.float32)

    rows, at_nodes = random(edges, D), random(nodes, D)
    ends = [
        np.sort(rng.integers(0, nodes, edges)).astype(np.int32),
        rng.integers(0, nodes, edges).astype(np.int32),
    ]
    theta = [random(hidden, 3 * D), random(hidden), random(hidden, hidden), random(hidden)]
    theta += [random(D, hidden), random(D), random(D), random(D)]
    weights = [theta[0], theta[2], theta[4], theta[6]]
    kept = [random(edges, hidden), random(edges, hidden), random(edges, D)]
    behind = [empty(edges, hidden), empty(edges, hidden), empty(edges, D)]
    du, d_rows, d_nodes = random(edges, D), empty(edges, D), empty(nodes, D)
    cutoff, messages = empty(edges, 1), empty(nodes, 2 * D)
    layer = [at_nodes, rows, cutoff, *ends, random(2, D), random(2), np.array([edges], np.int32)]
    ahead, back = (ordered(version, "float32", (D, D, hidden, D), theta, k) for k in (1, 0))
    work = 2e-9 * (edges * (2 * D * hidden + hidden * hidden) + 2 * nodes * D * hidden)
    calls = {
        "layer, prediction": ("layer_none", [*layer, ahead, messages, d_rows], 1),
        "layer, kept for its pull": ("layer_all", [*layer, ahead, messages, d_rows, *behind], 1),
        "pull of the layer": (
            "layer_all_pull",
            [messages, du, *layer, *kept, back, d_rows, cutoff, d_nodes],
            1,
        ),
        "pull, nothing kept": (
            "layer_none_pull",
            [messages, du, *layer, ahead, back, d_rows, cutoff, d_nodes],
            2,
        ),
        "forward, kept": ("edge_forward_keep", [rows, at_nodes, *ends, *theta, empty(edges, D), *behind], 1),
        "pull, kept": ("edge_pull_keep", [du, *kept, at_nodes, *ends, *weights, d_rows, d_nodes, *behind], 1),
        "reverse with weights": (
            "edge_reverse",
            [du, *kept, rows, at_nodes, *ends, *weights, d_rows, d_nodes, *map(np.zeros_like, theta)],
            2,
        ),
        "reverse of the pull": (
            "edge_twice",
            [
                rows,
                at_nodes,
                *ends,
                du,
                *kept,
                *kept,
                *weights,
                empty(edges, D),
                *behind,
                *map(np.zeros_like, weights),
            ],
            2,
        ),
    }
    return {
        label: (prepared(lib, name, arrays), times * work) for label, (name, arrays, times) in calls.items()
    }


def main() -> None:
    a, b = np.ones((6400, 1024), np.float32), np.ones((1024, 1024), np.float32)
    print(f"numpy, 6400 x 1024 x 1024: {2e-9 * a.size * 1024 / best(lambda: a @ b):.0f} GFLOP/s\n")
    print("| version | edges | nodes | operator | ms | GFLOP/s |\n|---|---|---|---|---|---|")
    for version, edges, nodes, hidden in CASES:
        for label, (call, work) in operators(version, edges, nodes, hidden).items():
            seconds = best(call)
            print(
                f"| {version} | {edges} | {nodes} | {label} | {1000 * seconds:.1f} | {work / seconds:.0f} |"
            )


if __name__ == "__main__":
    main()
