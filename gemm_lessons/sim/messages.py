"""The sentences that a student reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gemm_lessons.sim.recorder import ATOMIC, READ
from gemm_lessons.sim.report import Actor, Place

_VERBS = {READ: "reads", ATOMIC: "updates atomically"}


def verb(kind: int) -> str:
    """What an access does."""
    return _VERBS.get(kind, "writes")


def bounds(place: Place, space: str, name: str, shape: Sequence[int], index: Any, who: Any) -> str:
    """An index outside its array."""
    indices = index if isinstance(index, tuple) else (index,)
    axis = next((a for a, i in enumerate(indices) if isinstance(i, int) and not 0 <= i < shape[a]), 0)
    size, at = shape[axis], int(indices[axis])
    if at < 0:
        consequence = (
            f"Numba wraps it like Python, so a GPU would silently use element {at + size}"
            if at >= -size
            else "On a GPU this silently reads or overwrites other memory"
        )
        advice = "test the index before the access"
    else:
        consequence = "On a GPU this silently reads or overwrites other memory"
        advice = "guard the access with 'if', and check the size of the grid and the array's shape"
    return (
        f"index {at} is outside axis {axis} (size {size}) of {space} array {_quoted(name)} in "
        f"'{place.text}', line {place.line}; {who}. {consequence}: {advice}."
    )


def uninitialized(place: Place, space: str, name: str, index: Any, who: Any) -> str:
    """A read of memory that nobody has written."""
    shown = index[0] if isinstance(index, tuple) and len(index) == 1 else index
    return (
        f"'{place.text}' at line {place.line} reads {space} array {_quoted(name)} at {shown} "
        f"before anything was written there; {who}. {space.capitalize()} memory starts "
        "with whatever was left in it: set every element before it is read (also the ones past "
        "the edge of a tile)."
    )


def race(
    element: str,
    first: tuple[int, Place, Actor],
    second: tuple[int, Place, Actor],
    kernel: str,
) -> str:
    """Two accesses that nothing orders."""
    lines = [f"data race on {element} in kernel '{kernel}':"]
    lines += [f"    {who} {verb(kind)} it at {place}" for kind, place, who in (first, second)]
    lines.append("    " + _race_advice(first, second))
    return "\n".join(lines)


def unfenced(element: str, write: tuple[Place, Actor], read: tuple[Place, Actor], kernel: str) -> str:
    """A write of a thread that an asynchronous agent need not see."""
    (writer_place, writer), (reader_place, reader) = write, read
    return (
        f"missing proxy fence on {element} in kernel '{kernel}':\n"
        f"    {writer} writes it at {writer_place}\n"
        f"    {reader} reads it at {reader_place}\n"
        "    A barrier orders these two, and yet the copy engine and the tensor cores may read what lay"
        " there before: they see a thread's writes after a fence_proxy_async only. Every writer calls it"
        " behind its writes, before the barrier."
    )


def nobody_waited(name: str, place: Place) -> str:
    """Asynchronous work that outlives its block."""
    return (
        f"a block ends, and nobody has waited for {name} started at {place}: it may still read shared"
        " memory that is no longer the block's. The thread that committed it waits before it returns"
        " (tma_store_wait_read[0]() or tma_store_wait[0]())."
    )


def _race_advice(first: tuple[int, Place, Actor], second: tuple[int, Place, Actor]) -> str:
    kinds = {first[0], second[0]}
    one, two = first[2], second[2]
    if one.thread is None or two.thread is None:
        return (
            "The copy runs on its own: nothing orders these two. Wait for the copy's barrier or "
            "group before using its destination, and do not touch (or refill) a buffer before "
            "everybody who uses it has said so."
        )
    if one.block != two.block:
        if ATOMIC in kinds:
            return (
                "The plain access does not wait for the atomic one. Use the atomic on both sides, "
                "or hand the data over with cuda.threadfence() and a flag that is set and read "
                "atomically."
            )
        return (
            "Different blocks are not ordered by syncthreads(). Use an atomic, give each block its "
            "own elements, or hand over with cuda.threadfence() before an atomic flag."
        )
    if ATOMIC in kinds:
        return (
            "No syncthreads() lies between them. An atomic is no barrier: put cuda.syncthreads() "
            "between the atomic updates and the plain access."
        )
    if READ not in kinds:
        return (
            "Both write, with no syncthreads() between. If the result needs both, use "
            "cuda.atomic; else let one thread write, or put cuda.syncthreads() between."
        )
    if first[1] == second[1]:
        return "One thread's update can get lost. Use cuda.atomic, or give each thread its own element."
    return (
        "No syncthreads() lies between them: put cuda.syncthreads() between the write and the read "
        "(in a loop, also between this round's read and the next round's write)."
    )


def early_exit(place: Place, block: Any, waiting: int, gone: int, example: Any) -> str:
    """A barrier that some threads have avoided by returning."""
    return (
        f"'{place.text}' at line {place.line} is not reached by all threads of block {block}: "
        f"{waiting} wait there, {gone} have already returned (first: {example}). On a GPU this is "
        "undefined: it may hang or go wrong. Do not return before a barrier, nor put one into a "
        "branch that only some threads take: guard the work with 'if', not the barrier."
    )


def different_barriers(block: Any, groups: Sequence[tuple[int, Any, Place]]) -> str:
    """Threads of a block that wait at different barriers."""
    lines = [f"threads of block {block} wait at different barriers:"]
    lines += [f"    {count} thread(s), e.g. {example}, at {place}" for count, example, place in groups]
    lines.append(
        "    Every thread of a block must execute the same syncthreads(): move it out of the "
        "branch or loop that only some threads take."
    )
    return "\n".join(lines)


def missing_lanes(name: str, place: Place, who: Any, here: int, missing: Sequence[str]) -> str:
    """A collective without some of its lanes."""
    return (
        f"{name} at {place} needs lanes that do not come; {who}: {here} lane(s) wait there, "
        f"{'; '.join(missing)}. Every lane that a warp function names must execute it: move it out "
        "of the branch, or name fewer lanes in the mask."
    )


def stuck(title: str, groups: Sequence[tuple[int, Any, str]], gone: int) -> str:
    """Nobody can continue."""
    lines = [title]
    lines += [f"    {count} thread(s), e.g. {example}, {reason}" for count, example, reason in groups]
    if gone:
        lines.append(f"    {gone} thread(s) have returned")
    return "\n".join(lines)


def _quoted(name: str) -> str:
    return f"'{name}'" if name else "(unnamed)"
