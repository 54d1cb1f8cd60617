"""What keeps the experts equally busy: losses on the router's logits, and DeepSeek-V3's bias.

All of it is NumPy in float64; `router_kernels` has the losses and the bias update as kernels.
"""

from __future__ import annotations

import numpy as np

from gemm_lessons.moe.router import softmax
from gemm_lessons.moe.routing import Array, Routing


def switch_loss(logits: Array, routing: Routing) -> float:
    """E * sum over experts of (share of the slots that chose it) * (mean probability): 1 when balanced.

    The shares are those of the router's choice, before anything is dropped for capacity; only the
    probabilities have a gradient.  Switch Transformers, section 2.2, equations 4 to 6, there with a factor
    of 0.01; Megatron-LM's `switch_load_balancing_loss_func` counts k slots per token as this does.

    Args:
        logits: [T, E].
        routing: what the router made of them; its tokens that are not finite are left out.

    Returns:
        The loss; 0 where there are no tokens.
    """
    probabilities, num_slots = _probabilities(logits, routing)
    if not num_slots:
        return 0.0
    return float(routing.num_experts * (routing.counts / num_slots) @ probabilities.mean(axis=0))


def switch_loss_gradient(logits: Array, routing: Routing) -> Array:
    """The gradient of `switch_loss` with respect to the logits, [T, E]; zeros where they are not finite."""
    gradient = np.zeros(logits.shape)
    probabilities, num_slots = _probabilities(logits, routing)
    if num_slots:
        by_probability = routing.num_experts * routing.counts / num_slots / len(probabilities)
        inner = probabilities @ by_probability
        gradient[np.isfinite(logits).all(axis=1)] = probabilities * (by_probability - inner[:, None])
    return gradient


def z_loss(logits: Array) -> float:
    """Mean over tokens of log(sum(exp(logits))) ** 2, which keeps logits small; 0 without tokens.

    Zoph et al., "ST-MoE: Designing Stable and Transferable Sparse Expert Models", 2022, equation 5, there
    with a factor of 0.001.  Tokens that are not finite are left out.
    """
    logits = logits[np.isfinite(logits).all(axis=1)].astype(np.float64)
    if not len(logits):
        return 0.0
    largest = logits.max(axis=1)
    return float(np.mean((largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))) ** 2))


def z_loss_gradient(logits: Array) -> Array:
    """The gradient of `z_loss` with respect to the logits, [T, E]; zeros where they are not finite."""
    gradient = np.zeros(logits.shape)
    finite = np.isfinite(logits).all(axis=1)
    if finite.any():
        kept = logits[finite].astype(np.float64)
        largest = kept.max(axis=1, keepdims=True)
        size = largest + np.log(np.exp(kept - largest).sum(axis=1, keepdims=True))
        gradient[finite] = 2 * size * softmax(kept) / len(kept)
    return gradient


def update_bias(bias: Array, counts: Array, rate: float = 1e-3) -> Array:
    """Lower the bias of every expert with more than the mean of tokens, raise it for those with fewer.

    DeepSeek-V3, section 2.1.2: by the same rate for all, whatever the distance; at the mean, not at all.

    Args:
        bias: float32 [E].
        counts: int32 [E], tokens of each expert in the last batch.
        rate: how far, 0.001 in the paper.

    Returns:
        The new bias, float32 [E].
    """
    # why not counts.mean(): sums of integers are exact, so that "at the mean" is.
    direction = np.sign(int(counts.sum()) - len(counts) * counts.astype(np.int64))
    return (bias + np.float32(rate) * direction.astype(np.float32)).astype(np.float32)


def _probabilities(logits: Array, routing: Routing) -> tuple[Array, int]:
    """Softmax of the finite tokens, float64, and how many slots chose an expert."""
    return softmax(logits[np.isfinite(logits).all(axis=1)]), int(routing.counts.sum())
