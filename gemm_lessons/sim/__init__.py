"""The checked simulator: runs Numba CUDA kernels without a GPU and says what is wrong with them.

Importing this package imports neither Numba nor the engine; :func:`install` does. See ``README.md``
beside this file.
"""

from __future__ import annotations

from typing import Any

from gemm_lessons.sim.report import SimulatorError, last_report
from gemm_lessons.sim.settings import Settings, configure, configured, settings

__all__ = [
    "Settings",
    "SimulatorError",
    "address_of",
    "configure",
    "configured",
    "explain_refusal",
    "install",
    "last_report",
    "launch",
    "settings",
]

_LAZY = {"install": "hooks", "address_of": "hooks", "launch": "launching", "explain_refusal": "refusal"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
