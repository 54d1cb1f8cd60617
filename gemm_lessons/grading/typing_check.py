"""Would it compile for a GPU, and in float32?  Asked of Numba's compiler, in the background.

The simulator runs Python, which accepts much that a GPU's compiler does not; so the typing of every
kernel is a check of its own, also where there is no GPU.
"""

from __future__ import annotations

import importlib
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemm_lessons.grading.feedback import NotRunError

SECONDS = 60.0


class TypingCheck:
    """Starts the compiler at once and gives its findings when they are asked for.

    Args:
        source: the submission.
        signatures: the kernels' argument types, as Numba writes them.
    """

    def __init__(self, source: str, signatures: Mapping[str, tuple[str, ...]]) -> None:
        self._findings: list[Any] = []
        self._reason = ""
        self._thread = threading.Thread(target=self._run, args=(source, dict(signatures)), daemon=True)
        self._thread.start()

    def findings(self) -> list[Any]:
        """Wait for the compiler and return what it refuses or computes in float64.

        Raises:
            NotRunError: there is no compiler here.
        """
        self._thread.join(SECONDS + 5)
        if self._reason:
            raise NotRunError(self._reason)
        return self._findings

    def _run(self, source: str, signatures: dict[str, tuple[str, ...]]) -> None:
        try:
            lint = importlib.import_module("gemm_lessons.sim.lint")
        except ModuleNotFoundError:
            self._reason = "the simulator has no typing check here (gemm_lessons.sim.lint is missing)"
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "submission.py"
            copy.write_text(source, encoding="utf-8")
            try:
                self._findings = lint.lint_file(copy, signatures, seconds=SECONDS)
            except lint.LintError as error:
                self._reason = f"Numba's compiler could not be run here: {error}"
