"""Measure the simulator against Numba's own. It reports and judges nothing.

    python tests/sim/speed.py [--repeat 3] [--skip-stock]

Each engine runs in a process of its own, because Numba chooses one when it is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")

import numpy as np
from numba import cuda, float32, int32

ROOT = Path(__file__).parents[2]
SIZE, TILE = 64, 16


@cuda.jit
def naive(a, b, c):
    row, col = cuda.grid(2)
    if row < c.shape[0] and col < c.shape[1]:
        acc = float32(0)
        for k in range(a.shape[1]):
            acc += a[row, k] * b[k, col]
        c[row, col] = acc


@cuda.jit
def tiled(a, b, c):
    s_a = cuda.shared.array((TILE, TILE), float32)
    s_b = cuda.shared.array((TILE, TILE), float32)
    col, row = cuda.grid(2)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    acc = float32(0)
    for k in range(0, a.shape[1], TILE):
        s_a[ty, tx] = a[row, k + tx]
        s_b[ty, tx] = b[k + ty, col]
        cuda.syncthreads()
        for i in range(TILE):
            acc += s_a[ty, i] * s_b[i, tx]
        cuda.syncthreads()
    c[row, col] = acc


@cuda.jit
def persistent(counter, a, b, c):
    s_a = cuda.shared.array((TILE, TILE), float32)
    s_b = cuda.shared.array((TILE, TILE), float32)
    s_tile = cuda.shared.array(1, int32)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    across = c.shape[1] // TILE
    while True:
        if tx == 0 and ty == 0:
            s_tile[0] = cuda.atomic.add(counter, 0, 1)
        cuda.syncthreads()
        tile = s_tile[0]
        cuda.syncthreads()
        if tile >= across * (c.shape[0] // TILE):
            break
        row, col = tile // across * TILE + ty, tile % across * TILE + tx
        acc = float32(0)
        for k in range(0, a.shape[1], TILE):
            s_a[ty, tx] = a[row, k + tx]
            s_b[ty, tx] = b[k + ty, col]
            cuda.syncthreads()
            for i in range(TILE):
                acc += s_a[ty, i] * s_b[i, tx]
            cuda.syncthreads()
        c[row, col] = acc


def launches():
    """The launches to time, by name; each returns seconds."""
    rng = np.random.default_rng(0)
    a, b = (rng.random((SIZE, SIZE), dtype=np.float32) for _ in range(2))
    wanted = a @ b
    grid, block = (SIZE // TILE, SIZE // TILE), (TILE, TILE)

    def run(kernel, grid, *first):
        c = np.zeros((SIZE, SIZE), np.float32)
        started = time.perf_counter()
        kernel[grid, block](*(f.copy() for f in first), a, b, c)
        seconds = time.perf_counter() - started
        np.testing.assert_allclose(c, wanted, rtol=1e-5)
        return seconds

    return {
        f"naive {SIZE}^3": lambda: run(naive, grid),
        f"tiled {SIZE}^3": lambda: run(tiled, grid),
        f"persistent {SIZE}^3, 4 blocks": lambda: run(persistent, 4, np.zeros(1, np.int32)),
    }


def worker(repeat: int) -> None:
    """Print the times of this process's engine."""
    from gemm_lessons import sim

    sim.install()
    print(json.dumps({name: [run() for _ in range(repeat)] for name, run in launches().items()}))


def main() -> None:
    """Run the engines and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--skip-stock", action="store_true")
    parser.add_argument("--worker", action="store_true")
    options = parser.parse_args()
    if options.worker:
        worker(options.repeat)
        return
    times = {}
    for mode in (*(() if options.skip_stock else ("stock",)), "plain", "checked"):
        done = subprocess.run(
            [sys.executable, __file__, "--worker", "--repeat", str(options.repeat)],
            env={
                **os.environ,
                "NUMBA_ENABLE_CUDASIM": "1",
                "GEMM_LESSONS_SIM": mode,
                "PYTHONPATH": str(ROOT),
            },
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        times[mode] = {k: statistics.median(v) for k, v in json.loads(done.stdout).items()}
    for name in times["plain"]:
        row = "  ".join(f"{mode} {each[name]:7.3f} s" for mode, each in times.items())
        if "stock" in times:
            stock = times["stock"][name]
            row += (
                f"  plain {stock / times['plain'][name]:.0f}x, checked {stock / times['checked'][name]:.0f}x"
            )
        print(f"{name:28} {row}")


if __name__ == "__main__":
    main()
