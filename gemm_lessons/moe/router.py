"""How routers choose, each in a few lines of NumPy: what the kernels of `router_kernels` are checked against.

    logits [T, E] float32   one number for every token and expert: tokens times the router's weights

| router         | score               | choice                                            | weight          |
|----------------|---------------------|---------------------------------------------------|-----------------|
| `TopK`         | softmax             | the k largest logits                              | score, rescaled |
| `Switch`       | softmax             | the largest logit, while the expert has room (*)  | score           |
| `TopP`         | softmax             | the fewest experts that reach probability p       | score, rescaled |
| `DeepSeek`     | sigmoid             | k largest score + bias, in the best expert groups | score, rescaled |
| `Sinkhorn`     | sigmoid or softmax  | the k largest logits after balancing              | score           |
| `ExpertChoice` | softmax             | each expert takes its best tokens                 | score           |

(*) `route` gives every token its choice, and `capacity` says how many an expert takes: the permutation
drops the rest (`permute`), or `routing.drop_by_position` and `routing.drop_by_weight` do.

Among equals the lowest index wins, of experts or of tokens.  A token with a logit that is not finite (NaN
or an infinity) goes nowhere, and counts as `NOT_FINITE`; it does not change what the others get.  To keep
tokens from an expert, give it a logit of -1e30, not minus infinity.

A choice is made in float32, as on the device, so that ties are the same there; weights are computed in
float64 and rounded.  This module needs NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gemm_lessons.moe.routing import NO_EXPERT, NOT_FINITE, Array, Routing, RoutingError, capacity

MOST_EXPERTS = 1024

# Added to the sum that weights are divided by, so that scores which are all zero give zeros, not NaN.
SMALLEST_SUM = 1e-20

# Sinkhorn takes no probability for smaller than exp of this, which float32 can still divide by.
LEAST_EXPONENT = -60.0


class Router(Protocol):
    """What every router has in common."""

    def num_slots(self, num_experts: int) -> int:
        """k, the width of the arrays that it writes."""

    def validate(self, num_experts: int) -> None:
        """Check the settings against the number of experts; raises RoutingError."""

    def capacity(self, num_tokens: int, num_experts: int) -> int | None:
        """Tokens that an expert takes; None if there is no limit."""

    def route(self, logits: Array, bias: Array | None = None) -> Routing:
        """Choose experts for logits [T, E]; bias [E] for routers that have one."""


class _Unlimited:
    """A router whose experts take all tokens that choose them."""

    def capacity(self, num_tokens: int, num_experts: int) -> int | None:
        """None: no limit."""
        return None


@dataclass(frozen=True)
class TopK:
    """Softmax, then the k most probable experts.

    Attributes:
        k: experts per token.
        renormalise: divide the weights by their sum, so that each token's add up to 1 (Mixtral, Qwen);
            otherwise they are the probabilities themselves (Switch, OLMoE).
        capacity_factor: room of an expert, as a multiple of an even share; None for no limit.
    """

    k: int = 2
    renormalise: bool = True
    capacity_factor: float | None = None

    def num_slots(self, num_experts: int) -> int:
        """Experts per token."""
        return self.k

    def validate(self, num_experts: int) -> None:
        """Raises RoutingError if there are fewer experts than slots, or a factor is not positive."""
        _check_k(self.k, num_experts)
        self.capacity(0, num_experts)

    def capacity(self, num_tokens: int, num_experts: int) -> int | None:
        """The capacity factor times an even share of the slots, rounded up."""
        if self.capacity_factor is None:
            return None
        return capacity(num_tokens, self.k, num_experts, self.capacity_factor)

    def route(self, logits: Array, bias: Array | None = None) -> Routing:
        """Choose for logits [T, E]."""
        logits, finite = _begin(self, logits, bias, takes_bias=False)
        experts = top(logits, self.k)
        weights = np.take_along_axis(softmax(logits), experts, axis=1)
        if self.renormalise:
            weights = weights / weights.sum(axis=1, keepdims=True)
        return _finish(experts, weights, finite, logits.shape[1])


@dataclass(frozen=True)
class Switch:
    """One expert per token, its weight the probability itself, and a limit to the tokens of an expert.

    A token that comes too late is dropped and passes the layer by: its output is what the residual
    connection carries.  Fedus, Zoph and Shazeer, "Switch Transformers", 2021, section 2.

    Attributes:
        capacity_factor: room of an expert, as a multiple of an even share.
    """

    capacity_factor: float = 1.25

    @property
    def top_1(self) -> TopK:
        """The same as a `TopK`."""
        return TopK(1, renormalise=False, capacity_factor=self.capacity_factor)

    def num_slots(self, num_experts: int) -> int:
        """One."""
        return 1

    def validate(self, num_experts: int) -> None:
        """Raises RoutingError for a factor that is not positive."""
        self.top_1.validate(num_experts)

    def capacity(self, num_tokens: int, num_experts: int) -> int | None:
        """The capacity factor times an even share of the tokens, rounded up."""
        return self.top_1.capacity(num_tokens, num_experts)

    def route(self, logits: Array, bias: Array | None = None) -> Routing:
        """Choose for logits [T, E]; nothing is dropped yet."""
        return self.top_1.route(logits, bias)


@dataclass(frozen=True)
class TopP(_Unlimited):
    """As many experts as a token needs: the most probable ones, until they reach probability p together.

    A token that the router is sure of gets one expert, one that it doubts gets more.  With `most=2` this
    is the threshold rule: one expert if its probability is at least p, otherwise two.
    Huang et al., "Harder Tasks Need More Experts: Dynamic Routing in MoE Models", 2024.

    Attributes:
        p: the probability to reach, above 0 and up to 1.
        most: the most experts of a token.
        renormalise: divide the weights of the chosen by their sum.
    """

    p: float = 0.5
    most: int = 4
    renormalise: bool = True

    def num_slots(self, num_experts: int) -> int:
        """The most experts of a token."""
        return self.most

    def validate(self, num_experts: int) -> None:
        """Raises RoutingError if p is no probability, or there are fewer experts than slots."""
        _check_k(self.most, num_experts)
        if not 0 < self.p <= 1:
            raise RoutingError(f"p is {self.p}: use a probability above 0 and up to 1")

    def route(self, logits: Array, bias: Array | None = None) -> Routing:
        """Choose for logits [T, E]; the slots that a token does not need hold `NO_EXPERT`."""
        logits, finite = _begin(self, logits, bias, takes_bias=False)
        experts = top(logits, self.most)
        weights = np.take_along_axis(softmax(logits), experts, axis=1)
        before = np.cumsum(weights, axis=1) - weights
        needed = before.astype(np.float32) < np.float32(self.p)
        needed[:, 0] = True
        experts, weights = np.where(needed, experts, NO_EXPERT), np.where(needed, weights, 0)
        if self.renormalise:
            weights = weights / weights.sum(axis=1, keepdims=True)
        return _finish(experts, weights, finite, logits.shape[1])


@dataclass(frozen=True)
class DeepSeek(_Unlimited):
    """Sigmoid scores, a bias that balances the load without a loss, and only the best groups of experts.

    The bias decides who is chosen and never how much the chosen count; `balance.update_bias` moves it.  A
    group's score is the sum of its two best biased scores.
    "DeepSeek-V3 Technical Report", 2024, section 2.1.2; groups and scale as in its inference/model.py.

    Attributes:
        k: experts per token.
        num_groups: equal groups of neighbouring experts, those of a node for example.
        groups_kept: a token's experts lie in so many groups.
        scale: what the weights of a token add up to.
    """

    k: int = 8
    num_groups: int = 8
    groups_kept: int = 4
    scale: float = 2.5

    def num_slots(self, num_experts: int) -> int:
        """Experts per token."""
        return self.k

    def validate(self, num_experts: int) -> None:
        """Raises RoutingError if groups, slots and experts do not fit together."""
        _check_k(self.k, num_experts)
        if self.num_groups < 1 or num_experts % self.num_groups:
            raise RoutingError(f"{num_experts} experts cannot be split into {self.num_groups} equal groups")
        if not 1 <= self.groups_kept <= self.num_groups:
            raise RoutingError(f"groups_kept is {self.groups_kept}: use 1 to {self.num_groups}")
        size = num_experts // self.num_groups
        if self.k > self.groups_kept * size:
            raise RoutingError(
                f"{self.k} experts per token do not fit into {self.groups_kept} groups of {size}:"
                " keep more groups"
            )

    def route(self, logits: Array, bias: Array | None = None) -> Routing:
        """Choose for logits [T, E] and bias float32 [E], None for zeros."""
        logits, finite = _begin(self, logits, bias, takes_bias=True)
        num_tokens, num_experts = logits.shape
        scores = sigmoid(logits)
        choice = scores.astype(np.float32) + (np.float32(0) if bias is None else bias)
        by_group = choice.reshape(num_tokens, self.num_groups, num_experts // self.num_groups)
        best_two = -np.sort(-by_group, axis=2)[:, :, :2]
        kept = top(best_two.sum(axis=2, dtype=np.float32), self.groups_kept)
        allowed = np.zeros((num_tokens, self.num_groups), bool)
        np.put_along_axis(allowed, kept, True, axis=1)
        choice = np.where(np.repeat(allowed, num_experts // self.num_groups, axis=1), choice, -np.inf)
        experts = top(choice, self.k)
        weights = np.take_along_axis(scores, experts, axis=1)
        weights = weights / (weights.sum(axis=1, keepdims=True) + SMALLEST_SUM) * self.scale
        return _finish(experts, weights, finite, num_experts)


@dataclass(frozen=True)
class Sinkhorn(_Unlimited):
    """The k largest logits after a few rounds of balancing: every column is scaled to the same sum.

    A round divides the rows of exp(logits) by their sums and then the columns by theirs, so that all
    experts are wanted equally; the weight is still the unbalanced score: a sigmoid for k = 1, softmax
    beyond.  Tokens that are all alike stay alike, so they still go to one expert.

    Clark et al., "Unified Scaling Laws for Routed Language Models", 2022; Megatron-LM `sinkhorn`, which
    repeats until nothing changes where this does a fixed number of rounds, so that a graph can.

    Attributes:
        k: experts per token.
        rounds: of balancing; none is plain top-k.
    """

    k: int = 1
    rounds: int = 8

    def num_slots(self, num_experts: int) -> int:
        """Experts per token."""
        return self.k

    def validate(self, num_experts: int) -> None:
        """Raises RoutingError for too many slots or a negative number of rounds."""
        _check_k(self.k, num_experts)
        if self.rounds < 0:
            raise RoutingError(f"rounds is {self.rounds}: use 0 or more")

    def route(self, logits: Array, bias: Array | None = None) -> Routing:
        """Choose for logits [T, E]."""
        logits, finite = _begin(self, logits, bias, takes_bias=False)
        balance = sinkhorn_bias(logits[finite], self.rounds)
        experts = top(logits + balance, self.k)
        scores = sigmoid(logits) if self.k == 1 else softmax(logits)
        weights = np.take_along_axis(scores, experts, axis=1)
        return _finish(experts, weights, finite, logits.shape[1])


@dataclass(frozen=True)
class ExpertChoice(_Unlimited):
    """Experts choose tokens: each takes those with the highest probability for it, all the same number.

    Perfect balance, but a token may get no expert at all, or many; and which tokens are chosen depends on
    tokens that come later, so it does not suit generating text.
    Zhou et al., "Mixture-of-Experts with Expert Choice Routing", 2022, section 3.2.

    Attributes:
        factor: experts per token on average.
    """

    factor: float = 2.0

    def num_slots(self, num_experts: int) -> int:
        """E: slot e of a token is expert e, or `NO_EXPERT`."""
        return num_experts

    def validate(self, num_experts: int) -> None:
        """Raises RoutingError for a factor that is not positive."""
        _check_k(1, num_experts)
        capacity(0, 1, num_experts, self.factor)

    def tokens_per_expert(self, num_tokens: int, num_experts: int) -> int:
        """How many tokens each expert takes: num_tokens * factor / num_experts, rounded up, at most all."""
        return min(capacity(num_tokens, 1, num_experts, self.factor), num_tokens)

    def route(self, logits: Array, bias: Array | None = None) -> Routing:
        """Choose for logits [T, E]."""
        logits, finite = _begin(self, logits, bias, takes_bias=False)
        num_tokens, num_experts = logits.shape
        scores = softmax(logits)
        most = self.tokens_per_expert(num_tokens, num_experts)
        # why -1: below every probability, so that a token that is not finite is nobody's choice.
        choice = np.where(finite[:, None], scores.astype(np.float32), np.float32(-1))
        tokens = top(choice.T, most)
        chosen = np.zeros((num_experts, num_tokens), bool)
        np.put_along_axis(chosen, tokens, True, axis=1)
        experts = np.where(chosen.T, np.arange(num_experts), NO_EXPERT)
        return _finish(experts, np.where(chosen.T, scores, 0), finite, num_experts)


def top(values: Array, k: int) -> Array:
    """Indices of the k largest values of each row, largest first, the lowest index first among equals."""
    return np.argsort(-values, axis=1, kind="stable")[:, :k]


def softmax(logits: Array) -> Array:
    """Softmax of each row, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-logit)), in float64."""
    power = np.exp(-np.abs(logits.astype(np.float64)))  # why the absolute value: nothing overflows
    return np.where(logits >= 0, 1.0, power) / (1 + power)


def sinkhorn_bias(logits: Array, rounds: int) -> Array:
    """What balancing adds to each expert's logits: float32 [E], the logarithms of the column factors.

    Dividing a row changes none of its comparisons, so the factors of the columns are all there is.
    """
    num_tokens, num_experts = logits.shape
    distance = logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf)
    powers = np.exp(np.maximum(distance, LEAST_EXPONENT))
    factors = np.ones(num_experts)
    for _ in range(rounds if num_tokens else 0):
        rows = 1 / (powers @ factors)
        factors = num_tokens / num_experts / (rows @ powers)
    return np.log(factors).astype(np.float32)


def _check_k(k: int, num_experts: int) -> None:
    if not 1 <= num_experts <= MOST_EXPERTS:
        raise RoutingError(f"there are {num_experts} experts: use 1 to {MOST_EXPERTS}")
    if not 1 <= k <= num_experts:
        raise RoutingError(f"{k} experts per token are wanted and there are {num_experts}")


def _begin(router: Router, logits: Array, bias: Array | None, *, takes_bias: bool) -> tuple[Array, Array]:
    """Check logits and bias; the logits with rows that are not finite set to zero, and which are finite."""
    if logits.ndim != 2 or logits.dtype != np.float32:
        raise RoutingError(f"logits must be float32 [T, E], got {logits.dtype} {logits.shape}")
    router.validate(logits.shape[1])
    if bias is not None:
        if not takes_bias:
            raise RoutingError(f"{type(router).__name__} has no bias")
        if bias.shape != logits.shape[1:] or bias.dtype != np.float32 or not np.isfinite(bias).all():
            raise RoutingError(
                f"the bias must be finite float32 [{logits.shape[1]}], got {bias.dtype} {bias.shape}"
            )
    finite = np.asarray(np.isfinite(logits).all(axis=1))
    return np.where(finite[:, None], logits, np.float32(0)), finite


def _finish(experts: Array, weights: Array, finite: Array, num_experts: int) -> Routing:
    experts = np.where(finite[:, None], experts, NOT_FINITE).astype(np.int32)
    return Routing(experts, np.where(experts >= 0, weights, 0).astype(np.float32), num_experts)
