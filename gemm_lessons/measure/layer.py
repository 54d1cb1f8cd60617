"""Time the whole layer, stage by stage, in every variant; count its work where nothing can be timed.

    flushes | E router E permute E gather E gate_up E swiglu E down E scatter E | flushes | ...
            `-- an event of the device between any two stages; shares are of their sum

The layer's own time is that of one CUDA graph where the variant can be recorded, else of launches, one
by one.  The cache is cold when it starts, and between stages it is as the stage before has left it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gemm_lessons.launch import Graph, HasParts, launch_parts
from gemm_lessons.measure import machine
from gemm_lessons.measure.results import Kind, Measurement, Record, StageWork, now, save
from gemm_lessons.measure.timing import CudaGpu, Gpu, Rules, Timing, summarize, time_calls
from gemm_lessons.moe import layer
from gemm_lessons.moe.layer import Config, LayerInputs, LayerProblem
from gemm_lessons.moe.router import TopK
from gemm_lessons.problem import ProblemError
from gemm_lessons.quantize import BLOCK

NAME = "layer"
HEAD_START = 4  # flushes: while they run, the host enqueues all stages, so that the device waits for none

VARIANTS: dict[str, dict[str, Config]] = {
    "bfloat16": {
        "hopper, SwiGLU in the epilogue": Config("hopper", activation="epilogue"),
        "hopper": Config("hopper"),
        "hopper, SwiGLU in the epilogue, router and gather fused": Config("hopper", "router", "epilogue"),
        "hopper, weighed before down": Config("hopper", weighting="activation"),
        "tensor_core": Config("tensor_core"),
    },
    "float8_e4m3fn": {
        "hopper_fp8, hidden quantised at once": Config("hopper_fp8", activation="quantize"),
        "hopper_fp8": Config("hopper_fp8"),
    },
    "float32": {
        "routed, gather in the load": Config("routed", gather="load"),
        "routed": Config("routed"),
        "masked": Config("masked"),
        "persistent": Config("persistent"),
    },
}


def problem_of(
    num_tokens: int = 8192,
    width: int = 2048,
    hidden: int = 2048,
    num_experts: int = 8,
    num_slots: int = 2,
    dtype: str = "bfloat16",
) -> LayerProblem:
    """A layer to time; without arguments, the one at which the share of routing and moving is judged."""
    return LayerProblem(num_tokens, width, hidden, num_experts, TopK(num_slots), dtype, name=NAME)


def counted(problem: LayerProblem, config: Config) -> dict[str, StageWork]:
    """The work of every stage with all slots taken, counted."""
    T, k, D, F, E = problem.num_tokens, problem.num_slots, problem.width, problem.hidden, problem.num_experts
    rows, stored = T * k, problem.stored.itemsize
    fp8, in_epilogue = problem.dtype == layer.FP8, config.activation == "epilogue"
    operand = (
        1 + 4 / BLOCK if fp8 else stored
    )  # bytes of a value that is multiplied, with its share of a scale
    weight = 1 if fp8 else stored
    logits, slots = 4 * T * E, 4 * T * k
    router = StageWork(2 * T * D * E, T * D * stored + 4 * E * D + 2 * logits + 2 * slots)
    permute, gather = StageWork(0, 4 * slots), StageWork(0, int((T + rows) * D * operand))
    found = {"router": router, "permute": permute}
    if fp8:
        found["quantize"] = StageWork(0, int(T * D * (stored + operand)))
    found["gather"] = gather
    if config.gather == "router":  # one launch: what the gather reads and writes, and no more of the tokens
        found = {"router": StageWork(router.flops, gather.num_bytes + permute.num_bytes + 2 * slots)}
    elif config.gather == "load":
        del found["gather"]
    read = (T if config.gather == "load" else rows) * D * operand
    written = rows * F * stored * (1 if in_epilogue else 2)
    found["gate_up"] = StageWork(4 * rows * D * F, int(read + 2 * E * D * F * weight + written))
    if not in_epilogue:
        passes = (
            3 if not fp8 or config.activation == "kernel" else 2
        )  # gate and up in; hidden out, in 16 bits
        again = rows * F * (operand + (stored if config.activation == "kernel" else 0)) if fp8 else 0
        found["swiglu"] = StageWork(0, int(passes * rows * F * stored + again))
    down = rows * F * operand + E * D * F * weight + rows * D * stored
    found["down"] = StageWork(2 * rows * D * F, int(down))
    found["scatter"] = StageWork(0, (rows + T * (2 if problem.residual else 1)) * D * stored)
    return found


def time_stages(prepared: HasParts, gpu: Gpu, rules: Rules) -> dict[str, Timing]:
    """Time every stage between two events, in one pass through all of them."""
    for _ in range(rules.warmups):
        launch_parts(prepared, gpu.stream)
    gpu.wait()
    samples: dict[str, list[float]] = {name: [] for name in prepared.parts}
    for number in range(rules.samples):
        taken = sum(sum(times) for times in samples.values())
        if number >= rules.least_samples and taken > rules.seconds * 1e6:
            break
        for _ in range(HEAD_START):
            gpu.flush()
        events = [gpu.record()]
        for part in prepared.parts.values():
            part(gpu.stream)
            events.append(gpu.record())
        gpu.wait()
        for name, start, stop in zip(prepared.parts, events[:-1], events[1:], strict=True):
            samples[name].append(gpu.elapsed_us(start, stop))
    return {name: summarize(taken) for name, taken in samples.items()}


@dataclass
class LayerBench:
    """Times the variants of a layer on one GPU, and writes each result down at once.

    Attributes:
        gpu: where.
        record: grows with every measurement.
        path: the file that the record is written to, or None to keep it in memory.
        rules: the timing protocol.
        announce: told about every measurement as it arrives.
    """

    gpu: Gpu
    record: Record
    path: Path | None = None
    rules: Rules = field(default_factory=Rules)
    announce: Callable[[Measurement], None] = lambda measurement: None
    _expected: layer.Expected | None = None  # the dense layer takes longer than all the timing: run it once

    def run(self, problem: LayerProblem, variants: Mapping[str, Config]) -> None:
        """Time the variants on one problem, and another library's layer beside them."""
        inputs = problem.inputs()
        self._expected = None
        self.record.problems[problem.name] = describe(problem)
        for name, config in variants.items():
            self._guarded(problem, name, "layer", partial(self._variant, problem, name, config, inputs))
        self._guarded(problem, TORCH, "peer", partial(self._torch, problem, inputs))

    def _guarded(self, problem: LayerProblem, name: str, kind: Kind, measure: Callable[[], None]) -> None:
        try:
            measure()
        except Exception as error:  # whatever one variant does must not lose the others
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
            refused = isinstance(error, ProblemError | ModuleNotFoundError)
            self._write(Measurement(problem.name, name, kind, "not run" if refused else "failed", reason))

    def _variant(self, problem: LayerProblem, name: str, config: Config, inputs: LayerInputs) -> None:
        prepared = layer.prepare(problem, config, inputs)
        replay: Any = Graph(prepared) if config.graph_capable else partial(launch_parts, prepared)
        timing = time_calls([replay], self.gpu, self.rules)
        clocks = machine.clocks()
        stages = time_stages(prepared, self.gpu, self.rules)
        if self._expected is None:
            self._expected = layer.expect(problem, inputs, prepared.gates())
        verdict = prepared.check(inputs, launch=lambda _: replay(self.gpu.stream), expected=self._expected)
        status = "ok" if verdict.ok else "wrong"
        self._write(
            Measurement(
                problem.name, name, "layer", "ok" if verdict.ok else "wrong",
                reason=verdict.complaint or ("" if config.graph_capable else "not in a graph: one host read"),
                median_us=timing.median_us,
                iqr_us=timing.iqr_us,
                samples=timing.samples,
                useful_tflops=problem.flops / timing.median_us / 1e6,
                work={"stages": len(prepared.parts)},
                sm_mhz=clocks.get("sm_mhz"),
                verdict=f"{verdict.num_checked} outputs, worst at {verdict.worst:.0%} of the tolerance",
            )
        )  # fmt: skip
        for stage, taken in stages.items():
            self._write(
                Measurement(
                    problem.name, f"{name}/{stage}", "stage", "ok" if status == "ok" else "wrong",
                    median_us=taken.median_us, iqr_us=taken.iqr_us, samples=taken.samples,
                )
            )  # fmt: skip

    def _torch(self, problem: LayerProblem, inputs: LayerInputs) -> None:
        call, result = torch_layer(problem, inputs)
        timing = time_calls([call], self.gpu, self.rules)
        prepared = layer.prepare(problem, inputs=inputs)
        launch_parts(prepared)
        ours = prepared.result()[layer.NUM_GUARD_ROWS : -layer.NUM_GUARD_ROWS].astype(np.float32)
        apart = np.abs(result() - ours).max(axis=1) > 2.0**-5 * np.abs(ours).max()
        share = float(apart.mean())  # why any at all: two experts that nearly tie may change places
        agrees = share < 1e-3
        self._write(
            Measurement(
                problem.name, TORCH, "peer", "ok" if agrees else "wrong",
                reason="" if agrees else f"{share:.1%} of its tokens differ from ours",
                median_us=timing.median_us,
                iqr_us=timing.iqr_us,
                samples=timing.samples,
                useful_tflops=problem.flops / timing.median_us / 1e6,
                verdict=f"{int(apart.sum())} of {len(apart)} tokens differ from ours by more than 3 %",
            )
        )  # fmt: skip

    def _write(self, measurement: Measurement) -> None:
        self.record.measurements.append(measurement)
        if self.path:
            save(self.record, self.path)
        self.announce(measurement)


TORCH = "torch._grouped_mm and eager operators"


def torch_layer(
    problem: LayerProblem, inputs: LayerInputs
) -> tuple[Callable[[Any], None], Callable[[], Any]]:
    """The same layer in torch, top-k with renormalised weights: a call on a stream, and its latest result.

    Raises:
        ProblemError: torch has no grouped product for this dtype, or the router is another one.
        ModuleNotFoundError: torch is not installed.
    """
    import torch

    if (
        problem.dtype != "bfloat16"
        or problem.router != TopK(problem.num_slots)
        or problem.capacity is not None
    ):
        raise ProblemError("compared with torch in bfloat16, for a renormalised top-k without a capacity")

    def tensor(array: Any) -> Any:
        words = torch.from_numpy(np.ascontiguousarray(array).view(np.int16)).cuda()
        return words.view(torch.bfloat16)

    x = tensor(inputs.x)
    router = torch.from_numpy(inputs.router).cuda()
    gate_up = tensor(np.concatenate([inputs.experts.gate, inputs.experts.up], axis=1)).transpose(1, 2)
    down = tensor(inputs.experts.down).transpose(1, 2)
    experts = torch.arange(problem.num_experts, device="cuda")
    latest = [x]

    def call(stream: Any) -> None:
        with torch.cuda.stream(torch.cuda.ExternalStream(int(stream))):
            best, chosen = torch.topk(x.float() @ router.T, problem.num_slots)
            weights = torch.softmax(best, 1)
            flat = chosen.reshape(-1)
            order = torch.argsort(flat, stable=True)
            offsets = (flat[:, None] == experts).sum(0).cumsum(0).to(torch.int32)
            rows = x[order // problem.num_slots]
            gate, up = torch._grouped_mm(rows, gate_up, offs=offsets).chunk(2, 1)
            out = torch._grouped_mm(torch.nn.functional.silu(gate) * up, down, offs=offsets)
            back = torch.empty_like(order)
            back[order] = torch.arange(len(order), device="cuda")
            spread = out[back].view(problem.num_tokens, problem.num_slots, problem.width)
            latest[0] = (spread * weights[:, :, None].to(spread.dtype)).sum(1)

    return call, lambda: latest[0].float().cpu().numpy()


def describe(problem: LayerProblem) -> dict[str, Any]:
    """A layer's numbers, as recorded beside its measurements."""
    return {
        "num_tokens": problem.num_tokens,
        "width": problem.width,
        "hidden": problem.hidden,
        "num_experts": problem.num_experts,
        "router": repr(problem.router),
        "dtype": problem.dtype,
        "flops": problem.flops,
    }


def new_bench(dtype: str, path: Path | None, *, quick: bool = False) -> LayerBench:
    """A bench on the chosen GPU, with an empty record of this machine, now.

    Raises:
        TimingError: there is no GPU.
    """
    rules = Rules.quick() if quick else Rules()
    record = Record(machine.machine(), now(), dtype, protocol=rules.describe())
    return LayerBench(CudaGpu(), record, path, rules)
