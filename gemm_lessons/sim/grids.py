"""Cooperative groups: a barrier for the whole grid."""

from __future__ import annotations

from gemm_lessons.sim import engine as engines
from gemm_lessons.sim.clocks import Clock, join
from gemm_lessons.sim.engine import Engine
from gemm_lessons.sim.sites import call_path, kernel_frame


class GridGroup:
    """All threads of the launch."""

    @staticmethod
    def sync() -> None:
        """Wait for all threads of all blocks."""
        engine = engines.current
        if engine is None:
            raise RuntimeError("grid groups work inside kernels only")
        thread = engine.cur
        thread.path = call_path(kernel_frame(1))
        thread.waits = "waits at {} for all threads of the grid"
        engine.at_grid.append(thread)
        if len(engine.at_grid) == engine.blocks * len(thread.block.threads):
            _pass(engine)
            thread.block.ready.remove(thread)
            engine.enter(thread)
        else:
            engine.switch()


def _pass(engine: Engine) -> None:
    waiting = engine.at_grid
    engine.at_grid = []
    engine.progress += 1
    blocks = {id(thread.block): thread.block for thread in waiting}.values()
    for block in blocks:
        block.epoch += 1
    if engine.checked:
        known = join(thread.clock for thread in waiting)
        clock = Clock({**known.blocks, **{b.linear: b.epoch for b in blocks}}, {})
        for thread in waiting:
            thread.learn(clock)
    for thread in waiting:
        engine.resume(thread)


def this_grid() -> GridGroup:
    """The group of all threads; the grid must fit on the device at once."""
    engine = engines.current
    if engine is None:
        raise RuntimeError("grid groups work inside kernels only")
    if engine.blocks > engine.capacity:
        engine.find(
            "launch",
            f"a cooperative launch of {engine.blocks} blocks: no more than {engine.capacity} fit "
            "on the device at a time. Use fewer blocks, and let each do more.",
            engine.place(),
        )
        engine.give_up()
    return GridGroup()
