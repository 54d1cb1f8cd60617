"""The simulated device and how it is run: environment variables, and :func:`configure`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

PREFIX = "GEMM_LESSONS_SIM"


@dataclass(frozen=True)
class Settings:
    """What can be set, each also as an environment variable.

    Attributes:
        mode: ``GEMM_LESSONS_SIM``: ``checked`` (all checks), ``plain`` (same results, several
            times faster, hardly any checks) or ``stock`` (Numba's own simulator).
        seed: ``GEMM_LESSONS_SIM_SEED``: 0 runs threads in order and switches at barriers and
            atomics; any other number shuffles them and switches anywhere.
        sms: ``GEMM_LESSONS_SIM_SMS``: number of virtual SMs.
        blocks_per_sm: ``GEMM_LESSONS_SIM_BLOCKS_PER_SM``: blocks that share an SM at a time;
            more are admitted, as on a GPU, when all of these wait for one that has not started.
        compute_capability: ``GEMM_LESSONS_SIM_CC``, as ``9.0``.
        seconds: ``GEMM_LESSONS_SIM_SECONDS``: longest time that a launch may take.
        slice_seconds: ``GEMM_LESSONS_SIM_SLICE_SECONDS``: longest time that one thread may run
            without a barrier, an atomic or its end. Longer is called an endless loop.
        spins: ``GEMM_LESSONS_SIM_SPINS``: rounds in which every thread only repeats a failing
            atomic before that is called a deadlock.
        max_findings: ``GEMM_LESSONS_SIM_MAX_FINDINGS``: a launch stops after so many.
        counters: ``GEMM_LESSONS_SIM_COUNTERS``: count sectors and bank conflicts (checked mode).
        shared_bytes: ``GEMM_LESSONS_SIM_SHARED_BYTES``: shared memory per block with opt-in.
    """

    mode: str = "checked"
    seed: int = 0
    sms: int = 8
    blocks_per_sm: int = 1
    compute_capability: tuple[int, int] = (9, 0)
    seconds: float = 60.0
    slice_seconds: float = 10.0
    spins: int = 50
    max_findings: int = 5
    counters: bool = True
    shared_bytes: int = 227 * 1024

    #: Shared memory in bytes that needs no opt-in, and that static arrays may use.
    STATIC_SHARED_BYTES = 48 * 1024
    MAX_THREADS = 1024
    WARP = 32
    THREADS_PER_SM = 2048
    BLOCKS_PER_SM_LIMIT = 32

    def __post_init__(self) -> None:
        if self.mode not in ("checked", "plain", "stock"):
            raise ValueError(f"{PREFIX} is {self.mode!r}; it can be checked, plain or stock")
        for name in ("sms", "blocks_per_sm", "max_findings"):
            if getattr(self, name) < 1:
                raise ValueError(f"the simulator's {name} must be at least 1")


_ENVIRONMENT = {
    "mode": PREFIX,
    "compute_capability": f"{PREFIX}_CC",
    **{
        name: f"{PREFIX}_{name.upper()}"
        for name in (f.name for f in fields(Settings))
        if name not in ("mode", "compute_capability")
    },
}


def _parse(name: str, text: str) -> Any:
    default = getattr(Settings, name)
    try:
        if isinstance(default, bool):
            return {"0": False, "1": True}[text]
        if isinstance(default, tuple):
            major, minor = text.split(".")
            return int(major), int(minor)
        return type(default)(text)
    except (ValueError, KeyError):
        raise ValueError(f"{_ENVIRONMENT[name]}={text!r} is not like {default!r}") from None


def from_environment(environ: Any = os.environ) -> Settings:
    """Read the settings from environment variables.

    Raises:
        ValueError: One of them cannot be understood.
    """
    return Settings(
        **{
            name: _parse(name, environ[variable])
            for name, variable in _ENVIRONMENT.items()
            if environ.get(variable)
        }
    )


_current: Settings | None = None


def settings() -> Settings:
    """The settings in force."""
    global _current
    if _current is None:
        _current = from_environment()
    return _current


def configure(**changes: Any) -> Settings:
    """Change settings for the launches that follow.

    Args:
        **changes: Fields of :class:`Settings`.

    Returns:
        The settings now in force.

    Raises:
        ValueError: A value is out of range.
    """
    global _current
    _current = replace(settings(), **changes)
    return _current


@contextmanager
def configured(**changes: Any) -> Iterator[Settings]:
    """:func:`configure`, undone at the end of a ``with`` block."""
    global _current
    before = settings()
    try:
        yield configure(**changes)
    finally:
        _current = before
