"""Run a script or a module in the checked simulator.

    python -m gemm_lessons.sim script.py ARGS
    python -m gemm_lessons.sim -m MODULE ARGS

Nothing in the script has to change. A finding that the script does not catch ends it: the finding
goes to stderr, without a traceback of the simulator, and the exit code is 1. Settings are the
environment variables GEMM_LESSONS_SIM, GEMM_LESSONS_SIM_SEED and so on.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from gemm_lessons.sim.report import SimulatorError


def main(argv: list[str]) -> int:
    """Run what the command line names.

    Returns:
        The exit code: 0, 1 after a finding, 2 for a wrong command line.
    """
    if not argv or argv[0] in ("-h", "--help") or (argv[0] == "-m" and len(argv) < 2):
        print(__doc__.strip(), file=sys.stdout if argv[:1] in (["-h"], ["--help"]) else sys.stderr)
        return 0 if argv[:1] in (["-h"], ["--help"]) else 2
    # why: Numba chooses between hardware and simulator when it is imported.
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    os.environ.setdefault("GEMM_LESSONS_DEVICE", "sim")
    from gemm_lessons.sim.hooks import install

    install()
    try:
        if argv[0] == "-m":
            sys.argv = argv[1:]
            sys.path.insert(0, os.getcwd())
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        else:
            if not Path(argv[0]).exists():
                print(f"no such file: {argv[0]}", file=sys.stderr)
                return 2
            sys.argv = argv
            sys.path.insert(0, str(Path(argv[0]).resolve().parent))
            runpy.run_path(argv[0], run_name="__main__")
    except SimulatorError as error:
        print(_report(error), file=sys.stderr)
        return 1
    return 0


def _report(error: SimulatorError) -> str:
    finding = error.findings[0] if error.findings else None
    where = f"{finding.place.file}: " if finding and finding.place.file else ""
    return f"{where}{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
