"""The process that submissions run in, started by `runner`.

In the simulator it is a warm template: it imports Numba once, never runs a submission itself, and forks
a child for every job.  On a GPU a process that has used CUDA must not fork, so there it does the jobs
itself, one submission only, and `runner` replaces it after a crash.

Each job comes with a socket of its own, so that a child that outlives its job cannot answer another one.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import types
from pathlib import Path
from typing import Any

from gemm_lessons import device
from gemm_lessons.grading import jobs, protocol
from gemm_lessons.grading.confine import limit_resources, watch
from gemm_lessons.grading.rules import INSTRUCTIONS

MEMORY_BYTES = 2 << 30
KEPT = ("device", "grading", "ptx", "sim")  # parts of the package that hold no answers
PACKAGE = Path(__file__).resolve().parent.parent


def main(control_fd: int) -> None:
    """Serve jobs until the grader closes the control socket."""
    control = socket.socket(fileno=control_fd)
    simulated = not device.choose().is_gpu
    _warm_up()
    modules: dict[str, types.ModuleType] = {}
    gc.collect()
    gc.freeze()  # why: a collection in a child would touch, and so copy, every page of the template
    protocol.send(control, {"ready": True, "device": device.choose().name})
    while True:
        with contextlib.suppress(protocol.ClosedError):
            reply = _next(control)
            if reply is None:
                return
            if simulated:
                _fork_for(control, reply)
            else:
                protocol.send(control, {"pid": os.getpid()})
                _do(reply, modules, simulated=False)
                reply.close()


def _next(control: socket.socket) -> socket.socket | None:
    """The socket of the next job, or None when the grader has closed."""
    message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
    if not message or not descriptors:
        return None
    return socket.socket(fileno=descriptors[0])


def _fork_for(control: socket.socket, reply: socket.socket) -> None:
    while True:  # collect children that have ended
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    child = os.fork()
    if child:
        reply.close()
        protocol.send(control, {"pid": child})
        return
    try:
        os.setsid()
        control.close()
        _do(reply, {}, simulated=True)
    finally:
        os._exit(0)


def _do(reply: socket.socket, modules: dict[str, types.ModuleType], *, simulated: bool) -> None:
    reply.settimeout(None)
    job = protocol.receive(reply)
    if simulated or not modules:
        refusals = _confine(job, simulated)
    else:
        refusals = []
    signal.signal(signal.SIGALRM, _alarm)
    signal.signal(signal.SIGPROF, _alarm)
    if simulated:  # why two: a busy machine must not fail what is right, and what sleeps computes nothing
        signal.setitimer(signal.ITIMER_PROF, job["seconds"])
        signal.setitimer(signal.ITIMER_REAL, protocol.PATIENCE * job["seconds"])
    else:
        signal.setitimer(signal.ITIMER_REAL, job["seconds"])
    try:
        answer = jobs.run(job, modules, simulated=simulated)
    finally:
        for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
    answer["refusals"] = list(refusals)
    try:
        protocol.send(reply, answer)
    except protocol.ProtocolError as error:
        answer["value"] = None
        answer["status"] = "unsendable"
        answer["error"] = {"type": "value", "message": str(error), "line": 0, "text": ""}
        protocol.send(reply, answer)


def _confine(job: dict[str, Any], simulated: bool) -> list[str]:
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    refusals: list[str] = []
    readable: tuple[str, ...] = (
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        str(PACKAGE / "sim"),
        str(PACKAGE / "grading"),
    )
    readable += tuple(str(Path(module.__file__).parent) for module in (os, _numba()) if module.__file__)
    limit_resources(MEMORY_BYTES if simulated else None, int(job["seconds"] * (2 if simulated else 100)) + 5)
    watch(refusals.append, (*readable, job["path"], "/proc/self", "/usr/share/zoneinfo"), files=simulated)
    return refusals


def _numba() -> types.ModuleType:
    import numba

    module: types.ModuleType = numba
    return module


def _alarm(*_: Any) -> None:
    raise jobs.OutOfTime("the time limit has passed")


def _warm_up() -> None:
    """Run a kernel, so that everything that launches need is imported before anything is confined."""
    import numpy as np
    from numba import cuda

    for name in sorted(INSTRUCTIONS):
        importlib.import_module(name)  # an exercise may import it
    _forget_answers()

    @cuda.jit
    def warm_up(y):
        y[cuda.grid(1)] = 1

    warm_up[1, 1](cuda.to_device(np.zeros(1, np.float32)))
    cuda.synchronize()


def _forget_answers() -> None:
    """Let no submission import what instructions brought along, such as `gemm_lessons.problem`.

    Its file cannot be read once a submission is confined, but a module that is known needs no file.
    """
    package = sys.modules["gemm_lessons"]
    for name in list(sys.modules):
        top, _, below = name.partition(".")
        if top == "gemm_lessons" and below and below.partition(".")[0] not in KEPT:
            del sys.modules[name]
            vars(package).pop(below, None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
