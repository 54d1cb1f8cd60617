"""The simulator in pytest: ``pytest_plugins = ["gemm_lessons.sim.pytest_plugin"]``.

Load it before anything imports ``numba.cuda``: in the top-level ``conftest.py``, or with
``pytest -p gemm_lessons.sim.pytest_plugin``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gemm_lessons import sim
from gemm_lessons.sim.report import Finding, Report, SimulatorError, last_report


def pytest_configure(config: Any) -> None:
    """Choose the simulator, before test modules are imported."""
    os.environ.setdefault("NUMBA_ENABLE_CUDASIM", "1")
    os.environ.setdefault("GEMM_LESSONS_DEVICE", "sim")
    sim.install()


class CheckedSimulator:
    """What the fixture ``cuda_sim`` gives to a test."""

    @property
    def report(self) -> Report:
        """Of the latest launch: findings, counts per line, spans."""
        return last_report()

    @staticmethod
    def configure(**changes: Any) -> None:
        """Change settings until the test ends; see :class:`gemm_lessons.sim.Settings`."""
        sim.configure(**changes)

    @staticmethod
    def findings(run: Callable[[], Any], seeds: int = 4) -> list[Finding]:
        """What several seeds find.

        Args:
            run: Launches a kernel. It is called once for each seed.
            seeds: Seeds 0 to ``seeds - 1`` are tried.

        Returns:
            The findings of the first seed that has any; empty if none has.
        """
        for seed in range(seeds):
            with sim.configured(seed=seed):
                try:
                    run()
                except SimulatorError as error:
                    return error.findings
        return []


@pytest.fixture
def cuda_sim() -> Iterator[CheckedSimulator]:
    """The checked simulator, with its default settings; changes end with the test."""
    with sim.configured(mode="checked", seed=0):
        yield CheckedSimulator()
