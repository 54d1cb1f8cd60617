"""How wrong FP8 is beside float32, by size of block, size of outliers and K: a study in NumPy.

    python -m gemm_lessons.measure.fp8_error            makes measure/studies/fp8_error.json again

Two errors are kept apart, each relative to the exact product, root of mean squares over root of mean squares:

of rounding     values are e4m3; the product of what they stand for is exact.  Ordinary tokens are normal, and
                one value in a thousand is an outlier, so many times as large.  What the outliers add to the
                output themselves is left out on both sides: it would hide what happens to the others.
                int8 stands beside e4m3, since its numbers lie evenly: that is where outliers hurt first.
of summation    values are exact; their products are added as an accumulator of 14 bits does it, which drops
                what is below its last bit after every 32 products.  An emulation, by the number of bits that
                DeepSeek-V3's report gives for Hopper's tensor cores, not a measurement of one.

No GPU takes part, so the numbers are the same everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemm_lessons.compare import WGMMA_E4M3_BITS
from gemm_lessons.measure.machine import commit
from gemm_lessons.measure.results import now
from gemm_lessons.quantize import (
    BLOCK,
    E4M3,
    LARGEST,
    WEIGHT_BLOCK,
    block_scales,
    dequantize,
    quantize,
    spread_over_blocks,
)

PATH = Path(__file__).parent / "studies" / "fp8_error.json"
COMMAND = "python -m gemm_lessons.measure.fp8_error"

TOKENS, FEATURES = 128, 128
OUTLIER_SHARE = 1 / 1000
BLOCKS = {
    "1 x 32": (1, 32),
    "1 x 64": (1, 64),
    "1 x 128": (1, 128),
    "whole row": (1, 2**20),
    "whole tensor": (2**20, 2**20),
}
OUTLIERS = tuple(10.0**power for power in (0, 1, 2, 3, 3.5, 4, 4.5, 5, 6))
KS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
STEP = 32  # products that a tensor core adds at a time
SUMS: dict[str, tuple[int, int]] = {  # bits kept, and after how many products the sum is promoted
    "14 bits, never promoted": (WGMMA_E4M3_BITS, 2**20),
    "14 bits, promoted every 128": (WGMMA_E4M3_BITS, BLOCK),
    "float32": (24, 2**20),
}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rounding:
    """One point of the first study.

    Attributes:
        number: of x and w, "e4m3" or "int8".
        block: values of x that share a scale; w has 128 x 128 always.
        outlier: how many times as large an outlier is.
        K: terms of a sum.
        error: relative, of the part of the output that ordinary values make.
        lost: share of the ordinary values that became zero.
    """

    number: str
    block: str
    outlier: float
    K: int
    error: float
    lost: float


@dataclass(frozen=True)
class Summation:
    """One point of the second study: how sums are kept, K, and the relative error."""

    kept: str
    K: int
    error: float


def round_trip(x: Array, block: tuple[int, int], number: str) -> Array:
    """What is left of x after quantising it, float64."""
    if number == "e4m3":
        return dequantize(quantize(x, block))
    largest = block_scales(np.abs(x), block) * LARGEST  # of each block
    steps = spread_over_blocks(largest, block, x.shape).astype(np.float64) / 127
    rounded: Array = np.rint(x / steps) * steps
    return rounded


def rounding(number: str, block: str, outlier: float, K: int, seed: int = 0) -> Rounding:
    """Quantise x in the given blocks and w by 128 x 128, and compare the ordinary part of the product."""
    rng = np.random.default_rng([seed, K])
    x = rng.standard_normal((TOKENS, K), dtype=np.float32)
    w = rng.standard_normal((FEATURES, K), dtype=np.float32)
    ordinary = rng.random(x.shape) >= OUTLIER_SHARE
    x = np.where(ordinary, x, x * np.float32(outlier))
    x_rounded, w_rounded = round_trip(x, BLOCKS[block], number), round_trip(w, WEIGHT_BLOCK, number)
    want = np.where(ordinary, x, 0).astype(np.float64) @ w.T.astype(np.float64)
    got = np.where(ordinary, x_rounded, 0) @ w_rounded.T
    lost = float(((x_rounded == 0) & ordinary & (x != 0)).sum() / ordinary.sum())
    return Rounding(number, block, outlier, K, relative_error(got, want), lost)


def keep_bits(values: Array, bits: int) -> Array:
    """Float32 with only so many significant bits: the others are dropped, not rounded."""
    mask = np.uint32(0xFFFFFFFF << (24 - bits) & 0xFFFFFFFF)
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) & mask).view(np.float32)


def running_sums(x: Array, w: Array, bits: int, interval: int) -> Iterator[Array]:
    """The product x @ w.T after each step of 32 of K, as an emulated tensor core keeps it: float32.

    Args:
        x: float32 [rows, K].
        w: float32 [columns, K].
        bits: of a partial sum; the others are dropped.
        interval: terms after which a partial sum is promoted; more than K for never.
    """
    total, part = np.zeros((len(x), len(w)), np.float32), np.zeros((len(x), len(w)), np.float32)
    for k in range(0, x.shape[1], STEP):
        part = keep_bits(part + x[:, k : k + STEP] @ w[:, k : k + STEP].T, bits)
        if (k + STEP) % interval == 0:
            total, part = total + part, np.zeros_like(part)
        yield total + part


def summation(kept: str, K: int, seed: int = 0) -> Summation:
    """Add up products of e4m3 values in an accumulator of few bits, promoted now and then.

    Args:
        kept: how the sum is kept, of `SUMS`.
        K: terms of a sum, a multiple of 128.
        seed: of the values.
    """
    bits, interval = SUMS[kept]
    rng = np.random.default_rng([seed, K, 1])
    x, w = (rng.standard_normal((32, K)).astype(E4M3).astype(np.float32) for _ in range(2))
    *_, got = running_sums(x, w, bits, interval)
    want = x.astype(np.float64) @ w.T.astype(np.float64)
    return Summation(kept, K, relative_error(got.astype(np.float64), want))


def relative_error(got: Array, want: Array) -> float:
    """Root of mean squares of the error, over that of what is wanted."""
    return float(np.sqrt(np.square(got - want).mean() / np.square(want).mean()))


def study() -> dict[str, Any]:
    """Both studies, with what is needed to make them again."""
    outliers = [
        rounding(number, block, outlier, 2048)
        for number in ("e4m3", "int8")
        for block in BLOCKS
        for outlier in OUTLIERS
    ]
    lengths = [rounding("e4m3", block, 1.0, K) for block in BLOCKS for K in KS if K != 2048]
    sums = [summation(kept, K) for kept in SUMS for K in KS]
    return {
        "command": COMMAND,
        "made_with": f"NumPy {np.__version__}, on no GPU",
        "date": now(),
        "commit": commit(),
        "rounding": [asdict(one) for one in outliers + lengths],
        "summation": [asdict(one) for one in sums],
    }


def load() -> tuple[list[Rounding], list[Summation]]:
    """The study as it was recorded."""
    recorded = json.loads(PATH.read_text(encoding="utf-8"))
    return (
        [Rounding(**one) for one in recorded["rounding"]],
        [Summation(**one) for one in recorded["summation"]],
    )


def main() -> None:
    """Make the study and write it down."""
    PATH.write_text(json.dumps(study(), indent=1) + "\n", encoding="utf-8")
    print(f"written to {PATH}")


if __name__ == "__main__":
    main()
