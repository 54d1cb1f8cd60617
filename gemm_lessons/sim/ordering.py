"""What orders the memory accesses of a launch: fences with atomics, and published keys."""

from __future__ import annotations

from typing import Any

from gemm_lessons.sim.clocks import Clock, Segments, join
from gemm_lessons.sim.threads import Party


class Ordering:
    """The part of an engine that knows what each party has published.

    Attributes:
        checked: Whether order matters in this launch.
        fenced: Whether any thread has passed a fence.
        party: On whose behalf memory is accessed now.
        segments: Everybody's segments so far.
        fences: What was published at addresses, by atomics after fences.
        keys: What instructions have published.
    """

    checked: bool
    party: Party
    segments: Segments

    def __init__(self) -> None:
        self.fenced = False
        self.fences: dict[Any, Clock] = {}
        self.keys: dict[Any, Clock] = {}

    def renew(self, party: Party) -> None:
        """A party has learned or published something: a new segment begins."""
        raise NotImplementedError

    def fence(self, party: Party, block_only: bool = False) -> None:
        """A memory fence: what the party did so far can be published by an atomic."""
        if not self.checked:
            return
        self.fenced = True
        if not block_only:
            party.fence = party.published()
        party.block_fence = party.published()
        self.renew(party)

    def fence_proxy(self, party: Party) -> None:
        """A proxy fence: asynchronous agents see what the party wrote or knows of."""
        if not self.checked:
            return
        self.segments.fence_proxy(party.number, party.count, party.block.epoch)
        party.shown = party.published()
        self.renew(party)

    def stored(self, log_address: int) -> None:
        """A store to a flag, or an atomic, publishes what its thread has fenced."""
        party = self.party
        if party.fence is not None:
            self._publish(log_address, party.fence)
        if party.block_fence is not None:
            self._publish((log_address, party.block.linear), party.block_fence)

    def _publish(self, key: Any, clock: Clock) -> None:
        known = self.fences.get(key)
        self.fences[key] = clock if known is None else join((known, clock))

    def observed(self, log_address: int) -> None:
        """An atomic learns what was published at its address."""
        party = self.party
        known = [
            clock
            for key in (log_address, (log_address, party.block.linear))
            if (clock := self.fences.get(key)) is not None
        ]
        if known:
            party.clock = join((party.clock, *known))
            self.renew(party)

    def release(self, party: Party, key: Any, *, own: bool = False) -> None:
        """Publish all that a party did and knows, under a key; or only what it did itself."""
        if self.checked:
            known = self.keys.get(key)
            mine = Clock({}, {party.number: party.count}) if own else party.published()
            self.keys[key] = mine if known is None else join((known, mine))
            self.renew(party)

    def acquire(self, party: Party, key: Any) -> None:
        """Continue after all that was published under a key."""
        clock = self.keys.get(key)
        if clock is not None:
            self.learn(party, clock)

    def learn(self, party: Party, clock: Clock) -> None:
        """Continue after what a clock knows."""
        if self.checked:
            party.clock = join((party.clock, clock))
            self.renew(party)
