"""What a router hands on: for every token some experts and their weights, and what may go wrong with them.

    experts  int32   [T, k]   the expert of each of a token's k slots; negative: the slot has none
    weights  float32 [T, k]   what the expert's output counts for; 0 where there is no expert

A slot without an expert is `NO_EXPERT`: the router wanted fewer, or the expert had no room left.  All slots
of a token whose logits are not finite are `NOT_FINITE`: it takes no part, and it is counted.

An expert occurs at most once in a token's row.  This module needs NumPy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

NO_EXPERT = -1
NOT_FINITE = -2


class RoutingError(ValueError):
    """A routing that makes no sense, or logits that no router can use; the message says where."""


@dataclass(frozen=True)
class Routing:
    """Experts and weights of every token, on the host.

    Attributes:
        experts: int32 [T, k].
        weights: float32 [T, k].
        num_experts: E.
    """

    experts: Array
    weights: Array
    num_experts: int

    @property
    def num_tokens(self) -> int:
        """T."""
        return int(self.experts.shape[0])

    @property
    def num_slots(self) -> int:
        """k: the most experts that a token can have."""
        return int(self.experts.shape[1])

    @property
    def counts(self) -> Array:
        """int32 [E]: tokens of each expert."""
        chosen = self.experts[self.experts >= 0]
        return np.bincount(chosen, minlength=self.num_experts).astype(np.int32)

    @property
    def bad_tokens(self) -> Array:
        """The tokens whose logits were not finite, ascending."""
        return np.flatnonzero((self.experts == NOT_FINITE).any(axis=1))

    def raise_if_bad(self) -> None:
        """Refuse a routing of logits that were not finite.

        Raises:
            RoutingError: with the number of such tokens and the first of them.
        """
        if len(self.bad_tokens):
            raise RoutingError(describe_bad(len(self.bad_tokens), self.num_tokens, int(self.bad_tokens[0])))

    def check(self) -> None:
        """Check shapes, dtypes, the range of experts and that none occurs twice in a row.

        Raises:
            RoutingError: naming the first token that is wrong.
        """
        if self.experts.ndim != 2 or self.experts.dtype != np.int32:
            raise RoutingError(f"experts must be int32 [T, k], got {self.experts.dtype} {self.experts.shape}")
        if self.weights.shape != self.experts.shape or self.weights.dtype != np.float32:
            raise RoutingError(
                f"weights must be float32 {self.experts.shape}, got {self.weights.dtype} {self.weights.shape}"
            )
        outside = (self.experts >= self.num_experts) | (self.experts < NOT_FINITE)
        if outside.any():
            token, slot = np.argwhere(outside)[0]
            raise RoutingError(
                f"token {token} goes to expert {self.experts[token, slot]}, and there are {self.num_experts}"
            )
        ordered = np.sort(self.experts, axis=1)
        twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        if twice.any():
            token, slot = np.argwhere(twice)[0]
            raise RoutingError(f"token {token} goes to expert {ordered[token, slot]} twice")


def describe_bad(num_bad: int, num_tokens: int, first: int) -> str:
    """What is wrong with a routing that has tokens with logits that are not finite."""
    return (
        f"{num_bad} of {num_tokens} tokens have logits that are not finite, the first is token {first}:"
        " look for an overflow or a NaN before the router"
    )


def capacity(num_tokens: int, num_slots: int, num_experts: int, factor: float) -> int:
    """Tokens that an expert may take: an even share of all slots, times factor, rounded up.

    Switch Transformers, section 2.2, with one slot; Megatron-LM counts the slots as this does.

    Raises:
        RoutingError: the factor is not a positive number.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise RoutingError(f"the capacity factor is {factor}: use a positive number, such as 1.25")
    return math.ceil(factor * num_tokens * num_slots / num_experts)


def ranks(experts: Array) -> Array:
    """How many earlier slots go to the same expert: int32 [T, k], by token and then by slot."""
    flat = experts.reshape(-1)
    order = np.argsort(flat, kind="stable")
    first = np.searchsorted(flat[order], flat)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return (place - first).astype(np.int32).reshape(experts.shape)


def drop_by_position(routing: Routing, most: int) -> Routing:
    """Every expert keeps its first `most` tokens, in the order of the tokens; the others lose the slot."""
    return _keep(routing, ranks(routing.experts) < most)


def drop_by_weight(routing: Routing, most: int) -> Routing:
    """Every expert keeps the `most` tokens that it weighs heaviest; among equal weights, the first.

    The slots that stay keep their weights: what was dropped is not shared out.
    """
    experts = np.where(routing.experts < 0, routing.num_experts, routing.experts)
    kept = np.zeros(experts.shape, bool)
    for expert in range(routing.num_experts):
        tokens, slots = np.nonzero(experts == expert)
        heaviest = np.argsort(-routing.weights[tokens, slots], kind="stable")[:most]
        kept[tokens[heaviest], slots[heaviest]] = True
    return _keep(routing, kept)


def _keep(routing: Routing, kept: Array) -> Routing:
    experts = np.where((routing.experts >= 0) & ~kept, np.int32(NO_EXPERT), routing.experts)
    weights = np.where(experts >= 0, routing.weights, np.float32(0))
    return replace(routing, experts=experts, weights=weights)
