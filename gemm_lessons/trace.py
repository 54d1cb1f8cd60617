"""Who computed which tile, where and when: what a traced run records and a schedule predicts.

    SM 0  |=tile=||==tile==||=tile=|..........|
    SM 1  |==tile==||=========tile=========|..|
    SM 2  |=tile=||==tile==||==tile==||=tile=||
                                   idle tail ^

This module needs the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Slice:
    """One tile, computed by one block from start to stop.

    Attributes:
        block: the block that computed it.
        sm: the streaming multiprocessor that the block ran on.
        group: expert.
        tile_m: tile along the expert's rows.
        tile_n: tile along N.
        start: when the block took the tile, in the unit of its `Timeline`.
        stop: when the tile was written, in the same unit.
    """

    block: int
    sm: int
    group: int
    tile_m: int
    tile_n: int
    start: float
    stop: float


@dataclass(frozen=True)
class Timeline:
    """The slices of one run, on a device with so many SMs.

    Attributes:
        slices: in any order; SMs may be missing, and count as idle.
        num_sms: streaming multiprocessors that could have worked.
        unit: of start and stop: "ns" for a run on a GPU, "multiply-adds" for a prediction.
        label: the schedule's name, for titles.

    Raises:
        ValueError: on construction, for a slice that ends before it starts or an SM out of range.
    """

    slices: tuple[Slice, ...]
    num_sms: int
    unit: str
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(self.slices))
        for piece in self.slices:
            if piece.stop < piece.start:
                raise ValueError(f"{piece} stops before it starts")
            if not 0 <= piece.sm < self.num_sms:
                raise ValueError(f"{piece} ran on an SM that is not among the {self.num_sms}")

    @cached_property
    def start(self) -> float:
        """When the first tile was taken."""
        return min((piece.start for piece in self.slices), default=0.0)

    @cached_property
    def stop(self) -> float:
        """When the last tile was written."""
        return max((piece.stop for piece in self.slices), default=0.0)

    @property
    def makespan(self) -> float:
        """From the first start to the last stop."""
        return self.stop - self.start

    @cached_property
    def finished(self) -> tuple[float, ...]:
        """When each SM wrote its last tile; an SM that got none finished at the start."""
        last = [self.start] * self.num_sms
        for piece in self.slices:
            last[piece.sm] = max(last[piece.sm], piece.stop)
        return tuple(last)

    @property
    def idle_tail(self) -> float:
        """Share of all SM time, 0 to 1, that SMs spent waiting for the last one to finish."""
        if not self.makespan:
            return 0.0
        waiting = sum(self.stop - last for last in self.finished)
        return waiting / (self.num_sms * self.makespan)


def lanes(slices: Iterable[Slice]) -> dict[int, tuple[int, int]]:
    """Place each block on its SM: block -> (sm, slot), slots counted from 0 in block order.

    Blocks that share an SM run side by side, so each gets a lane of its own in a picture.
    """
    sm_of_block = {piece.block: piece.sm for piece in slices}
    used: dict[int, int] = {}
    placed = {}
    for block, sm in sorted(sm_of_block.items()):
        placed[block] = (sm, used.get(sm, 0))
        used[sm] = placed[block][1] + 1
    return placed
