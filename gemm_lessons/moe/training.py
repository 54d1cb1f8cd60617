"""A toy task in which experts specialise, and a training loop of ten lines without a framework.

    plane     four clusters of points, two to the left and two to the right
    target    the offset from the point's own cluster, turned by an angle that belongs to the cluster
    layer     4 experts with 4 hidden features each: enough for one angle, too few for all

A router that sends each cluster to an expert of its own solves it. Nothing says so: the gradient has to
find out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gemm_lessons.moe.backward import ORACLE, Array, Operations, Saved, Weights, backward, forward

CENTRES = np.array([(-0.6, -0.6), (0.6, -0.6), (-0.6, 0.6), (0.6, 0.6)])
ANGLES = np.array([0.0, 0.5, 1.0, 1.5]) * np.pi
SPREAD = 0.2  # of a cluster: its standard deviation in each direction
WIDTH = 3  # of a token: two coordinates and a 1, so that the layer needs no biases
NUM_EXPERTS = 4
HIDDEN = 4
TOKENS = 128  # of a step
STEPS = 400


def tokens_at(points: Array) -> Array:
    """The tokens of points [T, 2] in the plane: float32 [T, 3], the last feature 1."""
    return np.concatenate([points, np.ones((len(points), 1))], axis=1).astype(np.float32)


def draw_task(rng: np.random.Generator, num_tokens: int) -> tuple[Array, Array, Array]:
    """Random tokens of the task.

    Returns:
        x float32 [T, 3], target float32 [T, 3], and the cluster of each token, int [T].
    """
    cluster = rng.integers(0, len(CENTRES), num_tokens)
    offset = rng.standard_normal((num_tokens, 2))
    cosine, sine = np.cos(ANGLES[cluster]), np.sin(ANGLES[cluster])
    turned = (cosine * offset[:, 0] - sine * offset[:, 1], sine * offset[:, 0] + cosine * offset[:, 1])
    target = np.stack([*turned, np.zeros(num_tokens)], axis=1).astype(np.float32)
    return tokens_at(CENTRES[cluster] + SPREAD * offset), target, cluster


def start_weights(rng: np.random.Generator) -> Weights:
    """Random weights in float32; the router's are small, so that no expert is preferred much."""
    router = 0.1 * rng.standard_normal((NUM_EXPERTS, WIDTH))
    gate_up = rng.standard_normal((NUM_EXPERTS, 2 * HIDDEN, WIDTH)) / np.sqrt(WIDTH)
    down = rng.standard_normal((NUM_EXPERTS, WIDTH, HIDDEN)) / np.sqrt(HIDDEN)
    return Weights(*(each.astype(np.float32) for each in (router, gate_up, down)))


def balance_gradient(saved: Saved, strength: float) -> Array:
    """The gradient of Switch's balance loss with respect to the probabilities: [T, E].

    loss = strength * E * sum over experts of (share of the slots) * (mean probability). A share is a count
    and has no gradient; the mean has 1 / T for each token. Fedus, Zoph, Shazeer, "Switch Transformers",
    2021, equations 4 to 6.
    """
    num_tokens, num_experts = saved.probabilities.shape
    shares = np.diff(saved.offsets) / max(int(saved.offsets[-1]), 1)
    row = strength * num_experts * shares / max(num_tokens, 1)
    gradient: Array = np.broadcast_to(row, saved.probabilities.shape).astype(saved.probabilities.dtype)
    return gradient


class Adam:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1."""

    def __init__(self, rate: float = 0.02, keep: tuple[float, float] = (0.9, 0.99)) -> None:
        self._rate, self._keep, self._steps = rate, keep, 0
        self._means: list[Array] = []
        self._squares: list[Array] = []

    def step(self, weights: Weights, gradients: Weights) -> Weights:
        """New weights, a step down the gradients."""
        if not self._means:
            self._means = [np.zeros_like(each) for each in weights]
            self._squares = [np.zeros_like(each) for each in weights]
        self._steps += 1
        first, second = self._keep
        rate = self._rate * np.sqrt(1 - second**self._steps) / (1 - first**self._steps)
        new = []
        for i, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            self._means[i] = first * self._means[i] + (1 - first) * gradient
            self._squares[i] = second * self._squares[i] + (1 - second) * np.square(gradient)
            new.append(
                (weight - rate * self._means[i] / (np.sqrt(self._squares[i]) + 1e-8)).astype(weight.dtype)
            )
        return Weights(*new)


@dataclass
class History:
    """What happened in training.

    Attributes:
        losses: mean squared distance from the target, of each step.
        loads: int [num_experts], tokens of each expert, of each step.
        weights: before the first step, and after each one.
    """

    losses: list[float] = field(default_factory=list)
    loads: list[Array] = field(default_factory=list)
    weights: list[Weights] = field(default_factory=list)


def train(seed: int, balance: float, steps: int = STEPS, operations: Operations = ORACLE) -> History:
    """Train the layer on the task, each token on one expert that its own probability weighs (Switch)."""
    rng, adam, history = np.random.default_rng(seed), Adam(), History()
    history.weights.append(start_weights(rng))
    for _ in range(steps):
        weights = history.weights[-1]
        x, target, _ = draw_task(rng, TOKENS)
        y, saved = forward(weights, x, 1, operations, renormalise=False)
        dy = 2 / len(x) * (y - target)
        pull = balance_gradient(saved, balance)
        _, gradients = backward(weights, saved, dy, operations, d_probabilities=pull)
        history.weights.append(adam.step(weights, gradients))
        history.losses.append(float(np.mean(np.sum(np.square(y - target), axis=1))))
        history.loads.append(np.diff(saved.offsets))
    return history


def owners(weights: Weights, x: Array) -> Array:
    """The expert that each token [T, WIDTH] goes to: int [T]."""
    chosen: Array = np.argmax(x @ weights.router.T, axis=1)
    return chosen


def shares_of_clusters(weights: Weights, seed: int = 1, num_tokens: int = 4096) -> Array:
    """[clusters, experts]: which share of a cluster's tokens each expert gets."""
    x, _, cluster = draw_task(np.random.default_rng(seed), num_tokens)
    chosen = owners(weights, x)
    return np.array(
        [
            np.bincount(chosen[cluster == one], minlength=len(weights.router))
            / max((cluster == one).sum(), 1)
            for one in range(len(CENTRES))
        ]
    )
