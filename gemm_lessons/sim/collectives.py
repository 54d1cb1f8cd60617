"""Threads that wait for each other: barriers, warp functions, and instructions of several lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gemm_lessons.sim import messages
from gemm_lessons.sim.clocks import Clock, join
from gemm_lessons.sim.report import Place
from gemm_lessons.sim.sites import call_path, kernel_frame, place_of
from gemm_lessons.sim.threads import Block, CallPath, Meeting, Thread

if TYPE_CHECKING:
    from gemm_lessons.sim.engine import Engine

FULL_MASK = 0xFFFFFFFF
Resolve = Callable[[list[Thread], list[Any]], Sequence[Any]]


def path_place(path: CallPath) -> Place:
    """Where the innermost call of a path is."""
    return place_of(*path[0]) if path else Place()


# --- barriers -----------------------------------------------------------------------------------


def barrier(engine: Engine, value: Any = None) -> list[Any]:
    """Wait for all threads of the block.

    Args:
        engine: Runs the launch.
        value: What this thread brings.

    Returns:
        What all threads brought.
    """
    thread = engine.cur
    block = thread.block
    thread.path = call_path(kernel_frame(2))
    block.at_barrier[thread] = value
    if len(block.at_barrier) == block.alive:
        pass_barrier(engine, block)
        block.ready.remove(thread)
        engine.enter(thread)
        return thread.result
    thread.waits = "waits at {}"
    engine.switch()
    return thread.result


def pass_barrier(engine: Engine, block: Block) -> None:
    """Let the threads that wait at a barrier go on, if it is one barrier, and all are there."""
    waiting = list(block.at_barrier)
    path = waiting[0].path
    if any(thread.path != path for thread in waiting):
        _report_different(engine, block, waiting)
    gone = len(block.threads) - block.alive
    if gone:
        first = next(thread for thread in block.threads if thread.done)
        place = path_place(path)
        engine.find(
            "barrier",
            messages.early_exit(place, block.index, len(waiting), gone, f"thread {first.index}"),
            place,
            waiting[0].actor,
        )
    brought = list(block.at_barrier.values())
    block.at_barrier.clear()
    block.epoch += 1
    engine.report.barriers += 1
    engine.progress += 1
    if engine.checked:
        clock = _barrier_clock(block, waiting)
        for thread in waiting:
            thread.learn(clock)
        _share_fences(waiting)
    for thread in waiting:
        thread.result = brought
        engine.resume(thread)


def _barrier_clock(block: Block, waiting: list[Thread]) -> Clock:
    """What all know after a barrier: everything that the block did, and what its threads knew."""
    known = join(thread.clock for thread in waiting)
    own = range(block.threads[0].number, block.threads[-1].number + 1)
    return Clock(
        {**known.blocks, block.linear: block.epoch},
        {number: count for number, count in known.threads.items() if number not in own},
    )


def _share_fences(threads: Sequence[Thread]) -> None:
    """After "fence, barrier, one thread's atomic", that thread publishes for all; and agents see as much."""
    for name in ("fence", "block_fence", "shown"):
        fences = [f for f in (getattr(thread, name) for thread in threads) if f is not None]
        if fences:
            shared = join(fences)
            for thread in threads:
                setattr(thread, name, shared)


def _report_different(engine: Engine, block: Block, waiting: list[Thread]) -> None:
    groups: dict[CallPath, list[Thread]] = {}
    for thread in waiting:
        groups.setdefault(thread.path, []).append(thread)
    shown = [(len(g), f"thread {g[0].index}", path_place(path)) for path, g in groups.items()]
    engine.find(
        "barrier",
        messages.different_barriers(block.index, shown),
        shown[0][2],
        waiting[0].actor,
    )
    engine.give_up()


# --- warps and groups -----------------------------------------------------------------------------


def lanes_of(engine: Engine, mask: int, name: str) -> list[Thread]:
    """The threads of this warp that a mask names; bits past the end of the block are ignored."""
    thread = engine.cur
    mask = int(mask) & FULL_MASK
    if not mask >> (thread.linear % 32) & 1:
        place = engine.place()
        engine.find(
            "collective",
            f"{name} at {place}: {thread.actor} is lane {thread.linear % 32}, which its own mask "
            f"{mask:#x} does not name. Pass a mask with every lane that executes the call.",
            place,
            thread.actor,
        )
        engine.give_up()
    return [t for lane, t in enumerate(thread.block.warp(thread)) if mask >> lane & 1]


def meet(
    engine: Engine, name: str, required: list[Thread], brought: Any, resolve: Resolve, ordered: bool
) -> Any:
    """Wait until all of some threads are here; the last one to come does the work for all.

    Args:
        engine: Runs the launch.
        name: Of the function, for messages, and to tell meetings apart.
        required: Who must come.
        brought: By this thread.
        resolve: Called with the threads and with what they brought, gives what each gets.
        ordered: Whether memory accesses before are ordered with those after.
    """
    thread = engine.cur
    block = thread.block
    key = (name, required[0].number, len(required), hash(tuple(t.number for t in required)))
    inside = required[0].block is required[-1].block
    meetings = block.meetings if inside else engine.meetings
    meeting = meetings.setdefault(key, Meeting(name, required))
    meeting.came[thread] = brought
    thread.path = call_path(kernel_frame(2))
    if len(meeting.came) < len(required):
        thread.waits = f"waits for the other lanes of {name} at {{}}"
        engine.switch()
        return thread.result
    del meetings[key]
    hold(engine, meeting, resolve, ordered)
    return thread.result


def hold(engine: Engine, meeting: Meeting, resolve: Resolve, ordered: bool) -> None:
    """Do the work of a meeting for those who came, and let them go on."""
    here = [t for t in meeting.required if t in meeting.came]
    me = engine.cur
    results = resolve(here, [meeting.came[t] for t in here])
    engine.progress += 1
    if ordered and engine.checked and len(here) > 1:
        known = join(t.clock for t in here)
        own = {t.number: t.count for t in here}
        clock = Clock(known.blocks, {**known.threads, **own})
        for t in here:
            t.learn(clock)
    for t, result in zip(here, results, strict=True):
        t.result = result
        if t is not me:
            engine.resume(t)
    engine.enter(me)


def active_lanes(engine: Engine) -> list[Thread]:
    """The lanes that have arrived at the same ``activemask()`` once nobody else can run."""
    thread = engine.cur
    thread.path = call_path(kernel_frame(2))
    thread.waits = "is at {}"
    key = ("activemask", thread.linear // 32, thread.path)
    meetings = thread.block.meetings
    meeting = meetings.setdefault(key, Meeting("activemask", thread.block.warp(thread)))
    meeting.came[thread] = None
    engine.switch()
    return thread.result


def settle_active(engine: Engine, block: Block) -> bool:
    """Let a group of lanes that met at ``activemask()`` go on; whether there was one."""
    for key, meeting in block.meetings.items():
        if meeting.name == "activemask":
            del block.meetings[key]
            lanes = [t for t in meeting.required if t in meeting.came]
            for t in lanes:
                t.result = lanes
                engine.resume(t)
            return True
    return False


def report_missing(engine: Engine, block: Block) -> bool:
    """Report a meeting in a stuck block whose lanes do not come; whether there was one."""
    for meeting in [*block.meetings.values(), *engine.meetings.values()]:
        here = [t for t in meeting.required if t in meeting.came]
        gone = [t for t in meeting.required if t.done]
        elsewhere = [t for t in meeting.required if not t.done and t not in meeting.came]
        missing = []
        if gone:
            missing.append(f"{len(gone)} have returned, e.g. thread {gone[0].index}")
        if elsewhere:
            one = elsewhere[0]
            reason = one.waits.format(path_place(one.path)) or "has not come"
            missing.append(f"{len(elsewhere)} are elsewhere, e.g. thread {one.index}, which {reason}")
        place = path_place(here[0].path)
        engine.find(
            "collective",
            messages.missing_lanes(meeting.name, place, here[0].actor, len(here), missing),
            place,
            here[0].actor,
        )
        return True
    return False
