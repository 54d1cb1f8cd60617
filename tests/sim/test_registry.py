"""How an instruction is declared, and what it does when no engine runs."""

import pytest

from gemm_lessons.sim import registry


def test_call_goes_through_the_engine():
    seen = []

    class Engine:
        def execute(self, what, args):
            seen.append((what.name, args))
            return 7

    @registry.instruction("add.twice", scope="warp")
    def add_twice(ctx, calls):
        """Doc."""

    registry.set_engine(Engine())
    try:
        assert add_twice(1, 2) == 7
    finally:
        registry.set_engine(None)
    assert seen == [("add.twice", (1, 2))]
    assert add_twice.__doc__ == "Doc."


def test_collective_without_an_engine_says_what_to_do():
    @registry.instruction("mma.sync", scope="warp")
    def mma(ctx, calls):
        return calls

    with pytest.raises(registry.InstructionError, match="unset GEMM_LESSONS_SIM=stock"):
        mma()


@pytest.mark.parametrize(("scope", "ordered"), [("thread", True), ("warp", True), ("warpgroup", False)])
def test_a_warpgroup_alone_is_not_brought_together(scope, ordered):
    assert registry.instruction("x", scope=scope)(print).ordered is ordered


@pytest.mark.parametrize(
    ("address", "shared"),
    [(0, False), (1 << 24, True), ((1 << 32) - 1, True), (1 << 32, False)],
)
def test_shared_window_is_32_bits(address, shared):
    assert registry.is_shared_address(address) is shared
