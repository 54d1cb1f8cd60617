"""The layers of well-known systems, as this package's configurations: each does here what it does there.

docs/systems.md says for each which of its mechanisms this is, and which test shows it.
"""

from __future__ import annotations

from collections.abc import Callable

from gemm_lessons.moe.layer import LayerProblem
from gemm_lessons.moe.router import DeepSeek, ExpertChoice, Switch, TopK


def switch_transformer(
    num_tokens: int,
    width: int,
    hidden: int,
    num_experts: int,
    *,
    capacity_factor: float = 1.25,
    dtype: str = "bfloat16",
) -> LayerProblem:
    """One expert a token, with limited room; a token that finds none passes by through the residual.

    Fedus, Zoph and Shazeer, "Switch Transformers", 2021, section 2.2.  Its experts are plain feed-forward
    networks; here they have a gate, as in all the others.
    """
    router = Switch(capacity_factor)
    return LayerProblem(num_tokens, width, hidden, num_experts, router, residual=True, dtype=dtype)


def expert_choice(
    num_tokens: int,
    width: int,
    hidden: int,
    num_experts: int,
    *,
    factor: float = 2.0,
    dtype: str = "bfloat16",
) -> LayerProblem:
    """Each expert takes its best tokens, all the same number: perfect balance, tokens of 0 to E experts.

    Zhou et al., "Mixture-of-Experts with Expert Choice Routing", 2022, section 3.2.
    """
    router = ExpertChoice(factor)
    return LayerProblem(num_tokens, width, hidden, num_experts, router, residual=True, dtype=dtype)


def deepseek_v3(
    num_tokens: int,
    width: int = 7168,
    hidden: int = 2048,
    num_experts: int = 256,
    *,
    router: DeepSeek | None = None,
    dtype: str = "bfloat16",
) -> LayerProblem:
    """Eight of 256 experts by sigmoid and bias, in four of eight groups; nothing is ever dropped.

    "DeepSeek-V3 Technical Report", 2024, section 2.1.2 and table of hyper-parameters; without its shared
    expert, which every token takes and which is a dense product.
    """
    return LayerProblem(num_tokens, width, hidden, num_experts, router or DeepSeek(), dtype=dtype)


def megatron_lm(
    num_tokens: int,
    width: int,
    hidden: int,
    num_experts: int,
    *,
    num_slots: int = 2,
    capacity_factor: float = 1.0,
    pad: bool = True,
    drop: str = "position",
    dtype: str = "bfloat16",
) -> LayerProblem:
    """Top-k with an expert capacity, and every expert padded to it, so that all shapes are fixed.

    Megatron-LM, options `moe_expert_capacity_factor` and `moe_pad_expert_input_to_capacity`; its two
    policies of `moe_token_drop_policy` are "position" and "weight" here.
    """
    router = TopK(num_slots, capacity_factor=capacity_factor)
    return LayerProblem(num_tokens, width, hidden, num_experts, router, padded=pad, drop=drop, dtype=dtype)


def faster_transformer(
    num_tokens: int, width: int, hidden: int, num_experts: int, *, num_slots: int = 2, dtype: str = "bfloat16"
) -> LayerProblem:
    """Softmax and top-k without rescaling, rows sorted by expert, grouped GEMMs, a sum over k: no capacity.

    NVIDIA FasterTransformer 5, MoE feed-forward layer.
    """
    router = TopK(num_slots, renormalise=False)
    return LayerProblem(num_tokens, width, hidden, num_experts, router, dtype=dtype)


SYSTEMS: dict[str, Callable[..., LayerProblem]] = {
    "Switch Transformers": switch_transformer,
    "Expert Choice": expert_choice,
    "DeepSeek-V3": deepseek_v3,
    "Megatron-LM": megatron_lm,
    "FasterTransformer": faster_transformer,
}
