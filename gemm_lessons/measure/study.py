"""Studies: what was measured beside the ladder, in one JSON file for each kind and device."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gemm_lessons import device
from gemm_lessons.measure.machine import machine
from gemm_lessons.measure.results import now
from gemm_lessons.measure.timing import Rules

FOLDER = Path(__file__).parent / "studies"


def write(kind: str, command: str, lines: Sequence[Any], **more: Any) -> None:
    """Write what was just measured on this device, in place of an older run there.

    Args:
        kind: first word of the file's name.
        command: that makes it again.
        lines: dataclasses, one for each thing that was timed.
        more: what all lines share.
    """
    record = {
        "command": command,
        "machine": machine(),
        "date": now(),
        "protocol": Rules().describe(),
        **more,
        "lines": [asdict(line) for line in lines],
    }
    path = FOLDER / f"{kind}-{device.choose().name.removeprefix('NVIDIA ').split()[0].lower()}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def newest(kind: str) -> dict[str, Any]:
    """The newest record of a kind, on whichever device; the package has one of each."""
    records = (json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob(f"{kind}-*.json"))
    return max(records, key=lambda record: str(record["date"]))
