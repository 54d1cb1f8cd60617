"""Timelines: traced on a GPU, predicted by counting without one, exported for a trace viewer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gemm_lessons import device
from gemm_lessons.measure import traces
from gemm_lessons.measure.ladder import traced
from gemm_lessons.measure.machine import machine
from gemm_lessons.measure.results import now, recorded
from gemm_lessons.problem import GroupedProblem
from gemm_lessons.schedule import plan, predict
from gemm_lessons.steps import STEPS
from gemm_lessons.trace import Timeline, lanes

STEP = "persistent"
SMS_OF_AN_H100 = 132


def timeline_of(problem: GroupedProblem, schedule: str) -> Timeline:
    """The timeline of one schedule: of a real run where there is a GPU, else predicted.

    Raises:
        ValueError: an unknown schedule.
    """
    step = STEPS[STEP]
    if device.choose().is_gpu:
        return traced(step, problem, None, schedule)
    return predicted(problem, schedule, num_sms())


def num_sms() -> int:
    """SMs to predict for: those of the recorded GPU, or an H100's."""
    record = recorded()
    return record.machine["num_sms"] if record else SMS_OF_AN_H100


def predicted(problem: GroupedProblem, schedule: str, num_sms: int) -> Timeline:
    """What a schedule does with the tiles of the persistent step, one block on each SM."""
    config = STEPS[STEP].CONFIG
    the_plan = plan(schedule, problem, config.BM, config.BN, num_sms)
    return predict(the_plan, problem, config.BM, config.BN, num_sms)


def record_traces(workload: str, timelines: Sequence[Timeline]) -> Path:
    """Keep what this GPU did with a workload where the lessons look for it; returns the file."""
    path = traces.path_for(workload)
    traces.save(workload, timelines, machine(), now(), path)
    return path


def chrome_trace(timeline: Timeline) -> dict[str, Any]:
    """The timeline in Chrome's trace event format: one process per SM, one thread per resident block.

    The format counts in microseconds; a timeline that does not count time keeps its own unit, and says so.
    Source: "Trace Event Format", the Chromium project.
    """
    scale = 1e-3 if timeline.unit == "ns" else 1.0
    placed = lanes(timeline.slices)
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": sm, "args": {"name": f"SM {sm}"}}
        for sm in sorted({piece.sm for piece in timeline.slices})
    ]
    events += [
        {
            "ph": "X",
            "name": f"expert {piece.group} ({piece.tile_m}, {piece.tile_n})",
            "cat": f"expert {piece.group}",
            "pid": piece.sm,
            "tid": placed[piece.block][1],
            "ts": (piece.start - timeline.start) * scale,
            "dur": (piece.stop - piece.start) * scale,
            "args": {"block": piece.block},
        }
        for piece in timeline.slices
    ]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {
            "schedule": timeline.label,
            "unit": "us" if timeline.unit == "ns" else timeline.unit,
            "idle_tail": timeline.idle_tail,
        },
    }


def write_chrome_trace(timeline: Timeline, path: Path) -> None:
    """Write `chrome_trace` to a file, for chrome://tracing or ui.perfetto.dev."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(chrome_trace(timeline)), encoding="utf-8")
