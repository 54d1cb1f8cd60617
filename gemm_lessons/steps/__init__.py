"""The ladder: one step, one file, one idea, in order.

Every step exports the same names, so that any two can be read as a diff:

    Config, CONFIG, SIM_CONFIG   compile-time constants; for a GPU, and small ones for the simulator
    SIGNATURE                    the kernel's argument types
    make_kernel(config)          the kernel, its constants frozen in
    prepare(problem, ...)        buffers, packing, tile lists: all that happens before a launch
    launch(prepared, stream)     enqueues the step; allocates nothing

Tests, benchmarks, plots, notebooks and the command line read `STEPS`: a new step is one file and one line.
"""

from importlib import import_module
from types import ModuleType

from gemm_lessons import device

device.choose()  # before any step imports Numba

NAMES = (
    "padded",
    "naive",
    "concatenated",
    "tiled",
    "persistent",
    "masked",
)

# bfloat16 or float16 in, float32 sums: the same names, but other dtypes and larger tiles.
TENSOR_NAMES = ("tensor_core", "hopper", "decode")

# float8_e4m3fn with scales in (`quantize.QuantizedInputs`), float32 sums, bfloat16 out.
FP8_NAMES = ("tiled_fp8", "hopper_fp8", "decode")

STEPS: dict[str, ModuleType] = {name: import_module(f"{__name__}.{name}") for name in NAMES}
TENSOR_STEPS: dict[str, ModuleType] = {name: import_module(f"{__name__}.{name}") for name in TENSOR_NAMES}

FP8_STEPS: dict[str, ModuleType] = {name: import_module(f"{__name__}.{name}") for name in FP8_NAMES}


def steps_for(dtype: str) -> dict[str, ModuleType]:
    """The steps that compute in a dtype, in order."""
    if dtype == "float32":
        return STEPS
    if dtype == "float8_e4m3fn":
        return FP8_STEPS
    names = {"float16": ("tensor_core", "decode"), "bfloat16": TENSOR_NAMES}.get(dtype, ())
    return {name: TENSOR_STEPS[name] for name in names}
