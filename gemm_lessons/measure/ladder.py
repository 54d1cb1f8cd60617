"""Time the ladder: every step, next to the same kernel on the padded batch, next to its peers.

One failure loses one line of the table: everything is tried, and what does not run says why.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gemm_lessons import device
from gemm_lessons.compare import AnyInputs, Oracle
from gemm_lessons.launch import quantized_to_device, to_device
from gemm_lessons.measure import machine
from gemm_lessons.measure.peers import PEERS, Peer
from gemm_lessons.measure.results import Kind, Measurement, Record, now, save
from gemm_lessons.measure.roofline import Peaks
from gemm_lessons.measure.runs import Run, run_of
from gemm_lessons.measure.timing import Gpu, Rules, host_time, time_calls
from gemm_lessons.problem import GroupedProblem, Inputs
from gemm_lessons.quantize import QuantizedInputs, draw_inputs, pad_inputs
from gemm_lessons.trace import Timeline

WORKLOADS = ("S", "S-x16", "S-x64", "zipf", "one-hot", "empty-middle", "uniform", "text")
TENSOR_WORKLOADS = ("S", "S-x16", "S-x64", "S-x8-v3-gate-up", "S-x8-v3-down", "v3-gate-up-4x8192", "zipf")
SCHEDULED = ("S", "S-x16", "zipf")  # where schedules are compared, too
DEMO_WORKLOAD = "S"

MOST_SECONDS_PER_CALL = 0.5
SLOW_US = 50_000.0  # launch overhead, some microseconds, does not show in a call that takes longer
FEW_SETS_ABOVE_BYTES = 512 * 2**20


def workloads_for(dtype: str) -> tuple[str, ...]:
    """Names of the workloads that are recorded for a dtype; tensor cores have sizes of their own to show."""
    return WORKLOADS if dtype == "float32" else TENSOR_WORKLOADS


def describe(problem: GroupedProblem) -> dict[str, Any]:
    """A problem's numbers, as recorded beside its measurements."""
    return {
        "counts": list(problem.counts),
        "N": problem.N,
        "K": problem.K,
        "useful_flops": problem.useful_flops,
        "padded_flops": problem.padded_flops,
        "least_bytes": problem.least_bytes,
    }


def padded_twin(problem: GroupedProblem, inputs: AnyInputs) -> tuple[GroupedProblem, AnyInputs]:
    """The same experts and weights with every expert at the longest count, the new tokens zero."""
    return problem.as_padded(), pad_inputs(inputs, problem)


def on_device(inputs: AnyInputs) -> AnyInputs:
    """The same inputs in device memory, so that every step reads the same copy."""
    if isinstance(inputs, QuantizedInputs):
        return QuantizedInputs(*(quantized_to_device(one) for one in inputs))
    return Inputs(to_device(inputs.x), to_device(inputs.w))


@dataclass
class Bench:
    """Times things on one GPU and writes each result down at once.

    Attributes:
        gpu: where.
        peaks: its measured limits.
        record: grows with every measurement.
        path: the file that the record is written to, or None to keep it in memory.
        rules: the timing protocol.
        announce: told about every measurement as it arrives.
        most_sets: of inputs that take turns; large problems have fewer.
    """

    gpu: Gpu
    peaks: Peaks
    record: Record
    path: Path | None = None
    rules: Rules = field(default_factory=Rules)
    announce: Callable[[Measurement], None] = lambda measurement: None
    most_sets: int = 3
    _started: float = field(default_factory=time.monotonic)
    _speeds: dict[str, float] = field(default_factory=dict)  # FLOP/s that a step has shown so far
    _oracle: Oracle = field(default_factory=Oracle)  # of the latest problem
    # Of the latest problem: inputs on the host, and on the device.
    _latest: tuple[GroupedProblem, list[AnyInputs], list[AnyInputs]] | None = None

    def ladder(self, problem: GroupedProblem, steps: Mapping[str, Any]) -> None:
        """Time every step on one problem, its parts, and the same kernel on the padded batch."""
        host, device_sets = self._begin(problem)
        padded_problem, padded_host = padded_twin(problem, host[0])
        on_gpu: Any = padded_host
        padded_device = on_device(on_gpu._replace(w=device_sets[0].w))
        for name, step in steps.items():
            self._step(name, step, problem, host, device_sets)
            self._padded_twin(name, step, padded_problem, padded_host, padded_device)
            self.release()

    def peers(self, problem: GroupedProblem, peers: Iterable[Peer] = PEERS) -> None:
        """Time other libraries on one problem."""
        self.record.problems[problem.name] = describe(problem)
        for peer in peers:
            reason = peer.reason_not_to_run(problem)
            if reason:
                self.write(Measurement(problem.name, peer.name, "peer", "not run", reason))
                continue
            host, _ = self._begin(problem)
            make = [lambda inputs=inputs, peer=peer: peer.prepare(problem, inputs) for inputs in host]
            self._guarded(problem.name, peer.name, "peer", make, host)
            self.release()

    def schedules(self, problem: GroupedProblem, step: Any, names: Iterable[str]) -> None:
        """Time one kernel under every schedule, and trace each once for its idle tail."""
        host, device_sets = self._begin(problem)
        for name in names:
            make = [
                lambda inputs=inputs, name=name: run_of(step.prepare(problem, inputs=inputs, schedule=name))
                for inputs in device_sets
            ]
            self._guarded(
                problem.name, name, "schedule", make, host, finish=self._idle_tail(step, device_sets[0])
            )
            self.release()

    def write(self, measurement: Measurement) -> None:
        """Add a measurement to the record, the file and the screen."""
        self.record.measurements.append(measurement)
        self.record.seconds = round(time.monotonic() - self._started, 1)
        if self.path:
            save(self.record, self.path)
        self.announce(measurement)

    def release(self) -> None:
        """Give back the memory of what is no longer used, also what the libraries keep for later."""
        gc.collect()
        if not device.choose().is_gpu:
            return
        from numba import cuda

        # why: after a kernel has crashed even this fails; the lines that follow will say so themselves
        with suppress(Exception):
            cuda.current_context().memory_manager.deallocations.clear()
            if "torch" in sys.modules:
                sys.modules["torch"].cuda.empty_cache()

    def _begin(self, problem: GroupedProblem) -> tuple[list[AnyInputs], list[AnyInputs]]:
        """Input sets on the host and on the device; made once for everything that runs on one problem."""
        if self._latest is None or self._latest[0] != problem:
            self._latest = None
            self._oracle.forget()
            self.release()
            self.record.problems[problem.name] = describe(problem)
            sets = min(self.most_sets, 3 if problem.least_bytes <= FEW_SETS_ABOVE_BYTES else 2)
            host = [draw_inputs(problem, seed) for seed in range(sets)]
            self._latest = (problem, host, [on_device(inputs) for inputs in host])
        return self._latest[1:]

    def _step(
        self,
        name: str,
        step: Any,
        problem: GroupedProblem,
        host: Sequence[AnyInputs],
        device_sets: Sequence[AnyInputs],
    ) -> None:
        flops = problem.padded_flops if name == "padded" else problem.useful_flops
        reason = self._too_slow(name, flops)
        if reason:
            self.write(Measurement(problem.name, name, "step", "not run", reason))
            return
        make = [lambda inputs=inputs: run_of(step.prepare(problem, inputs=inputs)) for inputs in device_sets]
        self._guarded(problem.name, name, "step", make, host)

    def _padded_twin(
        self, name: str, step: Any, problem: GroupedProblem, host: AnyInputs, on_gpu: AnyInputs
    ) -> None:
        workload = problem.name.removesuffix(" padded")
        reason = self._too_slow(name, problem.useful_flops)
        if reason:
            self.write(Measurement(workload, name, "padded twin", "not run", reason))
            return
        make = [lambda: run_of(step.prepare(problem, inputs=on_gpu))]
        self._guarded(workload, name, "padded twin", make, [host])

    def _too_slow(self, name: str, flops: int) -> str:
        if name not in self._speeds or flops / self._speeds[name] <= MOST_SECONDS_PER_CALL:
            return ""
        seconds = flops / self._speeds[name]
        return (
            f"one call would take {seconds:.1f} s at the {self._speeds[name] / 1e12:.2g} TFLOP/s it reached"
        )

    def _guarded(
        self,
        workload: str,
        name: str,
        kind: Kind,
        make: Sequence[Callable[[], Run]],
        host: Sequence[AnyInputs],
        finish: Callable[[Measurement], Measurement] = lambda measurement: measurement,
    ) -> None:
        try:
            runs = [build() for build in make]
            measurement = finish(self._measure(workload, name, kind, runs, host))
            if kind == "step":
                self._remember(measurement)
                self._parts(measurement, runs)
        except Exception as error:  # whatever one line does must not lose the others
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            measurement = Measurement(workload, name, kind, "failed", reason)
        self.write(measurement)

    def _measure(
        self, workload: str, name: str, kind: Kind, runs: Sequence[Run], host: Sequence[AnyInputs]
    ) -> Measurement:
        """Time the runs, which differ in their inputs only, then judge every one of them."""
        problem = runs[0].problem
        timing = time_calls([run.replay for run in runs], self.gpu, self.rules)
        sm_mhz = machine.clocks().get("sm_mhz")
        slow = timing.median_us > SLOW_US
        rules, eager_calls = (self.rules.once if slow else self.rules), [run.eager for run in runs]
        eager = None if slow else time_calls(eager_calls, self.gpu, rules)
        enqueue = host_time(eager_calls, self.gpu, rules)
        with self._oracle.using():
            verdicts = [run.judge(self.gpu, inputs) for run, inputs in zip(runs, host, strict=True)]
        wrong = next((verdict for verdict in verdicts if not verdict.ok), None)
        # why: the padded twin does more work on purpose; only the work that was wanted counts
        useful = self.record.problems[workload]["useful_flops"]
        of_what = replace(problem, counts=tuple(self.record.problems[workload]["counts"]))
        return Measurement(
            workload, name, kind,
            "wrong" if wrong else "ok",
            reason=str(wrong) if wrong else runs[0].note,
            median_us=timing.median_us,
            iqr_us=timing.iqr_us,
            samples=timing.samples,
            useful_tflops=useful / timing.median_us / 1e6,
            percent_of_roofline=self.peaks.percent(of_what, timing.median_us),
            percent_of_read=self.peaks.percent_of_read(of_what, timing.median_us),
            host_us=enqueue,
            launch_us=eager.median_us - timing.median_us if eager else None,
            work=runs[0].work,
            sm_mhz=sm_mhz,
            verdict=str(max(verdicts, key=lambda verdict: verdict.worst)),
        )  # fmt: skip

    def _remember(self, measurement: Measurement) -> None:
        """Keep the best speed of a step, to know later what it would take too long for."""
        if measurement.median_us and measurement.work.get("flops"):
            speed = measurement.work["flops"] / (measurement.median_us * 1e-6)
            self._speeds[measurement.name] = max(speed, self._speeds.get(measurement.name, 0.0))

    def _parts(self, whole: Measurement, runs: Sequence[Run]) -> None:
        for part in runs[0].parts:
            timing = time_calls([run.parts[part] for run in runs], self.gpu, self.rules)
            self.write(
                Measurement(
                    whole.workload,
                    f"{whole.name}/{part}",
                    "part",
                    whole.status,
                    median_us=timing.median_us,
                    iqr_us=timing.iqr_us,
                    samples=timing.samples,
                )
            )

    def _idle_tail(self, step: Any, inputs: AnyInputs) -> Callable[[Measurement], Measurement]:
        """Run a schedule once more with its trace on, apart from the timing that a trace would disturb."""

        def trace(measurement: Measurement) -> Measurement:
            described = self.record.problems[measurement.workload]
            problem = GroupedProblem(
                tuple(described["counts"]), described["N"], described["K"], self.record.dtype
            )
            return replace(measurement, idle_tail=traced(step, problem, inputs, measurement.name).idle_tail)

        return trace


def traced(step: Any, problem: GroupedProblem, inputs: AnyInputs | None, schedule: str) -> Timeline:
    """Run a step that takes tiles by a schedule, with its trace on.

    Why twice: the first launch loads the module, which would look like an idle device.
    """
    config = replace(step.CONFIG if device.choose().is_gpu else step.SIM_CONFIG, trace=True)
    prepared = step.prepare(problem, config, inputs, schedule=schedule)
    for _ in range(2):
        step.launch(prepared)
    prepared.result()  # waits
    timeline: Timeline = prepared.timeline()
    return timeline


def new_record(dtype: str, rules: Rules, peaks: Peaks) -> Record:
    """An empty record of this machine, now."""
    return Record(
        machine.machine(),
        now(),
        dtype,
        protocol=rules.describe(),
        peaks={
            "copy_bytes_per_s": peaks.copy_bytes_per_s,
            "read_bytes_per_s": peaks.read_bytes_per_s,
            "flops_per_s": peaks.flops_per_s,
            "not_measured": peaks.not_measured,
        },
    )
