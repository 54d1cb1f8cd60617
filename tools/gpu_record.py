"""Record all that is measured on a GPU: each recorder in a process of its own, on every GPU side by side.

    make gpu-record                                            everything, on all GPUs of this machine
    python tools/gpu_record.py --only layer --limit 300        some of it, in five minutes at most

Results go where the package keeps them, to measure/results and measure/studies, and after each recorder
also into one archive, so that what was measured survives whatever comes after it.  A recorder that takes too
long is interrupted, and its log ends with the line that it was at.  Two recorders never share a GPU.
Exit code 0: all is recorded; 1: something is missing, and the table says what; 2: there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gemm_lessons import device

ROOT = Path(__file__).resolve().parent.parent
MEASURE = Path("gemm_lessons/measure")
KEPT = (MEASURE / "results", MEASURE / "studies", Path("docs/gpu_kills.json"))
GRACE = 10  # seconds between an interruption and the end

_CLI, _MEASURE = ("-m", "gemm_lessons"), "gemm_lessons.measure"
RECORDERS: dict[str, tuple[str, ...]] = {  # what Python is told, the longest first
    "bench-float8": (*_CLI, "bench", "--dtype", "float8_e4m3fn"),
    "bench-float32": (*_CLI, "bench"),
    "bench-bfloat16": (*_CLI, "bench", "--dtype", "bfloat16"),
    "kills": ("-m", "gemm_lessons.authoring.gpu_kills"),
    "decoding": ("-m", f"{_MEASURE}.decoding"),
    "permutation": ("-m", f"{_MEASURE}.permutation", "--record"),
    "layer-bfloat16": (*_CLI, "layer"),
    "layer-float8": (*_CLI, "layer", "--dtype", "float8_e4m3fn"),
    "layer-float32": (*_CLI, "layer", "--dtype", "float32"),
    "backward": ("-m", f"{_MEASURE}.backward"),
    "quantizing": ("-m", f"{_MEASURE}.quantizing"),
    "timeline-S": (*_CLI, "timeline", "-w", "S", "--record"),
    "timeline-zipf": (*_CLI, "timeline", "-w", "zipf", "--record"),
}


@dataclass(frozen=True)
class Outcome:
    """One recorder: what became of it ("ok", "failed", "interrupted" or "not run"), and its seconds."""

    name: str
    status: str
    seconds: float


class Session:
    """Recorders that wait for a free GPU, until there are none or time is up.

    Args:
        recorders: what Python is told, by name, in the order in which they start.
        gpus: what CUDA_VISIBLE_DEVICES names, one for each worker.
        limit: seconds for all of it.
        logs: folder of the recorders' outputs.
        archive: file that holds all results and logs after each recorder.
    """

    def __init__(
        self,
        recorders: Mapping[str, Sequence[str]],
        gpus: Sequence[str],
        limit: float,
        logs: Path,
        archive: Path,
    ) -> None:
        self.waiting, self.gpus, self.logs, self.archive = dict(recorders), gpus, logs, archive
        self.end = time.monotonic() + limit
        self.outcomes: list[Outcome] = []
        self._lock = threading.Lock()

    def run(self) -> list[Outcome]:
        """Run the recorders; those that found no time are in the outcomes, too."""
        self.logs.mkdir(parents=True, exist_ok=True)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # why: a job in the background ignores interruptions, and recorders would inherit that
            signal.signal(signal.SIGINT, signal.default_int_handler)
        workers = [threading.Thread(target=self._work, args=(gpu,)) for gpu in self.gpus]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return self.outcomes + [Outcome(name, "not run", 0.0) for name in self.waiting]

    def _work(self, gpu: str) -> None:
        while time.monotonic() < self.end:
            with self._lock:
                if not self.waiting:
                    return
                name = next(iter(self.waiting))
                command = self.waiting.pop(name)
            outcome = self._record(name, command, gpu)
            with self._lock:
                self.outcomes.append(outcome)
                self._keep()

    def _record(self, name: str, command: Sequence[str], gpu: str) -> Outcome:
        # why a cache of its own: measured limits belong to one GPU, and are written without a lock
        cache = str(self.logs / f"cache-{gpu}")
        environment = {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": gpu,
            "XDG_CACHE_HOME": cache,
            "COLUMNS": "160",  # of the tables in the log
        }
        start = time.monotonic()
        with (self.logs / f"{name}.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                code = process.wait(max(self.end - time.monotonic(), 0))
                status = "failed" if code else "ok"
            except subprocess.TimeoutExpired:
                status = "interrupted"
                process.send_signal(signal.SIGINT)  # why not the end at once: the traceback says where it was
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        return Outcome(name, status, time.monotonic() - start)

    def _keep(self) -> None:
        self.archive.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(self.archive, "w:gz") as archive:
            for path in KEPT:
                if (ROOT / path).exists():
                    archive.add(ROOT / path, str(path))
            for log in self.logs.glob("*.log"):
                archive.add(log, f"logs/{log.name}")


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name: what it does name, or every GPU that nvidia-smi lists."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen:
        return chosen.split(",")
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ["0"]
    return [str(i) for i in range(max(len(listed.splitlines()), 1))]


def main() -> int:
    """Record, and print what became of each recorder; returns the exit code."""
    parser = argparse.ArgumentParser(description="Record all that is measured on a GPU.")
    parser.add_argument("--only", action="append", help="recorders whose names begin so; repeat for more")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for all of it")
    parser.add_argument("--logs", type=Path, default=ROOT / "out" / "record")
    parser.add_argument("--archive", type=Path, default=ROOT / "out" / "record.tgz")
    options = parser.parse_args()
    console = Console(highlight=False)
    gpu, reason = device.probe_gpu()
    reason = reason or (device.why_unusable(gpu) if gpu else "")
    if reason:
        console.print(f"NOT RUN: nothing can be measured without a GPU, and {reason}", markup=False)
        return 2
    wanted = {
        name: command
        for name, command in RECORDERS.items()
        if not options.only or name.startswith(tuple(options.only))
    }
    session = Session(wanted, visible_gpus(), options.limit, options.logs, options.archive)
    with console.status("recording (the logs grow in " + str(options.logs) + ")"):
        outcomes = session.run()
    table = Table("recorder", "result", "s", title="gpu-record")
    for one in outcomes:
        table.add_row(one.name, one.status, f"{one.seconds:.0f}")
    console.print(table)
    console.print(f"written: {options.archive}", soft_wrap=True)
    return int(any(one.status != "ok" for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
