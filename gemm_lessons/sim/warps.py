"""Warp functions: shuffles, votes, match, syncwarp, activemask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gemm_lessons.sim import collectives
from gemm_lessons.sim import engine as engines
from gemm_lessons.sim.collectives import FULL_MASK
from gemm_lessons.sim.engine import Engine
from gemm_lessons.sim.threads import Thread


def _engine(name: str) -> Engine:
    if engines.current is None:
        raise RuntimeError(f"cuda.{name} works inside kernels only")
    return engines.current


def _meet(name: str, mask: Any, brought: Any, resolve: Any) -> Any:
    engine = _engine(name)
    lanes = collectives.lanes_of(engine, mask, f"{name}()")
    return collectives.meet(engine, f"{name}()", lanes, brought, resolve, True)


def _mask_of(threads: Sequence[Thread]) -> int:
    return sum(1 << t.linear % 32 for t in threads)


def syncwarp(mask: Any = FULL_MASK) -> None:
    """Wait for the lanes of a mask; orders their memory accesses."""
    _meet("syncwarp", mask, None, lambda threads, brought: [None] * len(threads))


def _shuffle(name: str, mask: Any, value: Any, source: Callable[[int], int]) -> Any:
    lane = _engine(name).cur.linear % 32

    def resolve(threads: list[Thread], brought: list[Any]) -> list[Any]:
        values = {t.linear % 32: v for t, (v, _) in zip(threads, brought, strict=True)}
        # why: a source outside the mask or the warp is undefined on a GPU and is what the last
        # lanes of a reduction read and ignore; their own value does no harm.
        return [values.get(wanted, own) for own, wanted in brought]

    return _meet(name, mask, (value, source(lane)), resolve)


def shfl_sync(mask: Any, value: Any, src_lane: Any) -> Any:
    """The value of lane ``src_lane``."""
    return _shuffle("shfl_sync", mask, value, lambda lane: int(src_lane) % 32)


def shfl_up_sync(mask: Any, value: Any, delta: Any) -> Any:
    """The value of the lane ``delta`` below; the first lanes keep theirs."""
    return _shuffle("shfl_up_sync", mask, value, lambda lane: lane - int(delta))


def shfl_down_sync(mask: Any, value: Any, delta: Any) -> Any:
    """The value of the lane ``delta`` above; the last lanes keep theirs."""
    return _shuffle("shfl_down_sync", mask, value, lambda lane: lane + int(delta))


def shfl_xor_sync(mask: Any, value: Any, lane_mask: Any) -> Any:
    """The value of the lane whose number differs in the bits of ``lane_mask``."""
    return _shuffle("shfl_xor_sync", mask, value, lambda lane: lane ^ int(lane_mask))


def _vote(name: str, mask: Any, predicate: Any, answer: Callable[[list[bool]], Any]) -> Any:
    return _meet(name, mask, bool(predicate), lambda threads, brought: [answer(brought)] * len(threads))


def all_sync(mask: Any, predicate: Any) -> bool:
    """Whether the predicate holds in every lane."""
    return bool(_vote("all_sync", mask, predicate, all))


def any_sync(mask: Any, predicate: Any) -> bool:
    """Whether the predicate holds in some lane."""
    return bool(_vote("any_sync", mask, predicate, any))


def eq_sync(mask: Any, predicate: Any) -> bool:
    """Whether the predicate is the same in every lane."""
    return bool(_vote("eq_sync", mask, predicate, lambda values: len(set(values)) == 1))


def ballot_sync(mask: Any, predicate: Any) -> int:
    """A bit for each lane in which the predicate holds."""

    def resolve(threads: list[Thread], brought: list[bool]) -> list[int]:
        bits = _mask_of([t for t, holds in zip(threads, brought, strict=True) if holds])
        return [bits] * len(threads)

    return int(_meet("ballot_sync", mask, bool(predicate), resolve))


def match_any_sync(mask: Any, value: Any) -> int:
    """A bit for each lane that has the same value."""

    def resolve(threads: list[Thread], brought: list[Any]) -> list[int]:
        pairs = list(zip(threads, brought, strict=True))
        return [_mask_of([t for t, other in pairs if other == mine]) for mine in brought]

    return int(_meet("match_any_sync", mask, value, resolve))


def match_all_sync(mask: Any, value: Any) -> tuple[int, bool]:
    """The mask and True if all lanes have the same value, else 0 and False."""

    def resolve(threads: list[Thread], brought: list[Any]) -> list[tuple[int, bool]]:
        same = all(other == brought[0] for other in brought)
        return [(_mask_of(threads) if same else 0, same)] * len(threads)

    result: tuple[int, bool] = _meet("match_all_sync", mask, value, resolve)
    return result


def activemask() -> int:
    """A bit for each lane that executes this together."""
    return _mask_of(collectives.active_lanes(_engine("activemask")))


def lanemask_lt() -> int:
    """A bit for each lane before this one."""
    return (1 << _engine("lanemask_lt").cur.linear % 32) - 1
