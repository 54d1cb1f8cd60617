"""Recorded results: one JSON file per device and dtype, with everything needed to judge the numbers.

A file is written again after every measurement, so that a crash loses only what comes after it.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

SCHEMA = 1
FOLDER = Path(__file__).parent / "results"

#: Stages of a layer that only decide and move: what it pays for being sparse.
MOVING = ("router", "permute", "gather", "counts", "scatter")

Status = Literal["ok", "wrong", "not run", "failed"]
Kind = Literal["step", "padded twin", "part", "peer", "schedule", "layer", "stage"]


class ResultsError(ValueError):
    """A results file that cannot be read; the message says what is wrong with it."""


@dataclass(frozen=True)
class Measurement:
    """One line of the table: something timed on one workload, or the reason why it was not.

    Attributes:
        workload: name of the problem.
        name: step, peer, or "step/part".
        kind: "step"; "padded twin": the same step on the padded batch; "part" of a step; "peer" from
            another library; "schedule" of the persistent step; "layer": the whole layer; "stage" of it.
        status: "ok" only if the outputs were right after timing.
        reason: why it was not run, or what was wrong.
        median_us: device time of one call, replayed from a CUDA graph where it can be.
        iqr_us: spread of that time.
        samples: how many calls were timed.
        useful_tflops: useful FLOPs per second, padding never counted, in 10 ** 12.
        percent_of_roofline: of this problem on this device, 0 to 100.
        percent_of_read: of the measured bandwidth of reading alone, for the fewest bytes that this problem
            can move; what counts where few tokens meet many weights.
        host_us: what the host spends to enqueue one call without a graph.
        launch_us: device time without a graph minus device time with one.
        work: counted work: launches, blocks, tiles, flops, packed_bytes.
        sm_mhz: the SM clock right after timing.
        idle_tail: of a traced run of a schedule, 0 to 1.
        verdict: what the comparison with NumPy said.
    """

    workload: str
    name: str
    kind: Kind
    status: Status
    reason: str = ""
    median_us: float | None = None
    iqr_us: float | None = None
    samples: int = 0
    useful_tflops: float | None = None
    percent_of_roofline: float | None = None
    percent_of_read: float | None = None
    host_us: float | None = None
    launch_us: float | None = None
    work: dict[str, int] = field(default_factory=dict)
    sm_mhz: int | None = None
    idle_tail: float | None = None
    verdict: str = ""


@dataclass
class Record:
    """All measurements of one run, and what they were measured on and how.

    Attributes:
        machine: device, driver, CUDA, clocks, versions, commit.
        date: when the run began, ISO 8601, UTC.
        dtype: of the inputs.
        protocol: the timing rules.
        peaks: measured bandwidths and arithmetic peaks of the device, with the reason where there is none.
        problems: name -> counts, N, K, useful and padded FLOPs, least bytes.
        measurements: in the order in which they were made.
        seconds: how long the run has taken, checks and preparation included.
    """

    machine: dict[str, Any]
    date: str
    dtype: str
    protocol: dict[str, Any] = field(default_factory=dict)
    peaks: dict[str, Any] = field(default_factory=dict)
    problems: dict[str, dict[str, Any]] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    seconds: float = 0.0
    schema: int = SCHEMA

    def find(self, workload: str, name: str, kind: Kind = "step") -> Measurement | None:
        """The measurement of this name, or None if there is none."""
        for one in self.measurements:
            if (one.workload, one.name, one.kind) == (workload, name, kind):
                return one
        return None

    @property
    def label(self) -> str:
        """Device and day, for titles: what every recorded number must carry."""
        return label_of(self.machine, self.date)


def label_of(machine: dict[str, Any], date: str) -> str:
    """Device and day of a machine's description and an ISO 8601 date."""
    return f"{machine['device']}, {date[:10]}"


@dataclass(frozen=True)
class StageWork:
    """What a stage must do at least: multiplies and adds, and bytes read and written once each."""

    flops: int
    num_bytes: int


def save(record: Record, path: Path) -> None:
    """Write a record so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".tmp")
    half.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
    half.replace(path)


def load(path: Path) -> Record:
    """Read a record.

    Raises:
        ResultsError: the file is no record of this schema.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw.get("schema") != SCHEMA:
            raise ResultsError(f"{path} has schema {raw.get('schema')}, this version reads {SCHEMA}")
        raw["measurements"] = [Measurement(**one) for one in raw["measurements"]]
        return Record(**raw)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path} is no results file: {error}") from error


def recorded(dtype: str = "float32", folder: Path = FOLDER) -> Record | None:
    """The newest recorded result for this dtype, or None if nothing was recorded yet."""
    records = [load(path) for path in sorted(folder.glob(f"*-{dtype}.json"))]
    return max(records, key=lambda record: record.date, default=None)


def path_for(device_name: str, dtype: str, folder: Path = FOLDER) -> Path:
    """Where a device's results are kept: h100-80gb-hbm3-float32.json."""
    words = re.sub(r"[^a-z0-9]+", "-", device_name.lower().removeprefix("nvidia")).strip("-")
    return folder / f"{words}-{dtype}.json"


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def stages_of(record: Record, workload: str, name: str) -> dict[str, float]:
    """Median microseconds of a variant's stages, in order."""
    return {
        one.name.rpartition("/")[2]: one.median_us
        for one in record.measurements
        if one.workload == workload and one.kind == "stage" and one.name.rpartition("/")[0] == name
        and one.median_us is not None
    }  # fmt: skip


def moving_share(stages: Mapping[str, float]) -> float:
    """Share of routing, gather and scatter in the stages' sum, 0 to 1."""
    return sum(stages.get(name, 0.0) for name in MOVING) / (sum(stages.values()) or 1.0)
