"""cp.async: each thread asks for 16 bytes to be copied from global to shared memory, past the registers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gemm_lessons.ptx.instruction import instruction
from gemm_lessons.sim.registry import Context, InstructionError

PIECE_BYTES = 16


class _Copies:
    """One thread's copies: the open group, and the closed ones, oldest first."""

    def __init__(self) -> None:
        self.open: list[Any] = []
        self.groups: list[list[Any]] = []


def _copies(ctx: Context) -> _Copies:
    copies: _Copies = ctx.state("cp.async", _Copies, "thread")
    return copies


@instruction("cp.async.cg.shared.global [$0], [$1], 16, $2;", "r,l,r", "void(uint32,int64,int32)")
def cp_async_16(ctx: Any, destination: Any, source: Any, num_bytes: Any) -> None:
    """Start copying 16 bytes, of which only the first `num_bytes` are read; the others become zero.

    Any thread; compute capability 8.0 on.  PTX manual: cp.async.
    """
    if num_bytes not in (0, PIECE_BYTES):
        raise InstructionError("these kernels copy 16 bytes or write 16 zeros.")
    target, start, wanted = int(destination), int(source), int(num_bytes)

    def copy(agent: Context) -> None:
        content = agent.load(start, np.uint32, 4) if wanted else np.zeros(4, np.uint32)
        agent.store(target, content)

    _copies(ctx).open.append(ctx.later(copy, "the asynchronous copy"))


@instruction("cp.async.commit_group;", "", "void()")
def cp_async_commit(ctx: Any) -> None:
    """Close the group of this thread's copies since the last one; it may be empty.

    PTX manual: cp.async.commit_group.
    """
    copies = _copies(ctx)
    copies.groups.append(copies.open)
    copies.open = []


def _wait(most: int) -> Any:
    @instruction(f"cp.async.wait_group {most};", "", "void()")
    def cp_async_wait(ctx: Any) -> None:
        """Wait until at most so many of this thread's groups are unfinished.

        It says nothing about other threads' copies: a barrier does.  PTX manual: cp.async.wait_group.
        """
        groups = _copies(ctx).groups
        while len(groups) > most:
            for copy in groups.pop(0):
                ctx.join(copy, "an asynchronous copy")

    return cp_async_wait


#: cp_async_wait[n](): at most n groups are unfinished.
cp_async_wait = {n: _wait(n) for n in range(4)}
