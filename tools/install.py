"""Make .venv and install what a Makefile target needs; does nothing when that was done before.

    python3 tools/install.py --for demo|test|lab|gpu [--with EXTRA] [--venv .venv] [--dry-run]

Standard library only.  The NVIDIA driver, if there is one, decides which CUDA wheels are installed:
cu13 for a driver that runs CUDA 13, cu12 for one that runs CUDA 12.  Without a driver none are needed,
except by the tests on Linux: the compile gate compiles every kernel for real GPUs, and that takes none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parent.parent
STAMP = "gemm-lessons.json"

TARGETS = {
    "demo": (),
    "test": ("dev",),
    "lab": ("lab",),
    "gpu": ("dev",),
}


class InstallError(RuntimeError):
    """Something that stops the installation, and what to do about it."""


def newer_python() -> str | None:
    """A Python on PATH that is new enough, if this one is not."""
    for minor in range(14, OLDEST_PYTHON[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and not subprocess.run([found, "-c", ""], capture_output=True).returncode:
            return found
    return None


def driver_cuda() -> tuple[int, int] | None:
    """The CUDA version that the driver of a usable GPU runs, or None."""
    sys.path.insert(0, str(ROOT))
    from gemm_lessons.device import DeviceError, probe_gpu, why_unusable

    try:
        gpu, _ = probe_gpu()
    except DeviceError:
        return None
    return gpu.driver if gpu and not why_unusable(gpu) else None


def choose_extras(target: str, system: str, driver: tuple[int, int] | None, wanted: list[str]) -> list[str]:
    """Extras of pyproject.toml for a target on this platform.

    Args:
        target: one of `TARGETS`.
        system: as `platform.system()` says it.
        driver: CUDA version that the driver runs, None without a usable GPU.
        wanted: what the user asks for besides.

    Returns:
        Names of extras, sorted.
    """
    extras = {*TARGETS[target], *wanted}
    if driver and driver >= (13, 0):
        extras.add("cu13")
    elif driver:
        extras.add("cu12")
    elif target == "test" and system == "Linux":
        extras.add("cu13")
    return sorted(extras)


def fingerprint() -> str:
    """Changes when the dependencies or this interpreter change."""
    about = (ROOT / "pyproject.toml").read_bytes() + sys.version.encode() + str(ROOT).encode()
    return hashlib.sha256(about).hexdigest()


def read_stamp(venv: Path) -> dict[str, object]:
    """What was installed into a virtual environment before; empty if nothing is known."""
    try:
        found = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def python_of(venv: Path) -> Path:
    """The interpreter of a virtual environment."""
    return venv / ("Scripts/python.exe" if platform.system() == "Windows" else "bin/python")


def run(command: list[str], failure: str) -> None:
    """Run a command and show its output.

    Raises:
        InstallError: the command failed.
    """
    if subprocess.run(command, cwd=ROOT).returncode:
        raise InstallError(failure)


def install(venv: Path, extras: list[str]) -> None:
    """Make the virtual environment if need be, and install the package with these extras.

    Raises:
        InstallError: the environment cannot be made, or pip failed.
    """
    stamp = read_stamp(venv)
    known = stamp.get("extras")
    before = known if isinstance(known, list) and stamp.get("fingerprint") == fingerprint() else []
    if "fingerprint" in stamp and stamp["fingerprint"] == fingerprint() and set(extras) <= set(before):
        return
    extras = sorted({*extras, *before})
    if not python_of(venv).exists():
        print(f"making {venv}", flush=True)
        run(
            [sys.executable, "-m", "venv", str(venv)],
            f"{sys.executable} cannot make a virtual environment: install its venv module"
            " (on Debian and Ubuntu: apt install python3-venv)",
        )
    what = f".[{','.join(extras)}]" if extras else "."
    print(f"installing gemm-lessons{what[1:]} (a few minutes the first time)", flush=True)
    pip = [str(python_of(venv)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--editable", what], "pip failed: its last lines say why (is there a network?)")
    done = {"fingerprint": fingerprint(), "extras": extras}
    (venv / STAMP).write_text(json.dumps(done), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Parse the command line and install; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--for", dest="target", choices=TARGETS, default="demo")
    parser.add_argument("--with", dest="wanted", action="append", default=[], metavar="EXTRA")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be installed")
    options = parser.parse_args(arguments)
    if sys.version_info < OLDEST_PYTHON:
        newer = newer_python()
        if newer is None:
            print(
                f"error: Python 3.11 or newer is needed, this is {platform.python_version()}", file=sys.stderr
            )
            return 2
        os.execv(newer, [newer, __file__, *arguments])
    extras = choose_extras(options.target, platform.system(), driver_cuda(), options.wanted)
    if options.dry_run:
        print(" ".join(extras))
        return 0
    try:
        install(options.venv, extras)
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
