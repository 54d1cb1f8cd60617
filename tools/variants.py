"""Time variants of a kernel beside each other, call by call, from machine code that was compiled before.

    python tools/variants.py build                              compile all variants; needs no GPU
    python tools/variants.py time -w S -w S-x64 hopper static   time some, beside torch; needs a GPU and torch

Numba compiles a tensor-core kernel in ten seconds, and a GPU runs it in less than a millisecond: built
elsewhere, a dozen variants are timed while one would compile.  Variants take turns within each round, so
what the GPU's clock does meets all of them; the last column is the time over torch's grouped product in that
run.  An idea that changes more than constants is tried in a copy of a step: add its module to VARIANTS.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "out" / "variants"
FP8 = "float8_e4m3fn"
STEPS = "gemm_lessons.steps"
MOST_ERROR = 0.01  # of the output's norm: rounding to bfloat16 is 0.002 of it

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> module, and what differs from its Config()
    "hopper": (f"{STEPS}.hopper", {}),
    "static": (f"{STEPS}.hopper", {"stealing": False}),
    "hopper-128": (f"{STEPS}.hopper", {"BM": 128, "num_stages": 6}),
    "fp8": (f"{STEPS}.hopper_fp8", {}),
    "fp8-rows": (f"{STEPS}.hopper_fp8", {"whole_rows": True}),
    "fp8-128": (f"{STEPS}.hopper_fp8", {"BM": 128, "num_stages": 5, "num_buffers": 2}),
    "decode": (f"{STEPS}.decode", {"BN": 32, "slab_bytes": 512, "num_stages": 4, "blocks_per_sm": 2}),
    "decode-wide": (f"{STEPS}.decode", {"BN": 128, "slab_bytes": 256, "num_stages": 6}),
    "decode-fp8": (
        f"{STEPS}.decode",
        {"BN": 32, "slab_bytes": 512, "num_stages": 4, "blocks_per_sm": 2, "dtype": FP8},
    ),
    "tensor_core": (f"{STEPS}.tensor_core", {}),
    "tensor_core-256": (f"{STEPS}.tensor_core", {"BM": 256, "blocks_per_sm": 1}),
}


def build(names: list[str]) -> None:
    """Compile variants, and say what ptxas thinks of them."""
    from gemm_lessons import compile_only

    if compile_only.missing():
        raise SystemExit(compile_only.missing())
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names:
        path, options = VARIANTS[name]
        module = importlib.import_module(path)
        kernel = module.make_kernel(module.Config(**options))
        made = compile_only.compile_kernel(kernel, module.SIGNATURE, (9, 0), ptx=False)
        (FOLDER / f"{name}.cubin").write_bytes(made.cubin)
        warnings = ", ".join(made.warnings) or "no warning"
        print(
            f"{name:16} {made.registers} registers, {made.spill_bytes} bytes spilled, {warnings}", flush=True
        )


def kernel_name(code: bytes) -> str:
    """The name of the only kernel in machine code, from the section that describes it."""
    return max(re.findall(rb"\.nv\.info\.([\w$]+)", code), key=len).decode()


class Cubin:
    """Machine code that a `Launch` takes for what `@cuda.jit` made."""

    extensions = ()  # of Numba's conversion of arguments

    def __init__(self, path: Path) -> None:
        from cuda.core import ObjectCode

        self._code = ObjectCode.from_cubin(path.read_bytes())
        self._kernel = self._code.get_kernel(kernel_name(path.read_bytes()))
        self._codelibrary = SimpleNamespace(get_cufunc=lambda: SimpleNamespace(kernel=self._kernel))
        self.argument_types: tuple[Any, ...] = ()

    def specialize(self, *arguments: Any) -> Any:
        """Take the types of the arguments as they come."""
        from numba import typeof

        self.argument_types = tuple(typeof(argument) for argument in arguments)
        return SimpleNamespace(overloads={self.argument_types: self})

    def _prepare_args(self, *arguments: Any) -> None:
        from numba.cuda.dispatcher import _Kernel

        _Kernel._prepare_args(self, *arguments)


class Drawn:
    """A problem's arrays on the GPU, what they make, and torch's call that makes it.

    All FP8 scales are the same power of two: what they cost does not depend on them.
    """

    def __init__(self, problem: Any) -> None:
        import numpy as np
        import torch

        self.problem = problem
        E, N, K, T = problem.num_groups, problem.N, problem.K, problem.total_tokens
        torch.manual_seed(0)
        x, w = (torch.randn(shape, device="cuda").bfloat16() for shape in ((T, K), (E, N, K)))
        ends = torch.from_numpy(problem.offsets[1:].astype(np.int32)).cuda()
        self.y = torch.empty(T, N, device="cuda", dtype=torch.bfloat16)
        self.scale = 1.0
        self.torch = lambda: torch._grouped_mm(x, w.transpose(1, 2), offs=ends)
        if problem.dtype == FP8:
            self.scale = 2.0**-6
            x, w = ((one / self.scale).clamp(-448, 448).to(torch.float8_e4m3fn) for one in (x, w))
            scales = self.scales((T,)), self.scales((E, N))
            options = {"offs": ends, "out_dtype": torch.bfloat16, "use_fast_accum": True}
            self.torch = lambda: torch._scaled_grouped_mm(x, w.transpose(1, 2), *scales, **options)
        self.x, self.w = x, w

    def scales(self, shape: tuple[int, ...]) -> Any:
        """Scales of any shape, all the same."""
        import torch

        return torch.full(shape, self.scale, device="cuda")

    def wanted(self) -> Any:
        """The output in float32."""
        import torch

        offsets = self.problem.offsets
        experts = enumerate(itertools.pairwise(offsets))
        parts = [self.x[start:stop].float() @ self.w[g].float().T for g, (start, stop) in experts]
        return torch.cat(parts) * self.scale**2

    def operands(self, *, whole_rows: bool) -> tuple[Any, Any]:
        """The operands x and w as a step takes them."""
        from gemm_lessons.interchange import as_device_array
        from gemm_lessons.quantize import BLOCK, ROW_BLOCK, WEIGHT_BLOCK, Quantized, turned_shape
        from gemm_lessons.schedule import ceil_div

        problem, x, w = self.problem, as_device_array("x", self.x), as_device_array("w", self.w)
        if problem.dtype != FP8:
            return x, w
        num_k = 1 if whole_rows else ceil_div(problem.K, BLOCK)
        num_n = problem.N if whole_rows else ceil_div(problem.N, BLOCK)
        of_x, of_w = (problem.total_tokens, num_k), (problem.num_groups, num_n, num_k)
        shapes = of_x, of_w, turned_shape(of_x)
        x_scales, w_scales, turned = (as_device_array("scales", self.scales(shape)) for shape in shapes)
        row = 1, problem.K
        x_block, w_block = (row, row) if whole_rows else (ROW_BLOCK, WEIGHT_BLOCK)
        return Quantized(x, x_scales, x_block, turned), Quantized(w, w_scales, w_block)


def bind(name: str, drawn: Drawn) -> Any:
    """A variant's launch on what was drawn."""
    from gemm_lessons.interchange import as_device_array
    from gemm_lessons.launch import to_device

    path, options = VARIANTS[name]
    module, problem = importlib.import_module(path), drawn.problem
    x, w = drawn.operands(whole_rows=options.get("whole_rows", False))
    rest = to_device(problem.offsets), as_device_array("y", drawn.y)
    cubin = Cubin(FOLDER / f"{name}.cubin")
    with mock.patch.object(module, "make_kernel", return_value=cubin):
        config = module.Config(**options)
        if problem.dtype != FP8:
            return module.bind(problem, config, x, w, *rest)
        if "decode" in path:
            return module.bind(problem, config, x.values, w.values, *rest, (x.scales, w.scales))
        return module.bind(problem, config, x, w, *rest)["gemm"]


def check(name: str, call: Any, drawn: Drawn) -> None:
    """Stop if a variant's output is not what torch makes in float32."""
    import torch

    drawn.y.fill_(float("nan"))
    call()
    torch.cuda.synchronize()
    wanted = drawn.wanted()
    error = float((drawn.y.float() - wanted).norm() / wanted.norm())
    if not error < MOST_ERROR:
        raise SystemExit(f"{name} is wrong: its output is off by {error:.2g} of its norm")


def compare(workload: str, names: list[str], rounds: int) -> None:
    """Check variants on one workload, time them in turns, and print a line for each."""
    import numpy as np

    from gemm_lessons import device
    from gemm_lessons.measure.peers import torch_run
    from gemm_lessons.measure.timing import CudaGpu
    from gemm_lessons.workloads import find_workload

    dtypes = {FP8 if "fp8" in name else "bfloat16" for name in names}
    if len(dtypes) > 1:
        raise SystemExit("name variants of one dtype at a time, bfloat16 or FP8")
    drawn = Drawn(find_workload(workload, dtypes.pop()).problem)
    print(f"{workload}, {drawn.problem.dtype}, {device.choose().name}, seed 0", flush=True)
    calls = {name: bind(name, drawn) for name in names}
    for name, call in calls.items():
        check(name, call, drawn)
    calls["torch"] = torch_run(drawn.problem, drawn.torch).replay
    gpu, samples = CudaGpu(), {name: [] for name in calls}
    for _ in range(1 + rounds):  # the first round warms up
        for name, call in calls.items():
            gpu.flush()
            start = gpu.record()
            call(gpu.stream)
            stop = gpu.record()
            gpu.wait()
            samples[name].append(gpu.elapsed_us(start, stop))
    medians = {name: float(np.median(taken[1:])) for name, taken in samples.items()}
    for name, us in medians.items():
        tflops = drawn.problem.useful_flops / us / 1e6
        print(f"  {name:16} {us:9.1f} us {tflops:7.0f} TFLOP/s   {us / medians['torch']:.3f}", flush=True)


def main() -> None:
    """Build or time."""
    parser = argparse.ArgumentParser(description="Variants of a kernel beside each other.")
    parser.add_argument("what", choices=("build", "time"))
    parser.add_argument("names", nargs="*", metavar="variant", help=f"all if none: {', '.join(VARIANTS)}")
    parser.add_argument("--workload", "-w", action="append", help="a named workload; repeat for more")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_intermixed_args()  # why: names may follow options
    unknown = [name for name in options.names if name not in VARIANTS]
    if unknown:
        raise SystemExit(f"no variant is called {unknown[0]!r}: use one of {', '.join(VARIANTS)}")
    names = options.names or list(VARIANTS)
    os.environ["GEMM_LESSONS_DEVICE"] = "compile" if options.what == "build" else "gpu"
    if options.what == "build":
        build(names)
        return
    for workload in options.workload or ["S"]:
        compare(workload, names, options.rounds)


if __name__ == "__main__":
    sys.exit(main())
