"""Would it compile? Numba's own type inference and compiler, in a process of their own, no GPU.

The simulator runs Python; a GPU runs what Numba makes of it. :func:`lint_file` runs the file with
every launch replaced by the compilation of that kernel for those arguments, and reports what the
compiler refuses and where float64 slips into a float32 kernel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gemm_lessons.sim.report import Finding, Place

#: Kinds of findings that only :func:`lint_file` gives.
LINT_KINDS = ("typing", "float64", "not compiled", "script")


class LintError(RuntimeError):
    """The compiler could not be run at all."""


def lint_file(
    path: str | Path,
    signatures: Mapping[str, Sequence[str]] | None = None,
    *,
    args: Sequence[str] = (),
    seconds: float = 120.0,
    compute_capability: tuple[int, int] = (9, 0),
) -> list[Finding]:
    """Compile the kernels of a file as a GPU would have them, and say what is wrong.

    Args:
        path: A Python file. It is run as a script: its launches say for which types its kernels
            are compiled, and nothing is executed on a device.
        signatures: Types for kernels that the file does not launch, by name, as Numba writes them:
            ``{"tiled": ["void(float32[:,:], float32[:,:], float32[:,:])"]}``.
        args: Command line of the script.
        seconds: Longest time to take.
        compute_capability: Of the GPU to compile for.

    Returns:
        Findings in the order of the source. ``kind`` is ``typing`` (Numba refuses the code),
        ``float64`` (a float32 kernel computes in float64), ``not compiled`` (a kernel is never
        launched and has no signature) or ``script`` (the file itself fails before its launches).

    Raises:
        LintError: Numba's compiler cannot be run here, or does not finish.
    """
    request = {
        "path": str(Path(path).resolve()),
        "signatures": {name: list(each) for name, each in (signatures or {}).items()},
        "args": list(args),
        "compute_capability": compute_capability,
    }
    environment = {
        **os.environ,
        "NUMBA_ENABLE_CUDASIM": "0",
        "GEMM_LESSONS_DEVICE": "compile",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "NO_COLOR": "1",
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "gemm_lessons.sim.compile_worker"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=environment,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LintError(f"compiling {path} took longer than {seconds:g} s") from None
    # why: the script may print; the answer is the last line.
    answer = done.stdout.rstrip("\n").rpartition("\n")[2]
    try:
        rows = json.loads(answer)
    except ValueError:
        raise LintError(
            f"Numba's compiler could not be run on {path}:\n{done.stderr.strip()[-2000:]}"
        ) from None
    return [
        Finding(
            row["kind"],
            row["message"],
            row["kernel"],
            Place(row["file"], row["line"], row["text"], row["kernel"]),
        )
        for row in rows
    ]
