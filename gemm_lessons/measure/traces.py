"""Recorded traces: which SM of a named GPU computed which tile when, kept as data.

A file holds one workload: an array [num_tiles, 7] for each schedule, of block, sm, group, tile_m, tile_n,
start and stop in nanoseconds since the first start, and what was recorded where as JSON.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemm_lessons.measure.results import FOLDER, ResultsError, label_of
from gemm_lessons.trace import Slice, Timeline

TRACES = FOLDER / "traces"
_ABOUT = "about"


@dataclass(frozen=True)
class Traces:
    """The timelines of one workload under several schedules, recorded in one run.

    Attributes:
        workload: name of the problem.
        machine: device, driver, versions, commit.
        date: ISO 8601, UTC.
        timelines: in nanoseconds, one for each schedule.
    """

    workload: str
    machine: dict[str, Any]
    date: str
    timelines: tuple[Timeline, ...]

    @property
    def label(self) -> str:
        """Device and day, for titles: what every recorded number must carry."""
        return label_of(self.machine, self.date)


def path_for(workload: str, folder: Path = TRACES) -> Path:
    """Where the traces of a workload are kept."""
    return folder / f"{workload}.npz"


def save(
    workload: str, timelines: Sequence[Timeline], machine: dict[str, Any], date: str, path: Path
) -> None:
    """Write timelines in nanoseconds.

    Raises:
        ValueError: a timeline that is no recording, but a prediction.
    """
    arrays = {}
    for one in timelines:
        if one.unit != "ns":
            raise ValueError(f"the timeline {one.label!r} counts {one.unit}: only a run on a GPU is recorded")
        rows = [_row(piece, one.start) for piece in one.slices]
        arrays[one.label] = np.array(rows, np.int32).reshape(-1, 7)
    about = {"workload": workload, "machine": machine, "date": date, "num_sms": timelines[0].num_sms}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{_ABOUT: np.array(json.dumps(about))}, **arrays)  # type: ignore[arg-type]


def _row(piece: Slice, zero: float) -> tuple[int, ...]:
    start, stop = round(piece.start - zero), round(piece.stop - zero)
    return piece.block, piece.sm, piece.group, piece.tile_m, piece.tile_n, start, stop


def load(path: Path) -> Traces:
    """Read a file of traces.

    Raises:
        ResultsError: the file holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            about = json.loads(str(found[_ABOUT]))
            timelines = tuple(
                Timeline(tuple(Slice(*row) for row in found[name].tolist()), about["num_sms"], "ns", name)
                for name in found.files
                if name != _ABOUT
            )
        return Traces(about["workload"], about["machine"], about["date"], timelines)
    except (zipfile.BadZipFile, json.JSONDecodeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise ResultsError(f"{path} holds no traces: {error}") from error


def recorded(workload: str, folder: Path = TRACES) -> Traces | None:
    """The recorded traces of a workload, or None if there are none."""
    path = path_for(workload, folder)
    return load(path) if path.exists() else None
