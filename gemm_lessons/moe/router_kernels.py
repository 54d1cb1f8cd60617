"""The routers of `router` as kernels: logits [T, E] in, experts and weights [T, k] out, nothing on the host.

    choose             a few lanes look after a token: one pass over its E logits, then k times the best
    score, select      expert choice: probabilities by expert, then the best tokens of each expert
    balance            Sinkhorn: rounds of row and column sums, that end as a bias for choose
    losses             Switch's loss and the z-loss, from the same sums of rows
    update_bias        DeepSeek-V3's rule, from the counts that permute leaves on the device

Every sum is added up in a fixed order, and a comparison of equals goes to the lower index, so the same
logits give the same bits in every run.  Each kernel's oracle is the router's `route`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.launch import Launch, Part, to_device
from gemm_lessons.moe.permute import (
    ALL_LANES,
    PreparedPermutation,
    scan_warp,
)
from gemm_lessons.moe.router import (
    LEAST_EXPONENT,
    SMALLEST_SUM,
    DeepSeek,
    ExpertChoice,
    Router,
    Sinkhorn,
    Switch,
    TopK,
    TopP,
)
from gemm_lessons.moe.routing import NO_EXPERT, NOT_FINITE, Routing, RoutingError
from gemm_lessons.problem import LARGEST_EXTENT
from gemm_lessons.ptx.bits import as_word
from gemm_lessons.ptx.compiling import inlined

device.choose()

from numba import cuda, float32, int32  # noqa: E402  why late: the device is chosen before

MOST_SLOTS = 32  # one lane of a token's writes each slot
SOFTMAX, SIGMOID = 0, 1
INFINITY = np.float32(np.inf)


@dataclass(frozen=True)
class Config:
    """Compile-time constants of `choose`; `config_of` derives them from a router.

    Attributes:
        num_experts: E.
        num_slots: k.
        score: what a weight is made of: SOFTMAX or SIGMOID.
        choose_by_score: the choice is by score + bias, otherwise by logit + bias.
        renormalise: weights are divided by the sum of the chosen ones.
        scale: and multiplied by this.
        p: stop when the chosen ones reach this probability; 0 for never.
        num_groups: groups of experts, of which `groups_kept` may be used.
        groups_kept: as many as there are groups for no limit.
        threads: of a block.
    """

    num_experts: int
    num_slots: int
    score: int = SOFTMAX
    choose_by_score: bool = False
    renormalise: bool = False
    scale: float = 1.0
    p: float = 0.0
    num_groups: int = 1
    groups_kept: int = 1
    threads: int = 128

    @property
    def lanes(self) -> int:
        """Lanes that look after one token: a power of two, so that a warp holds whole tokens."""
        return min(32, 1 << (self.num_experts - 1).bit_length())

    @property
    def tokens_per_block(self) -> int:
        """Tokens of a block."""
        return self.threads // self.lanes


def config_of(router: Router, num_experts: int) -> Config:
    """The compile-time constants of a router whose tokens choose.

    Raises:
        RoutingError: the settings do not fit the experts, or there are more slots or groups than lanes.
    """
    router.validate(num_experts)
    config = Config(num_experts, router.num_slots(num_experts))
    if isinstance(router, Switch):
        router = router.top_1
    if isinstance(router, TopK):
        config = Config(num_experts, router.k, renormalise=router.renormalise)
    elif isinstance(router, TopP):
        config = Config(num_experts, router.most, renormalise=router.renormalise, p=router.p)
    elif isinstance(router, Sinkhorn):
        config = Config(num_experts, router.k, score=SIGMOID if router.k == 1 else SOFTMAX)
    elif isinstance(router, DeepSeek):
        config = Config(
            num_experts,
            router.k,
            score=SIGMOID,
            choose_by_score=True,
            renormalise=True,
            scale=router.scale,
            num_groups=router.num_groups,
            groups_kept=router.groups_kept,
        )
    else:
        raise RoutingError(f"{type(router).__name__} has no kernel in which tokens choose")
    if config.num_slots > MOST_SLOTS or config.num_groups > 32:
        raise RoutingError(
            f"{config.num_slots} slots and {config.num_groups} groups: the kernels take 32 of each at most"
        )
    return config


@inlined
def power(value):
    """Exp of a float32."""
    return math.exp(value)


@inlined
def sigmoid(value):
    """1 / (1 + exp(-value)); nothing overflows on the way."""
    small = power(-abs(value))
    if value >= float32(0):
        return float32(1) / (float32(1) + small)
    return small / (float32(1) + small)


@cache
def make_choose_token(config: Config) -> Any:
    """Make the device function `choose_token(logits, bias, token, num_tokens, s_choice, experts, weights)`.

    All lanes of a warp call it, `config.lanes` of them with the same token; a token from num_tokens on
    does nothing.  s_choice is a row of shared memory, float32 [E], where there are groups.
    """
    E, k, lanes = config.num_experts, config.num_slots, config.lanes
    per_lane = -(-E // lanes)  # expert i * lanes + lane is in this lane's element i
    group_size, num_groups, groups_kept = E // config.num_groups, config.num_groups, config.groups_kept
    grouped = groups_kept < num_groups
    by_score, renormalise, softmax = config.choose_by_score, config.renormalise, config.score == SOFTMAX
    scale, p, dynamic = np.float32(config.scale), np.float32(config.p), config.p > 0
    smallest = np.float32(SMALLEST_SUM)
    minus_infinity = -INFINITY

    @inlined
    def across_max(value):
        distance = lanes >> 1
        while distance > 0:
            value = max(value, cuda.shfl_xor_sync(ALL_LANES, value, distance))
            distance >>= 1
        return value

    @inlined
    def across_sum(value):
        distance = lanes >> 1
        while distance > 0:
            value += cuda.shfl_xor_sync(ALL_LANES, value, distance)
            distance >>= 1
        return value

    @inlined
    def across_best(value, index):
        """The largest value of a token's lanes, and its index; the lowest index among equals."""
        distance = lanes >> 1
        while distance > 0:
            other = cuda.shfl_xor_sync(ALL_LANES, value, distance)
            other_index = cuda.shfl_xor_sync(ALL_LANES, index, distance)
            if other > value or (other == value and other_index < index):
                value, index = other, other_index
            distance >>= 1
        return value, index

    @inlined
    def keep_best_groups(s_choice, lane):
        """A bit for each group of experts that may be used: the best by the sum of their two best."""
        first, second = float32(minus_infinity), float32(minus_infinity)
        if lane < num_groups:
            for i in range(group_size):
                # why + lane: else all lanes would read the same bank of shared memory.
                value = s_choice[lane * group_size + (i + lane) % group_size]
                second = max(second, min(first, value))
                first = max(first, value)
        group_score = first
        if group_size > 1:
            group_score = first + second
        kept = int32(0)
        for _ in range(groups_kept):
            _, group = across_best(group_score, int32(lane))
            kept |= int32(1) << group
            if group == lane:
                group_score = float32(minus_infinity)
        return kept

    @inlined
    def choose_token(logits, bias, token, num_tokens, s_choice, experts, weights):
        r_logit = cuda.local.array(per_lane, float32)
        r_choice = cuda.local.array(per_lane, float32)
        lane = int32(cuda.threadIdx.x & (lanes - 1))
        here = token < num_tokens

        finite, largest = int32(1), float32(minus_infinity)
        for i in range(per_lane):
            expert = i * lanes + lane
            r_logit[i] = float32(minus_infinity)
            if here and expert < E:
                logit = logits[token, expert]
                if not abs(logit) < INFINITY:  # why not >=: NaN is neither
                    finite = int32(0)
                    logit = float32(0)
                r_logit[i] = logit
            largest = max(largest, r_logit[i])
        finite = -across_max(-finite)
        largest = across_max(largest)
        if not here:
            largest = float32(0)

        total = float32(0)
        for i in range(per_lane):
            expert = i * lanes + lane
            r_choice[i] = float32(minus_infinity)
            if here and expert < E:
                r_choice[i] = r_logit[i]
                if softmax:
                    total += power(r_logit[i] - largest)
                if by_score:
                    r_choice[i] = sigmoid(r_logit[i])
                r_choice[i] += bias[expert]
        total = across_sum(total)

        if grouped:
            for i in range(per_lane):
                if i * lanes + lane < E:
                    s_choice[i * lanes + lane] = r_choice[i]
            cuda.syncwarp()  # why: a lane looks at a whole group, and other lanes wrote it
            kept = keep_best_groups(s_choice, lane)
            cuda.syncwarp()  # why: the next token may not overwrite what a slow lane still reads
            for i in range(per_lane):
                if not (kept >> ((i * lanes + lane) // group_size)) & 1:
                    r_choice[i] = float32(minus_infinity)

        my_expert, my_weight = int32(NO_EXPERT), float32(0)
        chosen_sum, reached = float32(0), float32(0)
        for slot in range(k):
            value, index = float32(minus_infinity), int32(E)
            for i in range(per_lane):
                if r_choice[i] > value:
                    value, index = r_choice[i], int32(i * lanes + lane)
            _, index = across_best(value, index)
            logit = float32(0)
            for i in range(per_lane):
                if i * lanes + lane == index:
                    logit = r_logit[i]
                    r_choice[i] = float32(minus_infinity)  # taken
            owner = (cuda.threadIdx.x & 31 & ~(lanes - 1)) | (index & (lanes - 1))
            logit = cuda.shfl_sync(ALL_LANES, logit, owner)
            weight = float32(0)
            if softmax:
                weight = power(logit - largest)
                if not renormalise:
                    weight /= total
            else:
                weight = sigmoid(logit)
            if not dynamic or slot == 0 or reached < p:
                chosen_sum += weight
                if lane == slot:
                    my_expert, my_weight = index, weight
            if dynamic:
                if renormalise:
                    reached += weight / total
                else:
                    reached += weight
        if renormalise:
            if softmax:
                my_weight = my_weight / chosen_sum
            else:
                my_weight = my_weight / (chosen_sum + smallest) * scale

        if here and lane < k:
            if finite == 0:
                my_expert, my_weight = int32(NOT_FINITE), float32(0)
            experts[token, lane] = my_expert
            weights[token, lane] = my_weight

    return choose_token


@cache
def make_choose(config: Config) -> Any:
    """Experts and weights [T, k] of logits [T, E], with a bias [E] for the choice alone."""
    choose_token = make_choose_token(config)
    lanes, tokens_per_block = config.lanes, config.tokens_per_block
    shared_rows = tokens_per_block if config.groups_kept < config.num_groups else 1
    E = config.num_experts

    @cuda.jit
    def choose_kernel(logits, bias, experts, weights):
        s_choice = cuda.shared.array((shared_rows, E), float32)
        place = cuda.threadIdx.x // lanes
        token = cuda.blockIdx.x * tokens_per_block + place
        row = s_choice[place % shared_rows]
        choose_token(logits, bias, token, logits.shape[0], row, experts, weights)

    return choose_kernel


@cache
def make_score(num_experts: int) -> Any:
    """Probabilities by expert, [E, T], of logits [T, E]; a thread looks after a token.

    A token that is not finite gets the probability -1, below all others, and is marked in experts [T, E];
    all other slots are set to `NO_EXPERT` with weight 0, for `select` to fill.
    """
    E = num_experts

    @cuda.jit
    def score_kernel(logits, probabilities, experts, weights):
        token = cuda.grid(1)
        if token >= logits.shape[0]:
            return
        finite, largest = True, float32(-INFINITY)
        for expert in range(E):
            logit = logits[token, expert]
            finite = finite and abs(logit) < INFINITY
            largest = max(largest, logit)
        total = float32(0)
        if finite:
            for expert in range(E):
                total += power(logits[token, expert] - largest)
        for expert in range(E):
            probability, mark = float32(-1), int32(NOT_FINITE)
            if finite:
                probability, mark = power(logits[token, expert] - largest) / total, int32(NO_EXPERT)
            probabilities[expert, token] = probability
            experts[token, expert] = mark
            weights[token, expert] = float32(0)

    return score_kernel


BINS = 256  # of one pass: a byte of the 32 bits of a key


@cache
def make_threshold(threads: int) -> Any:
    """Make the device function that finds the key which separates the largest keys from the others.

    A radix select: four passes over a byte each, highest first, count the keys that agree so far.  Integers
    add up to the same counts in any order, so the result does not depend on who is first.
    """

    @inlined
    def threshold(keys, num_keys, wanted, s_bins, s_state):
        """Key of the wanted-th largest of non-negative keys, and how many keys equal to it are needed.

        All threads of the block call it; 1 <= wanted <= num_keys.
        """
        tid = cuda.threadIdx.x
        found, needed = int32(0), int32(wanted)
        for step in range(4):
            shift = 24 - 8 * step
            for b in range(tid, BINS, threads):
                s_bins[b] = 0
            cuda.syncthreads()  # why: nobody may count before all bins are zero
            for i in range(tid, num_keys, threads):
                key = keys[i]
                if step == 0 or key >> (shift + 8) == found:
                    cuda.atomic.add(s_bins, (key >> shift) & 255, 1)
            cuda.syncthreads()  # why: the counts must be complete
            if tid < 32:  # a lane sums eight bins, and the one that holds the wanted key finds it
                highest = 255 - 8 * tid
                count = int32(0)
                for b in range(8):
                    count += s_bins[highest - b]
                above = scan_warp(count) - count
                if above < needed <= above + count:
                    b = highest
                    while above + s_bins[b] < needed:
                        above += s_bins[b]
                        b -= 1
                    s_state[0], s_state[1] = (found << 8) | b, needed - above
            cuda.syncthreads()  # why: one lane has found it, all go on with it
            found, needed = s_state[0], s_state[1]
        return found, needed

    return threshold


@cache
def make_rank_in_block(threads: int) -> Any:
    """Make the device function that ranks the threads for which something holds."""
    num_warps = threads // 32

    @inlined
    def rank_in_block(holds, s_counts):
        """How many threads before this one it holds for, and for how many of the block; all call it."""
        lane, warp = cuda.threadIdx.x & 31, cuda.threadIdx.x >> 5
        votes = cuda.ballot_sync(ALL_LANES, holds)
        if lane == 0:
            s_counts[warp] = cuda.popc(votes)
        cuda.syncthreads()  # why: a thread needs the counts of all warps
        rank, total = int32(cuda.popc(votes & ((1 << lane) - 1))), int32(0)
        for other in range(num_warps):
            if other < warp:
                rank += s_counts[other]
            total += s_counts[other]
        cuda.syncthreads()  # why: the next call overwrites the counts
        return rank, total

    return rank_in_block


@cache
def make_select(threads: int) -> Any:
    """Expert choice: each expert, a block, takes the tokens with its largest probabilities.

    probabilities [E, T] are those of `score`; keys int32 [E, T] is scratch.  Writes slot e of experts and
    weights [T, E] for every token that expert e takes.
    """
    threshold, rank_in_block = make_threshold(threads), make_rank_in_block(threads)
    num_warps = threads // 32

    @cuda.jit
    def select_kernel(probabilities, wanted, keys, experts, weights):
        s_bins = cuda.shared.array(BINS, int32)
        s_state = cuda.shared.array(2, int32)
        s_counts = cuda.shared.array(num_warps, int32)
        tid, expert, num_tokens = cuda.threadIdx.x, cuda.blockIdx.x, probabilities.shape[1]
        my_keys = keys[expert]
        for token in range(tid, num_tokens, threads):
            # The bits of floats from zero up are in the order of the floats.  why + 1: zero is for tokens
            # that nobody may take.
            key = int32(0)
            if probabilities[expert, token] >= float32(0):
                key = int32(as_word(probabilities[expert, token])) + 1
            my_keys[token] = key
        cuda.syncthreads()  # why: every thread reads keys that others wrote
        least, num_equal = threshold(my_keys, num_tokens, wanted, s_bins, s_state)

        before = int32(0)
        for first in range(0, num_tokens, threads):  # in order: among equals, the first tokens are taken
            token = first + tid
            key = int32(0)
            if token < num_tokens:
                key = my_keys[token]
            rank, total = rank_in_block(key == least, s_counts)
            if key > 0 and (key > least or (key == least and before + rank < num_equal)):
                experts[token, expert] = expert
                weights[token, expert] = probabilities[expert, token]
            before += total

    return select_kernel


@cache
def make_drop(threads: int) -> Any:
    """Capacity by weight: each expert, a block, keeps the slots with its largest weights, in place.

    offsets [E + 1] and source [rows] are those of a permutation without capacity; keys int32 [rows] is
    scratch.  A dropped slot loses its expert in experts [T * k] and its weight in weights [T * k].
    """
    threshold, rank_in_block = make_threshold(threads), make_rank_in_block(threads)
    num_warps = threads // 32

    @cuda.jit
    def drop_kernel(offsets, source, capacity, keys, experts, weights):
        s_bins = cuda.shared.array(BINS, int32)
        s_state = cuda.shared.array(2, int32)
        s_counts = cuda.shared.array(num_warps, int32)
        tid, start = cuda.threadIdx.x, offsets[cuda.blockIdx.x]
        count = offsets[cuda.blockIdx.x + 1] - start
        if count <= capacity:
            return
        my_keys = keys[start : start + count]
        for row in range(tid, count, threads):
            my_keys[row] = int32(as_word(weights[source[start + row]]))
        cuda.syncthreads()  # why: every thread reads keys that others wrote
        least, num_equal = int32(LARGEST_EXTENT), int32(0)
        if capacity > 0:
            least, num_equal = threshold(my_keys, count, capacity, s_bins, s_state)

        before = int32(0)
        for first in range(0, count, threads):
            row = first + tid
            key = int32(LARGEST_EXTENT)
            if row < count:
                key = my_keys[row]
            rank, total = rank_in_block(key == least, s_counts)
            if row < count and (key < least or (key == least and before + rank >= num_equal)):
                experts[source[start + row]] = int32(NO_EXPERT)
                weights[source[start + row]] = float32(0)
            before += total

    return drop_kernel


@cache
def make_balance_rows(num_experts: int, threads: int, with_z: bool = False) -> Any:
    """One half of a Sinkhorn round: partial [num_blocks, E + 1], the column sums of the scaled rows.

    A row is scaled to add up to 1.  Column E counts the finite tokens.  factors [E] are those of the last
    round; in the first one they are 1, so that the rows are their softmax.  With z, column E + 1 has the
    sum of log(sum(exp(logits))) ** 2.
    """
    E, lanes = num_experts, Config(num_experts, 1).lanes
    per_lane, tokens_per_block = -(-E // lanes), threads // lanes
    columns, least = E + 1 + with_z, np.float32(LEAST_EXPONENT)

    @cuda.jit
    def balance_rows_kernel(logits, factors, is_first, partial):
        s_sums = cuda.shared.array((tokens_per_block, columns), float32)
        r_power = cuda.local.array(per_lane, float32)
        r_sum = cuda.local.array(per_lane, float32)
        tid = cuda.threadIdx.x
        lane, place = tid & (lanes - 1), tid // lanes
        num_finite, z = float32(0), float32(0)
        for i in range(per_lane):
            r_sum[i] = float32(0)
        step = cuda.gridDim.x * tokens_per_block
        for first in range(cuda.blockIdx.x * tokens_per_block, logits.shape[0], step):
            token = first + place
            finite, largest = int32(token < logits.shape[0]), float32(-INFINITY)
            for i in range(per_lane):
                expert = i * lanes + lane
                r_power[i] = float32(-INFINITY)
                if token < logits.shape[0] and expert < E:
                    r_power[i] = logits[token, expert]
                    if not abs(r_power[i]) < INFINITY:
                        finite = int32(0)
                largest = max(largest, r_power[i])
            for distance in (16, 8, 4, 2, 1):
                if distance < lanes:
                    largest = max(largest, cuda.shfl_xor_sync(ALL_LANES, largest, distance))
                    finite = min(finite, cuda.shfl_xor_sync(ALL_LANES, finite, distance))
            total = float32(0)
            for i in range(per_lane):
                expert = i * lanes + lane
                if finite and expert < E:
                    r_power[i] = power(max(r_power[i] - largest, least))
                    if not is_first:
                        r_power[i] *= factors[expert]
                    total += r_power[i]
            for distance in (16, 8, 4, 2, 1):
                if distance < lanes:
                    total += cuda.shfl_xor_sync(ALL_LANES, total, distance)
            if finite:
                num_finite += float32(1)
                if with_z:
                    size = largest + math.log(total)
                    z += size * size
                for i in range(per_lane):
                    if i * lanes + lane < E:
                        r_sum[i] += r_power[i] / total
        for i in range(per_lane):
            if i * lanes + lane < E:
                s_sums[place, i * lanes + lane] = r_sum[i]
        if lane == 0:
            s_sums[place, E] = num_finite
            if with_z:
                s_sums[place, E + 1] = z
        cuda.syncthreads()  # why: a column is summed over what all threads have written
        for column in range(tid, columns, threads):
            total = float32(0)
            for other in range(tokens_per_block):
                total += s_sums[other, column]
            partial[cuda.blockIdx.x, column] = total

    return balance_rows_kernel


@cuda.jit
def balance_columns(partial, is_first, factors, bias):
    """The other half of a round, one block: factors [E] that make the columns equal, and their logarithms.

    What the rows have summed already holds the old factors, so the new ones are corrections to them.
    """
    E = factors.shape[0]
    for expert in range(cuda.threadIdx.x, E, cuda.blockDim.x):
        column, num_finite = float32(0), float32(0)
        for block in range(partial.shape[0]):
            column += partial[block, expert]
            num_finite += partial[block, E]
        factor = float32(1)
        if not is_first:
            factor = factors[expert]
        if num_finite > float32(0):
            factor *= num_finite / float32(E) / column
        factors[expert] = factor
        bias[expert] = math.log(factor)


@cache
def make_losses(num_experts: int, threads: int) -> Any:
    """`balance.switch_loss` and `balance.z_loss` from what the rows have summed: losses [2], one block."""
    E, columns = num_experts, num_experts + 2

    @cuda.jit
    def losses_kernel(partial, counts, losses):
        s_sums = cuda.shared.array(columns, float32)
        for column in range(cuda.threadIdx.x, columns, threads):
            total = float32(0)
            for block in range(partial.shape[0]):
                total += partial[block, column]
            s_sums[column] = total
        cuda.syncthreads()  # why: one thread adds up what all have summed
        if cuda.threadIdx.x == 0:
            num_slots, products = float32(0), float32(0)
            for expert in range(E):
                num_slots += float32(counts[expert])
                products += float32(counts[expert]) * s_sums[expert]
            losses[0], losses[1] = float32(0), float32(0)
            if num_slots > float32(0):
                losses[0] = float32(E) * products / (num_slots * s_sums[E])
            if s_sums[E] > float32(0):
                losses[1] = s_sums[E + 1] / s_sums[E]

    return losses_kernel


@cuda.jit
def update_bias_kernel(counts, rate, bias):
    """`balance.update_bias` in place, one block: bias float32 [E], counts int32 [E] and more."""
    E = bias.shape[0]
    for expert in range(cuda.threadIdx.x, E, cuda.blockDim.x):
        total = int32(0)
        for other in range(E):
            total += counts[other]
        distance = total - E * counts[expert]
        if distance > 0:
            bias[expert] += rate
        elif distance < 0:
            bias[expert] -= rate


@dataclass
class PreparedRouter:
    """A router on one array of logits, ready to be launched; everything is on the device.

    Attributes:
        router: what it was made from.
        num_experts: E.
        experts: int32 [T, k].
        weights: float32 [T, k].
        bias: float32 [E], added for the choice only; a `DeepSeek` router's may be changed between launches.
        capacity: what to give to `prepare_permutation`.
        parts: the launches, by name, in order.
    """

    router: Router
    num_experts: int
    experts: Any
    weights: Any
    bias: Any
    capacity: int | None
    parts: Mapping[str, Part]

    def __call__(self, stream: Any = None) -> None:
        """Enqueue all parts, in order; allocates nothing."""
        for part in self.parts.values():
            part(stream)

    def read(self) -> Routing:
        """Wait for the device and fetch the routing."""
        cuda.synchronize()
        return Routing(self.experts.copy_to_host(), self.weights.copy_to_host(), self.num_experts)


def allocate_router(router: Router, num_tokens: int, num_experts: int, bias: Any = None) -> PreparedRouter:
    """What a router writes, without launches: for kernels that fill it in their own way.

    Arguments and errors are those of `prepare_router`.
    """
    router.validate(num_experts)
    if bias is not None and not isinstance(router, DeepSeek):
        raise RoutingError(f"{type(router).__name__} has no bias")
    bias = to_device(np.zeros(num_experts, np.float32) if bias is None else bias)
    if tuple(bias.shape) != (num_experts,) or bias.dtype != np.float32:
        raise RoutingError(f"the bias must be float32 [{num_experts}], got {bias.dtype} {tuple(bias.shape)}")
    shape = (num_tokens, router.num_slots(num_experts))
    return PreparedRouter(
        router,
        num_experts,
        experts=cuda.device_array(shape, np.int32),
        weights=cuda.device_array(shape, np.float32),
        bias=bias,
        capacity=router.capacity(num_tokens, num_experts),
        parts={},
    )


def prepare_router(router: Router, logits: Any, bias: Any = None) -> PreparedRouter:
    """Allocate what a router writes and prepare its launches.

    Args:
        router: any of `router`.
        logits: float32 [T, E], host or device; read anew by every launch.
        bias: float32 [E] for `DeepSeek`, host or device; None for zeros.

    Raises:
        RoutingError: the router does not fit the experts, or logits or bias have a wrong shape or dtype.
    """
    logits = to_device(logits)
    if logits.ndim != 2 or logits.dtype != np.float32:
        raise RoutingError(f"logits must be float32 [T, E], got {logits.dtype} {tuple(logits.shape)}")
    num_tokens, num_experts = logits.shape
    made = allocate_router(router, num_tokens, num_experts, bias)
    if not num_tokens:
        return made
    if isinstance(router, ExpertChoice):
        return replace(made, parts=_expert_choice(router, logits, made.experts, made.weights))
    parts = _balance(router, logits, made.bias) if isinstance(router, Sinkhorn) else {}
    config = config_of(router, num_experts)
    num_blocks = -(-num_tokens // config.tokens_per_block)
    arguments = (logits, made.bias, made.experts, made.weights)
    parts["choose"] = Launch(make_choose(config), num_blocks, config.threads, arguments)
    cuda.synchronize()  # why: small uploads return before they have landed, and other streams do not wait
    return replace(made, parts=parts)


@dataclass
class PreparedLosses:
    """The losses that balance, ready to be launched.

    Attributes:
        losses: float32 [2] on the device: `balance.switch_loss` and `balance.z_loss`.
        parts: the launches, by name, in order; none if there are no tokens.
    """

    losses: Any
    parts: Mapping[str, Part]

    def __call__(self, stream: Any = None) -> None:
        """Enqueue all parts, in order; allocates nothing."""
        for part in self.parts.values():
            part(stream)


def prepare_losses(logits: Any, counts: Any) -> PreparedLosses:
    """Prepare the losses of `balance` for logits and the loads that a router has made of them.

    Args:
        logits: float32 [T, E], host or device; read anew by every launch.
        counts: int32 [E] on the device, of a permutation without capacity.

    Raises:
        RoutingError: logits have a wrong shape or dtype.
    """
    logits = to_device(logits)
    if len(logits.shape) != 2 or logits.dtype != np.float32:
        raise RoutingError(f"logits must be float32 [T, E], got {logits.dtype} {tuple(logits.shape)}")
    num_tokens, num_experts = logits.shape
    losses, threads = to_device(np.zeros(2, np.float32)), 128
    if not num_tokens:
        return PreparedLosses(losses, {})
    num_blocks = _balance_blocks(num_tokens, num_experts, threads)
    partial = cuda.device_array((num_blocks, num_experts + 2), np.float32)
    rows = (logits, losses, np.int32(True), partial)  # why losses: the first round looks at no factors
    kernel = make_balance_rows(num_experts, threads, with_z=True)
    parts: dict[str, Part] = {
        "rows": Launch(kernel, num_blocks, threads, rows),
        "losses": Launch(make_losses(num_experts, threads), 1, threads, (partial, counts, losses)),
    }
    cuda.synchronize()  # why: small uploads return before they have landed, and other streams do not wait
    return PreparedLosses(losses, parts)


def _balance_blocks(num_tokens: int, num_experts: int, threads: int) -> int:
    """Blocks that sum rows: few enough for one block to sum what they leave."""
    return min(64, -(-num_tokens // (threads // Config(num_experts, 1).lanes)))


def _expert_choice(router: ExpertChoice, logits: Any, experts: Any, weights: Any) -> dict[str, Part]:
    num_tokens, num_experts = logits.shape
    probabilities = cuda.device_array((num_experts, num_tokens), np.float32)
    keys = cuda.device_array((num_experts, num_tokens), np.int32)
    wanted = np.int32(router.tokens_per_expert(num_tokens, num_experts))
    threads = _threads(512)
    by_token = (logits, probabilities, experts, weights)
    by_expert = (probabilities, wanted, keys, experts, weights)
    return {
        "score": Launch(make_score(num_experts), -(-num_tokens // 128), 128, by_token),
        "select": Launch(make_select(threads), num_experts, threads, by_expert),
    }


def _balance(router: Sinkhorn, logits: Any, bias: Any) -> dict[str, Part]:
    num_tokens, num_experts = logits.shape
    threads = 128
    kernel = make_balance_rows(num_experts, threads)
    num_blocks = _balance_blocks(num_tokens, num_experts, threads)
    factors = cuda.device_array(num_experts, np.float32)
    partial = cuda.device_array((num_blocks, num_experts + 1), np.float32)
    parts: dict[str, Part] = {}
    for number in range(router.rounds):
        is_first = np.int32(number == 0)
        parts[f"rows {number}"] = Launch(kernel, num_blocks, threads, (logits, factors, is_first, partial))
        parts[f"columns {number}"] = Launch(balance_columns, 1, 128, (partial, is_first, factors, bias))
    return parts


def prepare_drop_by_weight(
    routed: PreparedRouter, order: PreparedPermutation, capacity: int
) -> Launch | None:
    """Prepare the capacity policy that keeps an expert's heaviest slots: `routing.drop_by_weight`, in place.

    Run the router, `order`, this, and then a second permutation: the first says who wants an expert, the
    second has the rows of those who get it.

    Args:
        routed: whose experts and weights are changed.
        order: a permutation of its experts, without capacity.
        capacity: the most slots of an expert.

    Returns:
        The launch; None where there is nothing to drop from.

    Raises:
        RoutingError: the capacity is negative, or the permutation has one already.
    """
    if capacity < 0:
        raise RoutingError(f"the capacity is {capacity}: use 0 or more")
    if order.capacity != LARGEST_EXTENT or order.padded:
        raise RoutingError("dropping by weight needs a permutation in which every slot still has a row")
    if not order.max_rows:
        return None
    total = order.max_rows
    keys, threads = cuda.device_array(total, np.int32), _threads(512)
    flat = (routed.experts.reshape(total), routed.weights.reshape(total))
    arguments = (order.offsets, order.source, np.int32(min(capacity, LARGEST_EXTENT)), keys, *flat)
    return Launch(make_drop(threads), routed.num_experts, threads, arguments)


def prepare_update_bias(bias: Any, counts: Any, rate: float = 1e-3) -> Launch:
    """Prepare DeepSeek-V3's update of a bias, in place: `balance.update_bias`.

    Args:
        bias: float32 [E] on the device.
        counts: int32 [E] on the device, `PreparedPermutation.counts` of a permutation without capacity.
        rate: how far.
    """
    return Launch(update_bias_kernel, 1, 128, (counts, np.float32(rate), bias))


def _threads(on_gpu: int) -> int:
    return on_gpu if device.choose().is_gpu else 64
