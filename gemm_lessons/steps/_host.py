"""What every step does on the host before its first launch."""

from __future__ import annotations

from typing import Any

from gemm_lessons import device
from gemm_lessons.launch import to_device
from gemm_lessons.problem import GroupedProblem, Inputs, ProblemError


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


def require_block_size(num_threads: int) -> None:
    """Refuse a block that no GPU takes.

    Raises:
        ConfigError: with the number of threads.
    """
    if not 1 <= num_threads <= 1024:
        raise ConfigError(f"a block would have {num_threads} threads: a GPU takes 1 to 1024")
