"""Which block drew what from a work counter: the timeline of a persistent kernel."""

from __future__ import annotations

from typing import Any

from gemm_lessons.sim.report import Report, Span
from gemm_lessons.sim.threads import Block

#: Draws remembered for one atomic; a histogram has more, and is no work counter.
LIMIT = 100_000


class Tickets:
    """The values that atomic additions to global memory gave out."""

    def __init__(self) -> None:
        self._draws: dict[Any, list[tuple[Block, Any, float, Any]]] = {}

    def draw(self, site: Any, block: Block, thread: int, time: float, value: Any) -> None:
        """Remember one draw.

        Args:
            site: The atomic's place in the kernel.
            block: Who drew.
            thread: The drawing thread's index in the block.
            time: When, in the block's virtual time.
            value: What the counter held.
        """
        draws = self._draws.setdefault(site, [])
        if len(draws) < LIMIT:
            draws.append((block, thread, time, value))

    def close(self, report: Report) -> None:
        """Put the draws of the work counter, if there is one, in the report."""
        work = self._work_counter()
        by_block: dict[int, list[tuple[Block, float, Any]]] = {}
        for block, _, time, value in work:
            by_block.setdefault(block.linear, []).append((block, time, value))
        for linear, draws in sorted(by_block.items()):
            report.tickets[linear] = [value for _, _, value in draws]
            block = draws[0][0]
            ends = [time for _, time, _ in draws[1:]] + [block.time]
            for (_, start, value), stop in zip(draws, ends, strict=True):
                report.spans.append(Span(block.sm, linear, start, stop, f"ticket {value}"))
        report.spans.sort(key=lambda span: (span.sm, span.start, -span.stop))

    def _work_counter(self) -> list[tuple[Block, Any, float, Any]]:
        """The draws of the atomic that one thread of each block executes most often."""
        counters = [
            draws
            for draws in self._draws.values()
            if len({(block.linear, thread) for block, thread, _, _ in draws})
            == len({block.linear for block, _, _, _ in draws})
        ]
        return max(counters, key=len, default=[])
