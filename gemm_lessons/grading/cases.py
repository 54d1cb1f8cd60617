"""Which problems a submission is tried on: the ragged cases, drawn again for every seed."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from gemm_lessons.problem import GroupedProblem


@dataclass(frozen=True)
class Case:
    """Token counts, N and K; two cases with the same numbers are the same case.

    Attributes:
        counts: tokens of each expert.
        N: output features.
        K: input features.
        name: what is special about it, for messages.
        hidden: an instructor's case, whose numbers are not shown.
    """

    counts: tuple[int, ...]
    N: int
    K: int
    name: str = field(default="", compare=False)
    hidden: bool = field(default=False, compare=False)

    @property
    def problem(self) -> GroupedProblem:
        """The same as a `GroupedProblem` in float32."""
        return GroupedProblem(self.counts, self.N, self.K)

    @property
    def total(self) -> int:
        """Tokens of all experts."""
        return sum(self.counts)

    @property
    def ends(self) -> np.ndarray:
        """int32 [num_experts]: where each expert's rows end."""
        return np.cumsum(self.counts).astype(np.int32)

    @property
    def groups(self) -> np.ndarray:
        """int64 [total]: the expert of each row."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def rng(self, seed: int) -> np.random.Generator:
        """Random numbers for this case and seed, the same on every machine."""
        key = repr((self.counts, self.N, self.K)).encode()
        return np.random.default_rng([seed, zlib.crc32(key)])

    def __str__(self) -> str:
        if self.hidden:
            return "a case of the instructor's"
        counts = list(self.counts) if len(self.counts) <= 12 else [*self.counts[:10], "..."]
        text = f"counts = {counts}, N = {self.N}, K = {self.K}"
        return f"{self.name} ({text})" if self.name else text


def ragged(seed: int, rows: int, columns: int) -> list[Case]:
    """Cases that trouble a kernel whose blocks cover rows x columns outputs.

    N and K are drawn so that nothing divides them; the counts around them, so that no answer can be
    written down in advance.
    """
    rng = np.random.default_rng(seed)

    def case(name: str, counts: Iterable[int]) -> Case:
        N = columns + int(rng.integers(1, columns // 2)) if columns > 2 else 3
        return Case(tuple(int(count) for count in counts), N | 1, int(rng.integers(2, 6)) * 2 + 1, name)

    few = rng.integers(1, rows, 6)
    return [
        case("first expert empty", (0, rows + 1, few[0])),
        case("an expert in the middle empty", (few[1], 0, 0, rows - 1, few[2])),
        case("last experts empty", (rows, few[3] + rows, 0, 0)),
        case("one token in all", (0, 1, 0)),
        case("one token for each expert", (1,) * 5),
        case("around a block's rows", (rows - 1, rows, rows + 1)),
        case("all tokens on one expert", (0, 0, 2 * rows + 3, 0)),
        case("one expert", (rows + 2,)),
        case("many experts", rng.integers(0, 3, 24)),
    ]


NO_TOKENS = Case((0, 0, 0), 5, 3, "no tokens at all")
