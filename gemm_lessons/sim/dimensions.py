"""``cuda.threadIdx`` and its like."""

from __future__ import annotations

from typing import Any

from gemm_lessons.sim.report import Index3


class Dim3:
    """``cuda.threadIdx`` and its like: plain attributes, set anew whenever a thread goes on."""

    __slots__ = ("x", "y", "z")

    def __init__(self) -> None:
        self.x = self.y = self.z = 0

    def set(self, index: Index3) -> None:
        """Change all three."""
        self.x, self.y, self.z = index

    def __iter__(self) -> Any:
        return iter((self.x, self.y, self.z))

    def __repr__(self) -> str:
        return f"({self.x}, {self.y}, {self.z})"


thread_idx, block_idx, block_dim, grid_dim = Dim3(), Dim3(), Dim3(), Dim3()
