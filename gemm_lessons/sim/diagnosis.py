"""Why a launch cannot go on: deadlocks, endless loops, exceptions in the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gemm_lessons.sim import collectives, messages
from gemm_lessons.sim.registry import InstructionError
from gemm_lessons.sim.report import Actor, Index3, Place
from gemm_lessons.sim.sites import is_kernel_frame, place_of
from gemm_lessons.sim.threads import Block, Thread

if TYPE_CHECKING:
    from gemm_lessons.sim.engine import Engine

_Groups = dict[tuple[str, Place], list[Thread]]


def _waiting(blocks: list[Block]) -> _Groups:
    groups: _Groups = {}
    for block in blocks:
        for thread in block.threads:
            if not thread.done and thread.waits and not thread.spinning:
                place = collectives.path_place(thread.path)
                waits = thread.waits
                if thread.predicate is not None:
                    waits += f" {thread.reason() if callable(thread.reason) else thread.reason}"
                groups.setdefault((waits, place), []).append(thread)
    return groups


def _shown(groups: _Groups) -> list[tuple[int, object, str]]:
    return [(len(g), g[0].actor, waits.replace("{}", str(place))) for (waits, place), g in groups.items()]


def report_stuck(engine: Engine, blocks: list[Block]) -> None:
    """No thread of any block can run."""
    for block in blocks:
        if collectives.report_missing(engine, block):
            return
    groups = _waiting(blocks)
    gone = sum(thread.done for block in blocks for thread in block.threads)
    (_, place), threads = next(iter(groups.items()))
    engine.find(
        "deadlock",
        messages.stuck("deadlock: no thread can continue.", _shown(groups), gone),
        place,
        threads[0].actor,
    )


def report_spinning(engine: Engine, blocks: list[Block], not_started: int) -> None:
    """The threads that can run do nothing but repeat an atomic that changes nothing."""
    groups: _Groups = {}
    for block in blocks:
        for thread in block.threads:
            if thread.spinning and not thread.done:
                key = ("repeats {}", collectives.path_place(thread.path))
                groups.setdefault(key, []).append(thread)
    (_, place), threads = next(iter(groups.items()), (("", Place()), []))
    title = "deadlock: the threads that can run only repeat an atomic that changes nothing."
    if not_started:
        title += (
            f" {not_started} block(s) have not started, since only {len(blocks)} fit on the device "
            "at a time: a block must not wait for one that may not have started."
        )
    engine.find(
        "deadlock",
        messages.stuck(title, _shown(groups) + _shown(_waiting(blocks)), 0),
        place,
        threads[0].actor if threads else None,
    )


def raised_at(error: BaseException) -> Place:
    """The innermost place in the student's code that an exception passed."""
    place, trace = Place(), error.__traceback__
    while trace is not None:
        if is_kernel_frame(trace.tb_frame):
            place = place_of(trace.tb_frame.f_code, trace.tb_lasti)
        trace = trace.tb_next
    return place


def out_of_time(engine: Engine, error: BaseException | None) -> None:
    """The watchdog has ended the launch."""
    who = engine.cur.actor if engine.cur is not None else None
    place = raised_at(error) if error is not None else Place()
    where = f"; {who} was at {place}" if place.line else ""
    engine.findings.add(
        "endless",
        f"kernel '{engine.report.kernel}' was still running when its time was up{where}. Does "
        "this loop end? If it waits for another thread, it must wait with an atomic (a plain read "
        "may be kept in a register for ever). If there is only much to do, use a smaller problem, "
        "or set GEMM_LESSONS_SIM_SECONDS and GEMM_LESSONS_SIM_SLICE_SECONDS.",
        place,
        who,
    )


def thread_of(who: Actor) -> Index3:
    """The thread's index."""
    return who.thread or (0, 0, 0)


def failed(engine: Engine, error: Exception) -> Exception | None:
    """An exception came out of the kernel's code.

    Returns:
        The exception, if it is to reach the caller; None if it became a finding.
    """
    place, who = raised_at(error), engine.cur.actor
    at = f"'{place.text}', line {place.line}; {who}"
    if isinstance(error, InstructionError):
        engine.findings.add("misuse", f"{error} In {at}.", place, who)
    elif isinstance(error, ZeroDivisionError) and not engine.debug:
        engine.findings.add(
            "arithmetic",
            f"division by zero in {at}. On a GPU there is no error: an integer division gives some "
            "number, a float one inf or nan.",
            place,
            who,
        )
    elif isinstance(error, IndexError) and not engine.checked:
        engine.findings.add(
            "bounds",
            f"{error} in {at}. On a GPU this silently reads or overwrites other memory.",
            place,
            who,
        )
    else:
        error.add_note(f"in kernel '{engine.report.kernel}', {who}, {place}")
        if len(error.args) <= 1 and all(isinstance(arg, str) for arg in error.args):
            # why: Numba's simulator does so, and code that reads the message relies on it.
            ids = f"tid={[*thread_of(who)]} ctaid={[*who.block]}"
            error.args = (": ".join([ids, *(arg for arg in error.args if arg)]),)
        return error
    return None
