"""Named problems: the seed's routings, ragged extremes, and real models, each with a small twin.

The full problem is what a GPU is timed on.  Its twin has the same shape of trouble with few tokens and
N = K = 32 or so, small enough for the simulator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gemm_lessons.problem import GroupedProblem

OVERVIEW = (150, 80, 200, 45, 120, 95, 180, 130)
DEMO = (156, 89, 201, 52, 134, 98, 187, 143)
DECODE = (4, 2, 7, 1, 3, 5, 2, 6)


@dataclass(frozen=True)
class Workload:
    """A named problem, what it stands for, and its twin for the simulator."""

    problem: GroupedProblem
    twin: GroupedProblem
    story: str

    @property
    def name(self) -> str:
        """The name that `--workload` takes."""
        return self.problem.name

    def at(self, *, full_size: bool) -> GroupedProblem:
        """The problem itself, or its twin."""
        return self.problem if full_size else self.twin


def zipf_counts(num_groups: int, total_tokens: int, exponent: float = 1.0) -> tuple[int, ...]:
    """Counts that fall like 1 / rank ** exponent and add up to total_tokens exactly."""
    share = 1.0 / np.arange(1, num_groups + 1) ** exponent
    counts = np.floor(share / share.sum() * total_tokens).astype(int)
    counts[0] += total_tokens - counts.sum()
    return tuple(int(count) for count in counts)


def text_counts(num_experts: int, num_tokens: int | None = None) -> tuple[int, ...]:
    """Slots of each expert for the first tokens of a real text: see `moe.text_routing`.

    Args:
        num_experts: 8, with two slots for a token, or 64, with six.
        num_tokens: None for the first batch.
    """
    with np.load(Path(__file__).parent / "routings" / "text.npz") as stored:
        first = stored[str(num_experts)][0, :num_tokens]
    return tuple(int(count) for count in np.bincount(first.reshape(-1), minlength=num_experts))


def _workload(
    name: str, counts: tuple[int, ...], N: int, K: int, twin: tuple[int, ...], story: str
) -> Workload:
    return Workload(
        GroupedProblem(counts, N, K, name=name),
        GroupedProblem(twin, 32, 32, name=f"{name} (twin)"),
        story,
    )


def _eighth(counts: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(count // 8 for count in counts)


def _scaled(factor: int) -> tuple[int, ...]:
    return tuple(count * factor for count in DEMO)


# Hidden 7168, FFN 2048: gate and up together have N = 4096, down has N = 7168 (DeepSeek-V3, 8 local experts).
_V3_GATE_UP = {"N": 4096, "K": 7168}
_V3_DOWN = {"N": 7168, "K": 2048}


def _deepseek(load: int, num_groups: int = 8) -> list[Workload]:
    counts, twin = (load,) * num_groups, (max(1, load // 512),) * num_groups
    label = load if num_groups == 8 else f"{num_groups}x{load}"
    return [
        _workload(
            f"v3-{part}-{label}", counts, shape["N"], shape["K"], twin,
            f"DeepSeek-V3 {part} projection, {num_groups} local experts with {load} tokens each",
        )
        for part, shape in (("gate-up", _V3_GATE_UP), ("down", _V3_DOWN))
    ]  # fmt: skip


_ALL = [
    _workload("overview", OVERVIEW, 2048, 2048, _eighth(OVERVIEW), "the padding example: 1000 of 1600 rows useful"),
    _workload("S", DEMO, 2048, 2048, _eighth(DEMO), "the demo's routing: few tokens, bound by reading the weights"),
    _workload("S-x16", _scaled(16), 2048, 2048, _eighth(DEMO), "the demo's routing with 16 times the tokens"),
    _workload("S-x64", _scaled(64), 2048, 2048, _eighth(DEMO), "the demo's routing with 64 times the tokens"),
    _workload("zipf", zipf_counts(16, 16384), 2048, 2048, zipf_counts(8, 96), "a few experts take most tokens"),
    _workload("one-hot", (0, 0, 0, 8192, 0, 0, 0, 0), 2048, 2048, (0, 0, 48, 0), "all tokens on one expert"),
    _workload("uniform", (2048,) * 8, 2048, 2048, (16,) * 4, "equal counts: fixed-size groups, nothing to pad"),
    _workload("empty-first", (0, 1024, 768, 1280), 2048, 2048, (0, 17, 9, 20), "the first expert is empty"),
    _workload("empty-middle", (1024, 0, 0, 1280), 2048, 2048, (17, 0, 0, 20), "experts in the middle are empty"),
    _workload("empty-last", (1024, 768, 1280, 0), 2048, 2048, (17, 9, 20, 0), "the last expert is empty"),
    _workload("single-tokens", (1,) * 64, 2048, 2048, (1,) * 8, "one token per expert"),
    _workload("no-tokens", (0,) * 8, 2048, 2048, (0,) * 4, "nobody was routed here"),
    _workload("S-x8-v3-gate-up", _scaled(8), 4096, 7168, _eighth(DEMO), "the demo's routing, gate and up projection"),
    _workload("S-x8-v3-down", _scaled(8), 7168, 2048, _eighth(DEMO), "the demo's routing, down projection"),
    _workload("text", text_counts(8), 2048, 2048, text_counts(8, 48), "words of a real text, two of eight experts each"),
    _workload("text-64", text_counts(64), 2048, 2048, text_counts(64, 24), "words of a real text, six of 64 experts each"),
    _workload("decode", DECODE, 4096, 7168, DECODE, "a handful of tokens per expert: pure weight streaming"),
    *(workload for load in (128, 1024, 4096, 8192) for workload in _deepseek(load)),
    *_deepseek(8192, num_groups=4),
]  # fmt: skip

WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in _ALL}


def find_workload(name: str, dtype: str = "float32") -> Workload:
    """Look a workload up by name, in the given dtype.

    Raises:
        KeyError: listing the names that exist.
    """
    if name not in WORKLOADS:
        raise KeyError(f"no workload is called {name!r}: use one of {', '.join(WORKLOADS)}")
    workload = WORKLOADS[name]
    return replace(
        workload,
        problem=replace(workload.problem, dtype=dtype),
        twin=replace(workload.twin, dtype=dtype),
    )
