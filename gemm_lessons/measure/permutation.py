"""Time the router and the permutation, kernel by kernel, in percent of the device's copy bandwidth.

    python -m gemm_lessons.measure.permutation [--record]

A kernel's bytes are the fewest that it can move: every token and row read once and written once.  What is
too small to fill the device (count, scan, place, choose) has a time and no percentage that means anything.
Count, scan and place are timed in turn, between events, as `layer` times its stages.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.launch import Graph, to_device
from gemm_lessons.measure import machine
from gemm_lessons.measure.layer import time_stages
from gemm_lessons.measure.results import FOLDER, now, path_for
from gemm_lessons.measure.roofline import peaks
from gemm_lessons.measure.timing import CudaGpu, Rules, TimingError, time_calls
from gemm_lessons.moe import fused, permute, router_kernels
from gemm_lessons.moe.project import prepare_project
from gemm_lessons.moe.router import TopK
from gemm_lessons.problem import DTYPES

RECORDS = FOLDER / "permutation"


@dataclass(frozen=True)
class Shape:
    """How many tokens of which width go to how many experts."""

    num_tokens: int = 8192
    width: int = 2048
    num_experts: int = 8
    num_slots: int = 2
    dtype: str = "bfloat16"

    def __str__(self) -> str:
        return (
            f"{self.num_tokens} tokens of {self.width} {self.dtype},"
            f" top-{self.num_slots} of {self.num_experts}"
        )


SHAPES = (Shape(), Shape(dtype="float32"), Shape(num_tokens=32768, width=4096), Shape(8192, 7168, 64, 8))


@dataclass(frozen=True)
class Line:
    """One kernel, or a chain of them replayed as a graph.

    Attributes:
        name: which.
        median_us: device time, L2 flushed before.
        iqr_us: its spread.
        least_bytes: what it must move.
        percent_of_copy: of the bandwidth of a copy; None where the bytes are too few to matter.
    """

    name: str
    median_us: float
    iqr_us: float
    least_bytes: int
    percent_of_copy: float | None


def measure(shape: Shape, gpu: CudaGpu, copy_bytes_per_s: float, rules: Rules) -> list[Line]:
    """Time every kernel on one shape, with inputs drawn for it."""
    rng = np.random.default_rng(0)
    kind = DTYPES[shape.dtype]
    x = to_device(rng.standard_normal((shape.num_tokens, shape.width), np.float32).astype(kind))
    w = to_device(
        rng.standard_normal((shape.num_experts, shape.width), np.float32) / np.float32(shape.width**0.5)
    )
    router = TopK(shape.num_slots)
    project, logits = prepare_project(x, w)
    routed = router_kernels.prepare_router(router, logits)
    order = permute.prepare_permutation(routed.experts, shape.num_experts)
    gather, by_row = permute.prepare_gather(x, order), permute.prepare_gather(x, order, by="row")
    scatter = permute.prepare_scatter(gather.output, order, routed.weights)
    together = fused.prepare_fused(router, x, w)
    assert project is not None
    parts: dict[str, Callable[[Any], None]] = {
        "project": project,
        **routed.parts,
        **order.parts,
        "gather": gather,
        "gather by row": by_row,
        "scatter": scatter,
    }
    for name, part in parts.items():  # why one by one: an error then names its kernel
        part(gpu.stream)
        try:
            gpu.wait()
        except Exception as error:
            raise TimingError(f"{name} failed on {shape}: {error}") from error
    chain = [name for name in parts if name not in ("gather by row", "scatter")]
    # why not alone: scan turns its input into its output, so it may run once after each count
    in_turn = time_stages(SimpleNamespace(parts=order.parts), gpu, rules)
    calls = {name: part for name, part in parts.items() if name not in in_turn} | {
        "count, scan, place": _graph(order.parts),
        "router and gather, parts": _graph({name: parts[name] for name in chain}),
        "router and gather, fused": _graph({"fused": together}),
    }
    tokens = shape.num_tokens * shape.width * kind.itemsize
    rows, slots = tokens * shape.num_slots, 4 * shape.num_tokens * shape.num_slots
    least = {
        "project": tokens + 4 * shape.num_experts * (shape.width + shape.num_tokens),
        "gather": tokens + rows,
        "gather by row": tokens + rows,
        "scatter": rows + tokens + 2 * slots,
        "router and gather, parts": tokens + rows + 4 * slots,
        "router and gather, fused": tokens + rows + 4 * slots,
    }
    lines = [Line(name, timing.median_us, timing.iqr_us, 0, None) for name, timing in in_turn.items()]
    for name, call in calls.items():
        timing = time_calls([call], gpu, rules)
        percent = None
        if name in least:
            percent = 100 * least[name] / (timing.median_us * 1e-6) / copy_bytes_per_s
        lines.append(Line(name, timing.median_us, timing.iqr_us, least.get(name, 0), percent))
    _check(x, routed, order, gather, scatter, together)
    return lines


def _check(x: Any, routed: Any, order: Any, gather: Any, scatter: Any, together: Any) -> None:
    """Compare with NumPy what the timed launches have left, on some tokens."""
    bits = np.dtype(f"u{x.dtype.itemsize}")
    tokens = x.view(bits).copy_to_host()
    # why each from its own choice: two projections may round two equal experts apart
    of_parts, of_fused = (routed, order, gather.output), (together.routed, together.order, together.rows)
    for chosen, placed, rows in (of_parts, of_fused):
        found, want = placed.read(), permute.permutation(chosen.read())
        for name in ("offsets", "source", "destination"):
            np.testing.assert_array_equal(getattr(found, name), getattr(want, name), name)
        sources = tokens[want.source // chosen.read().num_slots]
        np.testing.assert_array_equal(rows.view(bits).copy_to_host(), sources)
    routing = routed.read()
    some = slice(0, 512)
    values = tokens[some].view(x.dtype).astype(np.float64)
    back = scatter.output.view(bits).copy_to_host()[some].view(x.dtype).astype(np.float64)
    total = routing.weights[some].sum(axis=1, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(back, values * total, rtol=0.01, atol=1e-5)


def _graph(parts: Mapping[str, Any]) -> Graph:
    prepared: Any = SimpleNamespace(parts=parts)
    return Graph(prepared)


def run(rules: Rules) -> dict[str, Any]:
    """Measure all shapes."""
    gpu = CudaGpu()
    found = peaks(gpu)
    return {
        "machine": machine.machine(),
        "date": now(),
        "command": "python -m gemm_lessons.measure.permutation --record",
        "protocol": rules.describe(),
        "copy_bytes_per_s": found.copy_bytes_per_s,
        "shapes": [
            {"shape": asdict(shape), "lines": [asdict(line) for line in lines]}
            for shape in SHAPES
            for lines in [measure(shape, gpu, found.copy_bytes_per_s, rules)]
        ],
    }


def recorded(path: Path) -> dict[str, Any]:
    """What was recorded on a named GPU."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def show(record: dict[str, Any]) -> str:
    """A record as a table for reading."""
    copy = record["copy_bytes_per_s"] / 1e12
    text = [f"{record['machine']['device']}, {record['date'][:10]}, a copy moves {copy:.2f} TB/s"]
    for one in record["shapes"]:
        text += ["", str(Shape(**one["shape"]))]
        for line in one["lines"]:
            percent = line["percent_of_copy"]
            share = "" if percent is None else f"{percent:6.1f} % of a copy's bandwidth"
            text.append(f"  {line['name']:26} {line['median_us']:8.1f} us {share}")
    return "\n".join(text)


def main() -> None:
    """Print the table; with --record, keep it as well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--record", type=Path, nargs="?", const=RECORDS, help="write the numbers to this folder"
    )
    options = parser.parse_args()
    record = run(Rules())
    print(show(record))
    if options.record:
        options.record.mkdir(parents=True, exist_ok=True)
        path = path_for(device.choose().name, "permutation", options.record)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
