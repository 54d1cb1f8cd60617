"""The grader's side: starts the process for submissions, hands it jobs, and stops what does not end."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from gemm_lessons.grading import protocol

START_SECONDS = 120.0  # on a cold machine Numba's import alone can take most of a minute
GRACE_SECONDS = 1.5  # between the alarm inside the process and the kill from here


class RunnerError(RuntimeError):
    """The grader's own process cannot run; the submission is not to blame."""


@dataclass
class Outcome:
    """What came back from one job; all of it was written by the submission's process.

    Attributes:
        status: ok, raised, uncompiled, finding, exit, time, memory, refused, unsendable, crashed,
            died or garbled.
        value: what a host function returned.
        outputs: whole output arrays, guard rows included.
        error: type, message, line and text of what was raised.
        launches: kernel, grid and block of each launch.
        findings: of the checked simulator.
        traffic: accesses by (space, array, kind).
        refusals: what the process was not allowed to do.
        printed: the first lines that the submission printed.
        seconds: how long it took.
    """

    status: str
    value: Any = None
    outputs: list[Any] = field(default_factory=list)
    error: dict[str, Any] = field(default_factory=dict)
    launches: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    traffic: dict[tuple[str, str, str], int] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    printed: str = ""
    seconds: float = 0.0

    @property
    def stores(self) -> int:
        """How often the kernels' threads wrote to global memory."""
        return self._in_global_memory("store")

    @property
    def loads(self) -> int:
        """How often the kernels' threads read global memory."""
        return self._in_global_memory("load")

    def _in_global_memory(self, kind: str) -> int:
        return sum(count for (space, _, k), count in self.traffic.items() if (space, k) == ("global", kind))

    def accesses(self, array: str, kind: str = "load", space: str = "global") -> int:
        """How often the kernels' threads used an array."""
        return self.traffic.get((space, array, kind), 0)


class Runner:
    """Runs jobs on one device: "sim" or "gpu".

    Args:
        kind: which device.
        seconds: time limit of one job: of computing in the simulator, on the clock on a GPU.

    Raises:
        RunnerError: this platform has no way to confine a submission, or the process did not start.
    """

    def __init__(self, kind: str = "sim", seconds: float = 5.0) -> None:
        if not hasattr(socket, "send_fds"):
            raise RunnerError("the grader needs Linux or macOS; on Windows, use WSL")
        self.kind = kind
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._source = ""

    def start(self) -> None:
        """Start the process now, so that it warms up while the grader does something else."""
        if self._process is not None and self._process.poll() is None:
            return
        ours, theirs = socket.socketpair()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GEMM_LESSONS_")}
        environment |= {"GEMM_LESSONS_DEVICE": self.kind, "MPLBACKEND": "Agg", "PYTHONDONTWRITEBYTECODE": "1"}
        environment["MALLOC_PERTURB_"] = "165"  # why: np.empty must not be zero by luck
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gemm_lessons.grading.server", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        self._control = ours
        self._ready = False
        atexit.register(self.close)

    def close(self) -> None:
        """End the process."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            _kill(self._process.pid)
            self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()
        self._process = self._control = None
        atexit.unregister(self.close)

    def run(self, source: str, path: str, job: dict[str, Any], seconds: float | None = None) -> Outcome:
        """Do one job.

        Args:
            source: the submission's text.
            path: where it came from, for messages.
            job: see `jobs`.
            seconds: time limit, if not the usual one.

        Returns:
            The outcome; a submission that dies or never answers has one too.

        Raises:
            RunnerError: the process cannot be started.
        """
        if self.kind == "gpu" and source != self._source:
            self.close()  # why: one submission must not meet what another one left behind
            self._source = source
        seconds = seconds or self.seconds
        control = self._started()
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                socket.send_fds(control, [b"j"], [theirs.fileno()])
            worker = int(protocol.receive(control, time.monotonic() + START_SECONDS)["pid"])
            try:
                return self._exchange(ours, {"source": source, "path": path, "seconds": seconds, **job})
            finally:
                if self.kind != "gpu":
                    _kill(worker)

    def _exchange(self, connection: socket.socket, job: dict[str, Any]) -> Outcome:
        began = time.monotonic()
        try:
            protocol.send(connection, job)
            patience = 1 if self.kind == "gpu" else protocol.PATIENCE
            answer = protocol.receive(connection, began + patience * job["seconds"] + GRACE_SECONDS)
            outcome = _outcome(answer)
            if outcome.status == "crashed":
                self._replace()
            return outcome
        except TimeoutError:
            self._replace()
            return Outcome("time", seconds=time.monotonic() - began)
        except protocol.ClosedError:
            self._replace()
            return Outcome("died", seconds=time.monotonic() - began)
        except protocol.ProtocolError as error:
            self._replace()
            return Outcome("garbled", error={"message": str(error)})

    def _replace(self) -> None:
        if self.kind == "gpu":  # in the simulator the process itself never runs a submission
            self.close()

    def _started(self) -> socket.socket:
        self.start()
        if self._control is None or self._process is None:
            raise RunnerError("the process for submissions is not running")
        if not self._ready:
            try:
                protocol.receive(self._control, time.monotonic() + START_SECONDS)
            except (TimeoutError, protocol.ClosedError, protocol.ProtocolError) as error:
                self._process.kill()
                log = self._process.stderr.read().decode(errors="replace") if self._process.stderr else ""
                raise RunnerError(f"the process for submissions did not start: {log[-2000:]}") from error
            self._ready = True
        return self._control


def _outcome(answer: Any) -> Outcome:
    """Take over an answer field by field: it comes from a process that runs foreign code."""
    try:
        traffic = {_three(item["key"]): int(item["accesses"]) for item in answer["traffic"]}
        return Outcome(
            status=str(answer["status"]),
            value=answer["value"],
            outputs=list(answer["outputs"]),
            error=dict(answer.get("error", {})),
            launches=[dict(launch) for launch in answer["launches"]],
            findings=[dict(finding) for finding in answer["findings"]],
            traffic=traffic,
            refusals=[str(refusal) for refusal in answer["refusals"]],
            printed=str(answer["printed"]),
            seconds=float(answer["seconds"]),
        )
    except (TypeError, KeyError, ValueError) as error:
        raise protocol.ProtocolError("an answer of the wrong form") from error


def _three(key: Any) -> tuple[str, str, str]:
    space, array, kind = key
    return str(space), str(array), str(kind)


def _kill(pid: int) -> None:
    """Kill a process and the session that it leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
