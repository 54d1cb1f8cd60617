"""What a submission's process may not do, second line: limits and an audit hook.

The first line is `rules`, which reads the source before it runs; the wall is that the process knows no
expected value and that its answers are data.  Python is no sandbox: see `docs/grading.md`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORBIDDEN_EVENTS = (
    "os.fork",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "os.kill",
    "os.remove",
    "os.rename",
    "os.truncate",
    "os.putenv",
    "pty.spawn",
    "shutil.",
    "signal.pthread_kill",
    "socket.connect",
    "socket.bind",
    "socket.sendmsg",
    "socket.sendto",
    "subprocess.Popen",
    "gc.get_objects",
    "gc.get_referrers",
    "gc.get_referents",
    "cpython.run_",
)

FORBIDDEN_MODULES = (
    "torch",
    "cupy",
    "jax",
    "scipy",
    "tensorflow",
    "solutions",
    "exercises",
    "gemm_lessons.steps",
    "gemm_lessons.reference",
    "gemm_lessons.compare",
    "gemm_lessons.grouped_gemm",
    "gemm_lessons.moe",
    "gemm_lessons.grading",
)


class Refused(BaseException):
    """The submission tried something that the grader does not allow; no `except Exception` hides it."""


def limit_resources(memory_bytes: int | None, cpu_seconds: int) -> None:
    """Set limits that the process cannot lift again.

    Args:
        memory_bytes: address space beyond what is in use now; None on a GPU, where the driver
            reserves far more addresses than memory.
        cpu_seconds: of this process.
    """
    import resource

    def at_most(what: int, amount: int) -> None:
        _, most = resource.getrlimit(what)
        amount = amount if most == resource.RLIM_INFINITY else min(amount, most)
        resource.setrlimit(what, (amount, amount))

    at_most(resource.RLIMIT_CORE, 0)
    at_most(resource.RLIMIT_CPU, cpu_seconds)
    if memory_bytes is not None:
        at_most(resource.RLIMIT_FSIZE, 0)  # why not on a GPU: the compiler's cache is files
        at_most(resource.RLIMIT_AS, _address_space() + memory_bytes)


def _address_space() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 4 << 30  # no /proc: macOS, where RLIMIT_AS is not enforced either
    return pages * os.sysconf("SC_PAGE_SIZE")


def watch(report: Callable[[str], None], readable: tuple[str, ...], *, files: bool) -> None:
    """Refuse what `FORBIDDEN_EVENTS` and `FORBIDDEN_MODULES` name, from now on and for ever.

    Args:
        report: told one sentence for each refusal, also where the submission swallows the exception.
        readable: path prefixes that may be read.
        files: refuse every other file, and all writing.
    """

    def refuse(sentence: str) -> None:
        report(sentence)
        raise Refused(sentence)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN_EVENTS):
            refuse(f"the submission called {event}, which no exercise needs")
        elif event == "import":
            name = str(arguments[0])
            if any(name == module or name.startswith(f"{module}.") for module in FORBIDDEN_MODULES):
                refuse(f"the submission imports {name}: write the answer yourself")
        elif event == "open" and files:
            path, mode = arguments[0], arguments[1]
            if isinstance(path, int):
                return
            writes = isinstance(mode, str) and set(mode) & set("wax+")
            if writes or not os.path.abspath(os.fsdecode(path)).startswith(readable):
                refuse(f"the submission opens the file {os.fsdecode(path)!r}, which no exercise needs")

    sys.addaudithook(hook)
