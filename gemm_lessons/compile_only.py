"""Compile kernels for GPUs that are not there, and read what ptxas says about them.

The whole compiler runs without a driver: Numba and NVVM make LTO-IR, nvJitLink makes machine code.
Needs `GEMM_LESSONS_DEVICE=compile` and the compiler's wheels (extra `cu13` or `cu12`).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gemm_lessons import device

# Performance warnings of ptxas: setmaxnreg ignored, or wgmma serialised, for one of many reasons.
PTXAS_WARNING = r"\((C75\d\d)\)"


@dataclass(frozen=True)
class Compiled:
    """One kernel as machine code.

    Attributes:
        ptx: before linking and link-time optimisation; empty if it was not asked for.
        cubin: the machine code.
        log: what ptxas printed.
        registers: per thread.
        spill_bytes: stored to and loaded from local memory because registers ran out.
        stack_bytes: local memory per thread; 0 if every local array lives in registers.
        shared_bytes: static shared memory per block.
        warnings: performance warnings, by code.
    """

    ptx: str
    cubin: bytes
    log: str
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int
    warnings: tuple[str, ...]


def missing() -> str:
    """Why nothing can be compiled here, in one sentence; empty if it can."""
    if device.choose().kind == "sim":
        return "Numba is in simulator mode: set GEMM_LESSONS_DEVICE=compile in a process of its own"
    try:
        from cuda.core import Linker  # noqa: F401
        from cuda.pathfinder import load_nvidia_dynamic_lib

        for library in ("nvvm", "nvJitLink", "nvrtc"):
            load_nvidia_dynamic_lib(library)
    except (ImportError, RuntimeError, OSError) as error:
        return f"the CUDA compiler's wheels are missing (pip install 'gemm-lessons[cu13]'): {error}"
    return ""


def count_instructions(cubin: bytes, nvdisasm: str) -> Counter[str]:
    """How many times each instruction of the machine stands in a kernel, by its name, such as HGMMA.

    Raises:
        subprocess.CalledProcessError: the disassembler does not know this machine code.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text = subprocess.run([nvdisasm, str(path)], check=True, capture_output=True, text=True).stdout
    return Counter(re.findall(r"^ +/\*[0-9a-f]{4,}\*/ +(?:@!?U?P[0-9T]+ +)?([A-Z0-9]+)", text, re.MULTILINE))


def compile_kernel(
    kernel: Any, signature: str, compute_capability: tuple[int, int] = (9, 0), *, ptx: bool = True
) -> Compiled:
    """Compile what `@cuda.jit` made for a compute capability, with the options it was given.

    Args:
        kernel: a Numba dispatcher; its launch_bounds and fastmath are honoured.
        signature: Numba signature of the arguments.
        compute_capability: (major, minor); 9.0 compiles for sm_90a.
        ptx: also keep the PTX, which takes a second run of the compiler.

    Returns:
        The machine code and its resources.
    """
    from cuda.core import Linker, LinkerOptions, ObjectCode
    from numba import cuda
    from numba.cuda import dispatcher

    target: tuple[Any, ...] = compute_capability
    if compute_capability >= (9, 0):
        target = (*compute_capability, "a")  # why: wgmma and setmaxnreg exist on sm_90a only
    # why: compiling a device function asks the current GPU for its compute capability.
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=target)
    options = {
        name: kernel.targetoptions[name]
        for name in ("launch_bounds", "fastmath")
        if kernel.targetoptions.get(name)
    }

    def compile_to(output: str) -> Any:
        code, _ = cuda.compile(
            kernel.py_func, signature, cc=target, device=False, abi="numba", output=output, **options
        )
        return code

    architecture = "sm_" + "".join(map(str, target))
    linker = Linker(
        ObjectCode.from_ltoir(compile_to("ltoir")),
        options=LinkerOptions(arch=architecture, ptxas_options=["-v"], link_time_optimization=True),
    )
    cubin = bytes(linker.link("cubin").code)
    log = linker.get_info_log()

    def number(pattern: str) -> int:
        return max((int(found) for found in re.findall(pattern, log)), default=0)

    return Compiled(
        ptx=compile_to("ptx") if ptx else "",
        cubin=cubin,
        log=log,
        registers=number(r"Used (\d+) registers"),
        spill_bytes=number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        stack_bytes=number(r"(\d+) bytes stack frame"),
        shared_bytes=number(r"(\d+) bytes smem"),
        warnings=tuple(sorted(set(re.findall(PTXAS_WARNING, log)))),
    )
