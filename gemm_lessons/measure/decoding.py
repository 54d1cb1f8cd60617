"""How fast are a few tokens per expert, next to the bandwidth of reading alone?

    python -m gemm_lessons.measure.decoding             on a GPU: writes measure/studies/decode-DEVICE.json

The weights of eight experts and fewer, 4096 x 7168 each, meet different numbers of tokens, in bfloat16 and
in FP8: steps of the ladder and torch by the protocol of `timing`, all on the same weights.  torch scales
FP8 by rows, the steps by blocks; both read the same bytes.  Outputs are compared with the oracle for the
first 128 features and the last 128, those of torch in FP8 with what sums of 14 bits may be off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.compare import NUM_GUARD_ROWS, WGMMA_E4M3_BITS, Comparison, check_output, poisoned
from gemm_lessons.launch import quantized_to_device, to_device
from gemm_lessons.measure import study
from gemm_lessons.measure.peers import bits_of_long_sums, torch_run, why_no_torch
from gemm_lessons.measure.results import label_of
from gemm_lessons.measure.roofline import Peaks, peaks
from gemm_lessons.measure.runs import Run, run_of
from gemm_lessons.measure.timing import CudaGpu, Rules, time_calls
from gemm_lessons.problem import DTYPES, GroupedProblem, Inputs
from gemm_lessons.quantize import BLOCK, Quantized, QuantizedInputs
from gemm_lessons.steps import decode, hopper, hopper_fp8
from gemm_lessons.workloads import DECODE

COMMAND = "python -m gemm_lessons.measure.decoding"

N, K = 4096, 7168
ROUTINGS: dict[str, tuple[int, ...]] = {
    "decode": DECODE,
    "half of the experts empty": (9, 0, 0, 4, 12, 0, 5, 0),
    **{f"{tokens} each": (tokens,) * len(DECODE) for tokens in (1, 8, 16, 32, 64)},
    # 32 tiles of 128 features each: fewer than there are SMs
    **{f"one expert, {tokens}": (tokens,) for tokens in (8, 16, 64)},
    **{f"{name} experts, 16 each": (16,) * count for name, count in (("two", 2), ("four", 4))},
}
DTYPE_NAMES = ("bfloat16", "float8_e4m3fn")
DRAWN = 2**22  # random values; the weights repeat them

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Line:
    """One routing, computed by one program.

    Attributes:
        routing: its name.
        counts: tokens of each expert.
        dtype: of x and w.
        name: of the step or peer.
        median_us: of one call, replayed as a CUDA graph.
        iqr_us: spread of that time.
        least_bytes: that must move: x, the weights of experts that have tokens, and y.
        tb_per_s: these bytes over the time, in 10 ** 12 per second.
        percent_of_read: of the measured bandwidth of reading alone, 0 to 100.
        verdict: what the comparison with the oracle said.
        right: the verdict in one word.
    """

    routing: str
    counts: tuple[int, ...]
    dtype: str
    name: str
    median_us: float
    iqr_us: float
    least_bytes: int
    tb_per_s: float
    percent_of_read: float
    verdict: str
    right: bool


def draw(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    """Random normal values of a dtype; large arrays repeat the first of them."""
    size = int(np.prod(shape))
    values = np.random.default_rng(seed).standard_normal(min(size, DRAWN), dtype=np.float32)
    bits = values.astype(DTYPES[dtype]).view(f"u{DTYPES[dtype].itemsize}")
    return np.resize(bits, shape).view(DTYPES[dtype])


def scales_of(values: Array, block: tuple[int, int], seed: int) -> Quantized:
    """Values with random scales between 1/2 and 2, one for each block."""
    *stack, rows, columns = values.shape
    shape = (*stack, -(-rows // block[0]), -(-columns // block[1]))
    scales = np.exp2(np.random.default_rng(seed).uniform(-1, 1, shape)).astype(np.float32)
    return Quantized(values, scales, block)


def some_features(inputs: Inputs | QuantizedInputs, first: int) -> Inputs | QuantizedInputs:
    """The same problem for 128 features only: the inputs that the oracle needs for them."""
    chosen = slice(first, first + BLOCK)
    if isinstance(inputs, Inputs):
        return Inputs(inputs.x, inputs.w[:, chosen])
    scales = inputs.w.scales
    if inputs.w.block[0] == 1:
        scales = scales[:, chosen]
    else:
        scales = scales[:, first // BLOCK : first // BLOCK + 1]
    return QuantizedInputs(inputs.x, Quantized(inputs.w.values[:, chosen], scales, inputs.w.block))


def first_experts(w: Any, count: int) -> Any:
    """The weights of the first experts, in the memory where all of them are."""
    if isinstance(w, Quantized):
        return w._replace(values=w.values[:count], scales=w.scales[:count])
    return w[:count]


def judge(run: Run, gpu: CudaGpu, inputs: Inputs | QuantizedInputs, bits: int) -> Comparison:
    """Replay once, after timing, and compare the first 128 features and the last with the oracle."""
    run.poison()
    run.replay(gpu.stream)
    gpu.wait()
    guarded = run.result()
    verdicts = []
    for first in (0, N - BLOCK):
        part = poisoned(len(guarded), BLOCK, guarded.dtype)
        rows = slice(NUM_GUARD_ROWS, len(guarded) - NUM_GUARD_ROWS)
        part[rows] = guarded[rows, first : first + BLOCK]
        some = some_features(inputs, first)
        of_them = replace(run.problem, N=BLOCK)
        verdicts.append(check_output(part, of_them, some, accumulator_bits=bits))
    return max(verdicts, key=lambda verdict: (not verdict.ok, verdict.worst))


def programs(
    problem: GroupedProblem, inputs: Any, on_device: Any
) -> Iterator[tuple[str, Callable[[], Run], Any]]:
    """What is timed: its name, how to prepare it, and the inputs that it is judged by."""
    yield "decode", lambda: run_of(decode.prepare(problem, inputs=on_device)), inputs
    if device.choose().compute_capability[0] == 9:
        name, step = ("hopper", hopper) if problem.dtype == "bfloat16" else ("hopper_fp8", hopper_fp8)
        yield name, lambda: run_of(step.prepare(problem, inputs=on_device)), inputs
    if why_no_torch():
        return
    import torch

    def tensor(array: Any) -> Any:
        kind = {"bfloat16": torch.bfloat16, "float8_e4m3fn": torch.float8_e4m3fn}[problem.dtype]
        return torch.as_tensor(array.view(np.uint8), device="cuda").view(kind)

    ends = torch.as_tensor(problem.offsets[1:].copy(), device="cuda")
    if problem.dtype == "bfloat16":
        x, w = tensor(on_device.x), tensor(on_device.w).transpose(1, 2)
        yield (
            "torch._grouped_mm",
            lambda: torch_run(problem, lambda: torch._grouped_mm(x, w, offs=ends)),
            inputs,
        )
        return
    x, w = tensor(on_device.x.values), tensor(on_device.w.values).transpose(1, 2)
    whole = QuantizedInputs(
        *(scales_of(one.values, (1, K), seed) for seed, one in enumerate((inputs.x, inputs.w), 3))
    )
    x_scales = torch.as_tensor(whole.x.scales[:, 0].copy(), device="cuda")
    w_scales = torch.as_tensor(whole.w.scales[:, :, 0].copy(), device="cuda")

    def multiply() -> Any:
        return torch._scaled_grouped_mm(
            x, w, x_scales, w_scales, offs=ends, out_dtype=torch.bfloat16, use_fast_accum=True
        )

    yield "torch._scaled_grouped_mm, by rows", lambda: torch_run(problem, multiply), whole


def measure(gpu: CudaGpu, limits: Peaks, routing: str, dtype: str, w: Any, w_on_device: Any) -> list[Line]:
    """Time every program on one routing."""
    counts = ROUTINGS[routing]
    w, w_on_device = (first_experts(one, len(counts)) for one in (w, w_on_device))
    problem = GroupedProblem(counts, N, K, dtype, name=routing)
    x: Any = draw((problem.total_tokens, K), dtype, 1)
    inputs: Any = Inputs(x, w)
    on_device: Any = Inputs(to_device(x), w_on_device)
    if dtype == "float8_e4m3fn":
        x = scales_of(x, (1, BLOCK), 2)
        inputs = QuantizedInputs(x, w)
        on_device = QuantizedInputs(quantized_to_device(x), w_on_device)
    lines = []
    for name, prepare, judged_by in programs(problem, inputs, on_device):
        run = prepare()
        timing = time_calls([run.replay], gpu, Rules())
        bits = decode.MMA_BITS if name == "decode" else WGMMA_E4M3_BITS
        if "scaled" in name:  # its fast accumulation never leaves the tensor core
            bits = bits_of_long_sums(K)
        verdict = judge(run, gpu, judged_by, bits)
        percent = limits.percent_of_read(problem, timing.median_us)
        lines.append(
            Line(
                routing=routing,
                counts=counts,
                dtype=dtype,
                name=name,
                median_us=timing.median_us,
                iqr_us=timing.iqr_us,
                least_bytes=problem.least_bytes,
                tb_per_s=problem.least_bytes / timing.median_us / 1e6,
                percent_of_read=percent,
                verdict=str(verdict),
                right=verdict.ok,
            )
        )
    return lines


def weights(dtype: str) -> tuple[Any, Any]:
    """Weights of all experts, with scales in FP8: on the host, and on the device."""
    w: Any = draw((len(DECODE), N, K), dtype, 0)
    if dtype == "float8_e4m3fn":
        w = scales_of(w, (BLOCK, BLOCK), 5)
        return w, quantized_to_device(w)
    return w, to_device(w)


def here_or_recorded(routings: Sequence[str], dtype: str) -> tuple[str, list[Line]]:
    """Some routings, timed on this GPU; without one, as they were recorded.

    Returns:
        Where and when, for a title, and a line for each program on each routing.
    """
    if device.choose().is_gpu:
        gpu = CudaGpu()
        limits, (w, w_on_device) = peaks(gpu), weights(dtype)
        timed = [
            line for routing in routings for line in measure(gpu, limits, routing, dtype, w, w_on_device)
        ]
        return f"{device.choose().name}, now", timed
    newest = study.newest("decode")
    lines = [Line(**{**line, "counts": tuple(line["counts"])}) for line in newest["lines"]]
    kept = [one for one in lines if one.routing in routings and one.dtype == dtype]
    where = label_of(newest["machine"], newest["date"])
    return f"recorded on {where}, commit {newest['machine']['commit']}", kept


def main() -> None:
    """Measure every routing in both dtypes and write the result down."""
    gpu = CudaGpu()
    limits = peaks(gpu, refresh=True)
    lines: list[Line] = []
    for dtype in DTYPE_NAMES:
        w, w_on_device = weights(dtype)
        for routing in ROUTINGS:
            for line in measure(gpu, limits, routing, dtype, w, w_on_device):
                speed = f"{line.median_us:7.1f} us {line.tb_per_s:6.3f} TB/s {line.percent_of_read:5.1f} %"
                verdict = "right" if line.right else line.verdict
                print(f"{line.routing:26} {line.dtype:14} {line.name:34} {speed}  {verdict}", flush=True)
                lines.append(line)
    study.write("decode", COMMAND, lines, peaks=asdict(limits), N=N, K=K)
    if not all(line.right for line in lines if not line.name.startswith("torch")):
        raise SystemExit("a step's output differs from the oracle's")


if __name__ == "__main__":
    main()
