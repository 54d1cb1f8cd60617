"""What every step does on the host before its first launch."""

from __future__ import annotations

from typing import Any

from gemm_lessons import device
from gemm_lessons.launch import quantized_to_device, start_of, to_device
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError
from gemm_lessons.quantize import (
    ROW_BLOCK,
    WEIGHT_BLOCK,
    Quantized,
    QuantizedInputs,
    check_quantized,
    draw_inputs,
)


class ConfigError(ValueError):
    """Compile-time constants that do not fit together; the message says which, and what to do."""


def begin(
    problem: GroupedProblem, inputs: Inputs | None, config: Any, on_gpu: Any, in_simulator: Any
) -> tuple[Any, Any, Any]:
    """Pick the configuration, check everything, and put the inputs on the device.

    Args:
        problem: what will be computed.
        inputs: host or device arrays; None draws random ones.
        config: the caller's choice, or None for the step's own.
        on_gpu: the step's `CONFIG`.
        in_simulator: the step's `SIM_CONFIG`.

    Returns:
        The configuration, and x and w on the device.

    Raises:
        ConfigError: the configuration does not fit.
        ProblemError: the step does not take this dtype, or the inputs do not match the problem.
    """
    config = config or (on_gpu if device.choose().is_gpu else in_simulator)
    config.validate(problem)
    inputs = inputs or problem.inputs()
    on_device = Inputs(to_device(inputs.x), to_device(inputs.w))
    problem.check_inputs(on_device)
    return config, *on_device


def begin_quantized(
    problem: GroupedProblem, inputs: QuantizedInputs | None, config: Any, on_gpu: Any, in_simulator: Any
) -> tuple[Any, Quantized, Quantized]:
    """`begin` for FP8: values and scales of x and w on the device.

    Args:
        problem: what will be computed.
        inputs: host or device arrays, in one of the two recipes; None quantises random ones.
        config: the caller's choice, or None for the step's own.
        on_gpu: the step's configuration for this GPU.
        in_simulator: the step's `SIM_CONFIG`.

    Raises:
        ConfigError: the configuration does not fit.
        ProblemError: the step does not take this dtype, or the inputs do not match the problem.
    """
    config = config or (on_gpu if device.choose().is_gpu else in_simulator)
    config.validate(problem)
    if inputs is None:
        inputs = draw_inputs(problem)  # type: ignore[assignment]
    if not isinstance(inputs, QuantizedInputs):
        raise ProblemError("FP8 inputs need scales: use `quantize.quantize_inputs`")
    whole_rows = (1, problem.K), (1, problem.K)
    if (inputs.x.block, inputs.w.block) not in ((ROW_BLOCK, WEIGHT_BLOCK), whole_rows):
        raise ProblemError(
            f"scales are given for blocks of {inputs.x.block} of x and {inputs.w.block} of w: use"
            f" {ROW_BLOCK} and {WEIGHT_BLOCK}, or whole rows for both"
        )
    on_device = QuantizedInputs(*(quantized_to_device(one) for one in inputs))
    check_quantized(problem, on_device)
    return config, *on_device


def require_float32(problem: GroupedProblem) -> None:
    """Refuse what the float32 steps of the ladder do not take.

    Raises:
        ProblemError: naming the dtype and the steps that take it.
    """
    if problem.dtype != "float32":
        raise ProblemError(
            f"this step computes in float32 and the problem is {problem.dtype}:"
            " use a tensor-core step for 16-bit and 8-bit inputs"
        )


def require_power_of_two(**extents: int) -> None:
    """Refuse extents that are not powers of two.

    Raises:
        ConfigError: naming the first one that is not.
    """
    for name, extent in extents.items():
        if extent < 1 or extent & (extent - 1):
            raise ConfigError(f"{name} is {extent}: use a power of two, such as 16, 32 or 64")


def require_aligned(num_bytes: int, **arrays: Any) -> None:
    """Refuse device arrays that begin where the kernel's accesses may not.

    A GPU answers a misaligned access by ending every kernel of the process from then on.

    Raises:
        ProblemError: naming the first such array and its address.
    """
    for name, array in arrays.items():
        address = start_of(array)
        if address % num_bytes:
            raise ProblemError(
                f"{name} begins at address {address:#x}, which is not a multiple of {num_bytes}:"
                " give it memory of its own, not a part of a larger array"
            )


def require_block_size(num_threads: int) -> None:
    """Refuse a block that no GPU takes.

    Raises:
        ConfigError: with the number of threads.
    """
    if not 1 <= num_threads <= 1024:
        raise ConfigError(f"a block would have {num_threads} threads: a GPU takes 1 to 1024")
