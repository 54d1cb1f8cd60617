"""The whole layer: router, gather, gate and up, SwiGLU, down, scatter; every stage a launch, one CUDA graph.

    x [T, D]     -> router  -> experts [T, k], weights [T, k]
                 -> permute -> offsets [E + 1], source [rows], destination [T, k]
                 -> gather  -> rows [rows, D]            rows <= T * k, sorted by expert
    gate_up [E, 2 F, D] -> gate_up [rows, 2 F]           grouped GEMM
                 -> swiglu  -> hidden [rows, F]
    down [E, D, F]      -> out [rows, D]                 grouped GEMM
                 -> scatter -> y [T, D]                  sum over a token's slots, in their order

Which stages are launches of their own is the configuration's choice:

| choice     | value        | what it does                                                                |
|------------|--------------|-----------------------------------------------------------------------------|
| gather     | "kernel"     | copies the tokens into rows, sorted by expert                               |
|            | "router"     | router, permutation and gather are one launch, see `moe.fused`              |
|            | "load"       | step `routed`: the product fetches its rows where their tokens lie          |
| activation | "kernel"     | gate and up are written, and read again by `moe.activation`                 |
|            | "epilogue"   | step `hopper`: they never leave the registers, see `moe.swiglu_epilogue`    |
|            | "quantize"   | FP8: hidden is quantised before it is written, instead of in a second pass  |
| weighting  | "scatter"    | a token's results are weighed when they are added up                        |
|            | "activation" | hidden is weighed, since the product after it is linear                     |

Token counts live on the device from the router on.  With a step that reads them there (`experts.ON_DEVICE`)
nothing waits for the host, and `launch.Graph` records the layer: replays take other tokens.  The other steps
need the counts on the host: the layer then has a stage "counts", one read, and cannot be recorded.

Rows are as many as any routing can fill, so buffers are never allocated anew.  Rows that no token owns hold
whatever they held, and reach no result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gemm_lessons import device
from gemm_lessons.compare import NUM_GUARD_ROWS, is_poison, output_dtype, poisoned
from gemm_lessons.launch import Part, Stream, launch_parts, to_device
from gemm_lessons.moe import activation, dense, experts, swiglu_epilogue
from gemm_lessons.moe.fused import prepare_fused
from gemm_lessons.moe.permute import PreparedPermutation, prepare_gather, prepare_permutation, prepare_scatter
from gemm_lessons.moe.project import prepare_project
from gemm_lessons.moe.router import ExpertChoice, Router, TopK
from gemm_lessons.moe.router_kernels import PreparedRouter, prepare_drop_by_weight, prepare_router
from gemm_lessons.problem import DTYPES, ProblemError
from gemm_lessons.quantize import BLOCK, WEIGHT_BLOCK, Quantized, dequantize, quantize_blocks, quantize_rows
from gemm_lessons.quantize_kernels import prepare as prepare_quantize
from gemm_lessons.quantize_kernels import quantize_on_device
from gemm_lessons.schedule import ceil_div

device.choose()

from numba import cuda  # noqa: E402  why late: the device is chosen before Numba is imported

Array = np.ndarray[Any, Any]

FP8 = "float8_e4m3fn"
_NAN_CODE = 0x7F  # of e4m3

GATHERS = ("kernel", "router", "load")
ACTIVATIONS = ("kernel", "epilogue", "quantize")
WEIGHTINGS = ("scatter", "activation")
DROPS = ("position", "weight")


class LayerInputs(NamedTuple):
    """What a layer computes with, on the host or the device.

    Attributes:
        x: tokens [T, D].
        router: float32 [E, D], the router's weights.
        bias: float32 [E] for routers that have one, else None.
        experts: the experts' weights, see `dense.Weights`; on the host, for they are rearranged.
    """

    x: Any
    router: Any
    bias: Any
    experts: dense.Weights


@dataclass(frozen=True)
class LayerProblem:
    """A Mixture-of-Experts layer as numbers.

    Attributes:
        num_tokens: T.
        width: D, of the model.
        hidden: F, of an expert's feed-forward network.
        num_experts: E.
        router: how tokens choose experts, or experts tokens.
        dtype: of the products: float32, bfloat16, or float8_e4m3fn, where tokens and weights are bfloat16
            and are quantised here, by 1 x 128 and 128 x 128.
        drop: which of an expert's tokens lose their slot where the router's capacity is short: those that
            come last ("position"), or those that weigh least ("weight").
        padded: every expert computes as many rows as its capacity, zeros where it has no tokens.
        residual: y = x + layer(x), so that a token whose slots were all dropped passes by.
        name: a label for tables.

    Raises:
        ProblemError: on construction, for extents below 1, an unknown dtype, or settings that contradict.
        RoutingError: the router does not work with so many experts.
    """

    num_tokens: int
    width: int
    hidden: int
    num_experts: int
    router: Router = field(default_factory=TopK)
    dtype: str = "bfloat16"
    drop: str = "position"
    padded: bool = False
    residual: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        for label in ("width", "hidden", "num_experts"):
            if getattr(self, label) < 1:
                raise ProblemError(f"{label} is {getattr(self, label)}: use 1 or more")
        if self.num_tokens < 0:
            raise ProblemError(f"num_tokens is {self.num_tokens}: it cannot be negative")
        if self.dtype not in ("float32", "bfloat16", FP8):
            raise ProblemError(f"a layer computes in float32, bfloat16 or {FP8}, not in {self.dtype}")
        if self.drop not in DROPS:
            raise ProblemError(f"drop is {self.drop!r}: use one of {', '.join(DROPS)}")
        self.router.validate(self.num_experts)
        if self.padded and self.capacity is None:
            raise ProblemError("padding wants a capacity: give the router a capacity factor")

    @property
    def stored(self) -> np.dtype[Any]:
        """What tokens, weights and results are stored in."""
        return output_dtype(self.dtype)

    @property
    def num_slots(self) -> int:
        """k, the slots of a token."""
        return self.router.num_slots(self.num_experts)

    @property
    def capacity(self) -> int | None:
        """The most tokens of one expert, None for no limit."""
        if isinstance(self.router, ExpertChoice):
            return self.router.tokens_per_expert(self.num_tokens, self.num_experts)
        return self.router.capacity(self.num_tokens, self.num_experts)

    @property
    def most_rows(self) -> int:
        """The most rows of one expert: a token has at most one slot there."""
        if self.capacity is None:
            return self.num_tokens
        return self.capacity if self.padded else min(self.capacity, self.num_tokens)

    @property
    def flops(self) -> int:
        """2 * rows * 3 * D * F with all slots taken: what the experts compute, at most."""
        return 6 * self.num_tokens * self.num_slots * self.width * self.hidden

    def inputs(self, seed: int = 0) -> LayerInputs:
        """Random inputs, the same for the same seed: products are as large as what they are made from."""
        rng = np.random.default_rng(seed)
        dtype = self.stored

        def normal(*shape: int) -> Array:
            return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[-1]))

        E, D, F = self.num_experts, self.width, self.hidden
        x = rng.standard_normal((self.num_tokens, D), np.float32).astype(dtype)
        weights = dense.Weights(
            *(normal(*shape).astype(dtype) for shape in ((E, F, D), (E, F, D), (E, D, F)))
        )
        return LayerInputs(x, normal(E, D), None, weights)


@dataclass(frozen=True)
class Config:
    """The choices of the module's table.

    Attributes:
        step: of the grouped products, one of `experts`'s table.
        gather: "kernel", "router" or "load".
        activation: "kernel", "epilogue" or "quantize".
        weighting: "scatter" or "activation".
    """

    step: str
    gather: str = "kernel"
    activation: str = "kernel"
    weighting: str = "scatter"

    @property
    def graph_capable(self) -> bool:
        """Whether nothing waits for the host, so that `launch.Graph` can record the layer."""
        return self.step in experts.ON_DEVICE

    def validate(self, problem: LayerProblem) -> None:
        """Check the choices against each other and the problem.

        Raises:
            ProblemError: naming the choice that does not fit.
        """
        experts.check_step(self.step, problem.dtype)
        for label, values in (("gather", GATHERS), ("activation", ACTIVATIONS), ("weighting", WEIGHTINGS)):
            if getattr(self, label) not in values:
                raise ProblemError(f"{label} is {getattr(self, label)!r}: use one of {', '.join(values)}")
        if self.gather == "load" and self.step != "routed":
            raise ProblemError(f"the step {self.step} does not gather: use routed, or a kernel")
        if self.gather == "router" and (problem.padded or problem.drop != "position"):
            raise ProblemError("the fused router and gather drop by position and do not pad: use a kernel")
        if self.gather == "router" and problem.dtype == FP8:
            raise ProblemError("in FP8 tokens are quantised before they are gathered: use a kernel")
        if self.activation == "quantize":
            if problem.dtype != FP8:
                raise ProblemError(f"nothing is quantised in {problem.dtype}: use the activation kernel")
            if self.weighting == "activation":
                raise ProblemError("SwiGLU that quantises does not weigh: leave that to the scatter")
        if self.activation == "epilogue":
            if self.step != "hopper":
                raise ProblemError(f"the step {self.step} has no SwiGLU epilogue: use hopper, or a kernel")
            if self.weighting == "activation":
                raise ProblemError("the epilogue does not weigh: leave that to the scatter")


def choose_config(problem: LayerProblem) -> Config:
    """What is fastest on this device and needs no host; without one that does, what is right."""
    if problem.dtype == "float32":
        return Config("routed", gather="load")
    compute_capability = device.choose().compute_capability
    if problem.dtype == FP8:
        step = "decode" if compute_capability >= (8, 9) else "tiled_fp8"
        if compute_capability[0] == 9 and problem.width % 16 == 0 and problem.hidden % 16 == 0:
            step = "hopper_fp8"
        return Config(step, activation="quantize")
    if compute_capability[0] == 9 and problem.width % 8 == 0 and problem.hidden % 8 == 0:
        return Config("hopper", activation="epilogue")
    return Config("tensor_core")


@dataclass(frozen=True)
class Stage:
    """Launches that belong together: one bar of the layer's timeline."""

    launches: tuple[Part, ...]

    def __call__(self, stream: Stream = None) -> None:
        """Enqueue them, in order."""
        for part in self.launches:
            part(stream)


@dataclass(frozen=True)
class Verdict:
    """What the comparison of a layer's output with the dense NumPy layer said.

    Attributes:
        complaint: what is wrong, empty if nothing is.
        num_checked: outputs that were compared.
        worst: largest |got - want| / tolerance among them; below 1 is right.
    """

    complaint: str
    num_checked: int
    worst: float

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.complaint

    def raise_if_wrong(self, subject: str) -> None:
        """Raise AssertionError with the complaint if the output is wrong.

        Raises:
            AssertionError: naming the subject, the first wrong output and how many there are.
        """
        if not self.ok:
            raise AssertionError(f"{subject}: {self.complaint}")


@dataclass
class PreparedLayer:
    """A layer with all its buffers, ready to be launched again and again.

    Attributes:
        problem: what is computed.
        config: the choices.
        parts: stages by name, in order; none without tokens.
        output: device array [NUM_GUARD_ROWS + T + NUM_GUARD_ROWS, D], y between guard rows.
        x: the tokens on the device, [T, D]; overwrite them, and the next launch or replay takes them.
        routed: the router: experts and weights [T, k] of the latest launch, before capacity drops any.
        order: the permutation; `order.raise_if_bad` refuses logits that were not finite.
        buffers: everything between the stages, by name.
        keep_alive: arrays that only raw addresses refer to.
    """

    problem: LayerProblem
    config: Config
    parts: Mapping[str, Part]
    output: Any
    x: Any
    routed: PreparedRouter
    order: PreparedPermutation
    buffers: Mapping[str, Any]
    keep_alive: tuple[Any, ...] = field(default=())

    def poison(self) -> None:
        """Overwrite the output and all buffers with poison: no old result can pass for a new one."""
        for array in (self.output, *self.buffers.values()):
            if not array.size:
                continue
            rows, columns = array.shape
            if array.dtype.itemsize == 1:
                poison = np.full((rows, columns), _NAN_CODE, np.uint8)
            else:
                poison = poisoned(rows, columns, array.dtype).view(_bits(array))
            array.view(_bits(array)).copy_to_device(poison)

    def result(self) -> Array:
        """Wait for the device and copy y with its guard rows to the host."""
        cuda.synchronize()
        guarded: Array = self.output.view(_bits(self.output)).copy_to_host().view(self.output.dtype)
        return guarded

    def gates(self) -> Array:
        """Wait for the device; the latest routing as float64 [T, E], without slots that were dropped."""
        cuda.synchronize()
        kept = np.where(self.order.destination.copy_to_host() >= 0, self.routed.experts.copy_to_host(), -1)
        return dense.gates_of(kept, self.routed.weights.copy_to_host(), self.problem.num_experts)

    def check(
        self, inputs: LayerInputs, *, launch: Any = launch_parts, expected: Expected | None = None
    ) -> Verdict:
        """Poison everything, launch once, and compare with the dense layer, for the routing that was made.

        Args:
            inputs: what x and the weights were when the layer was prepared; x may be newer.
            launch: called with this layer.
            expected: what `expect` said for another layer on the same inputs; used if the routing is equal.
        """
        self.poison()
        launch(self)
        guarded = self.result()
        gates = self.gates()
        if expected is None or not np.array_equal(expected.gates, gates):
            expected = expect(self.problem, inputs, gates)
        return expected.judge(guarded)


@dataclass(frozen=True)
class Expected:
    """What some tokens' outputs should be.

    Attributes:
        gates: float64 [T, E], the routing that this holds for.
        tokens: the tokens that are compared, ascending.
        want: float64 [len(tokens), D].
        allowed: the same shape, how far a right kernel may be off.
    """

    gates: Array
    tokens: Array
    want: Array
    allowed: Array

    def judge(self, guarded: Array) -> Verdict:
        """Judge y between its guard rows; all of it must have been written, and no guard."""
        y = guarded[NUM_GUARD_ROWS:-NUM_GUARD_ROWS].astype(np.float64)
        error = np.abs(y[self.tokens] - self.want)
        wrong: Array = ~(error <= self.allowed)
        guards = (guarded[:NUM_GUARD_ROWS], guarded[-NUM_GUARD_ROWS:])
        broken = sum(int((~is_poison(rows)).sum()) for rows in guards)
        complaint = f"{broken} elements outside the output were overwritten. " if broken else ""
        if wrong.any():
            i, column = (int(index) for index in np.argwhere(wrong)[0])
            complaint += (
                f"token {self.tokens[i]}, column {column} is {y[self.tokens[i], column]:.6g};"
                f" wanted {self.want[i, column]:.6g} within {self.allowed[i, column]:.2g}."
                f" {int(wrong.sum())} of {wrong.size} outputs are wrong."
            )
        elif np.isnan(y).any():
            complaint += f"token {int(np.argwhere(np.isnan(y))[0, 0])} is not a number, or was never written."
        worst = float(np.max(error / np.maximum(self.allowed, 1e-300), initial=0.0))
        return Verdict(complaint, wrong.size, worst)


def expect(problem: LayerProblem, inputs: LayerInputs, gates: Array, most_tokens: int = 256) -> Expected:
    """Run the dense layer on all tokens up to so many, and on a sample of them beyond."""
    rng = np.random.default_rng(0)
    tokens = np.sort(rng.permutation(problem.num_tokens)[:most_tokens])
    original = x = np.asarray(inputs.x)[tokens]
    weights = inputs.experts
    if problem.dtype == FP8:
        x, weights = dequantize(quantize_rows(x)), _rounded(weights)
    want = dense.layer(x, weights, gates[tokens])
    allowed = dense.layer_tolerance(x, weights, gates[tokens], problem.dtype)
    if problem.residual:
        want += original.astype(np.float64)
        allowed += dense.unit_of(problem.dtype) * np.abs(want)
    return Expected(gates, tokens, want, allowed)


def _rounded(weights: dense.Weights) -> dense.Weights:
    """What is left of the weights when they have been quantised, gate and up in one matrix."""
    gate_up = dequantize(quantize_blocks(activation.interleave(weights.gate, weights.up)))
    gate, up = activation.separate(gate_up)
    return dense.Weights(gate, up, dequantize(quantize_blocks(weights.down)))


def prepare(
    problem: LayerProblem, config: Config | None = None, inputs: LayerInputs | None = None
) -> PreparedLayer:
    """Allocate everything, rearrange the weights, and prepare every launch.

    Args:
        problem: what is computed.
        config: the choices, None for `choose_config`'s.
        inputs: None for random ones.

    Raises:
        ProblemError: choices, extents or inputs that do not fit together.
        RoutingError: a router or a capacity that makes no sense.
        LaunchError: the device has not enough shared memory for the step.
    """
    config = config or choose_config(problem)
    config.validate(problem)
    inputs = inputs or problem.inputs()
    _check_inputs(problem, inputs)
    x, D, T = to_device(inputs.x), problem.width, problem.num_tokens
    stages: _Stages = {}
    rows_there = None
    if config.gather == "router":
        fused = prepare_fused(problem.router, x, inputs.router, inputs.bias)
        routed, order, rows_there = fused.routed, fused.order, fused.rows
        stages["router"] = (fused,)
    else:
        project, logits = prepare_project(x, inputs.router)
        routed = prepare_router(problem.router, logits, inputs.bias)
        order = prepare_permutation(
            routed.experts, problem.num_experts, problem.capacity, padded=problem.padded
        )
        stages["router"] = (project, routed)
        stages["permute"] = (*_drop_by_weight(problem, routed), order)
    buffers = {"out": to_device(poisoned(order.max_rows, D, problem.stored))}
    if rows_there is not None:
        buffers["rows"] = rows_there
    make = _quantized_products if problem.dtype == FP8 else _products
    keep_alive: tuple[Any, ...] = ()
    if T:
        more, keep_alive = make(problem, config, inputs.experts, x, routed, order, buffers)
        stages |= more
    y = to_device(poisoned(T + 2 * NUM_GUARD_ROWS, D, problem.stored))
    weights = routed.weights
    if config.weighting == "activation":
        weights = cuda.to_device(np.ones((T, problem.num_slots), np.float32))
    inside, residual = y[NUM_GUARD_ROWS : NUM_GUARD_ROWS + T], x if problem.residual else None
    stages["scatter"] = (prepare_scatter(buffers["out"], order, weights, inside, residual),)
    parts = {
        name: Stage(tuple(part for part in launches if part is not None)) for name, launches in stages.items()
    }
    cuda.synchronize()  # why: small uploads return before they have landed, and other streams do not wait
    return PreparedLayer(problem, config, parts if T else {}, y, x, routed, order, buffers, keep_alive)


_Stages = dict[str, tuple[Part | None, ...]]


def _products(
    problem: LayerProblem,
    config: Config,
    weights: dense.Weights,
    x: Any,
    routed: PreparedRouter,
    order: PreparedPermutation,
    buffers: dict[str, Any],
) -> tuple[_Stages, tuple[Any, ...]]:
    """From the tokens to `buffers["out"]`, in float32 or bfloat16: stages, and what they keep alive."""
    E, D, F, rows = problem.num_experts, problem.width, problem.hidden, order.max_rows
    stages: _Stages = {}
    host = experts.HostCounts(order)
    fused = config.activation == "epilogue"
    w_gate_up, w_down = to_device(activation.interleave(weights.gate, weights.up)), to_device(weights.down)
    buffers["hidden"] = to_device(poisoned(rows, F, problem.stored))
    options: dict[str, Any] = {"epilogue": swiglu_epilogue.make_store} if fused else {}
    tokens = x
    if config.gather == "load":
        options |= {"source": order.source, "num_slots": problem.num_slots}
    elif config.gather == "router":
        tokens = buffers["rows"]
    else:
        tokens = buffers["rows"] = to_device(poisoned(rows, D, problem.stored))
        stages["gather"] = (prepare_gather(x, order, tokens),)
    if not config.graph_capable:
        stages["counts"] = (host,)
    if not fused:
        buffers["gate_up"] = to_device(poisoned(rows, 2 * F, problem.stored))
    first = buffers["hidden" if fused else "gate_up"]
    up = experts.Shape(E, rows, problem.most_rows, 2 * F, D, problem.dtype)
    stages["gate_up"] = experts.bind(
        config.step, up, tokens, w_gate_up, order.offsets, first, host, **options
    )
    if not fused:
        weighing = (order.source, routed.weights) if config.weighting == "activation" else (None, None)
        stages["swiglu"] = (activation.bind(first, order.offsets, buffers["hidden"], *weighing),)
    down = experts.Shape(E, rows, problem.most_rows, D, F, problem.dtype)
    stages["down"] = experts.bind(
        config.step, down, buffers["hidden"], w_down, order.offsets, buffers["out"], host
    )
    return stages, (w_gate_up, w_down)


def _quantized_products(
    problem: LayerProblem,
    config: Config,
    weights: dense.Weights,
    x: Any,
    routed: PreparedRouter,
    order: PreparedPermutation,
    buffers: dict[str, Any],
) -> tuple[_Stages, tuple[Any, ...]]:
    """The same in FP8: tokens are quantised before they are gathered, so that half the bytes are moved."""
    E, D, F, rows = problem.num_experts, problem.width, problem.hidden, order.max_rows
    stages: _Stages = {}
    host = experts.HostCounts(order)
    fused = config.activation == "quantize"
    stacked = to_device(activation.interleave(weights.gate, weights.up))
    w_gate_up = quantize_on_device(stacked, WEIGHT_BLOCK)
    w_down = quantize_on_device(to_device(weights.down), WEIGHT_BLOCK)
    x_codes = prepare_quantize(x)
    tokens, hidden = _empty_quantized(rows, D), _empty_quantized(rows, F)
    for name, one in (("rows", tokens), ("hidden", hidden)):
        buffers[f"{name}_values"], buffers[f"{name}_scales"] = one.values, one.scales
    buffers["gate_up"] = to_device(poisoned(rows, 2 * F, problem.stored))
    stages["quantize"] = (x_codes.launch,)
    moved = ((x_codes.out.values, tokens.values), (x_codes.out.scales, tokens.scales))
    stages["gather"] = tuple(prepare_gather(what, order, there) for what, there in moved)
    if not config.graph_capable:
        stages["counts"] = (host,)
    up = experts.Shape(E, rows, problem.most_rows, 2 * F, D, FP8)
    stages["gate_up"] = experts.bind_quantized(
        config.step, up, tokens, w_gate_up, order.offsets, buffers["gate_up"], host
    )
    if fused:
        stages["swiglu"] = (activation.bind_quantizing(buffers["gate_up"], order.offsets, hidden),)
    else:
        buffers["hidden"] = to_device(poisoned(rows, F, problem.stored))
        weighing = (order.source, routed.weights) if config.weighting == "activation" else (None, None)
        swiglu = activation.bind(buffers["gate_up"], order.offsets, buffers["hidden"], *weighing)
        stages["swiglu"] = (swiglu, prepare_quantize(buffers["hidden"], out=hidden).launch)
    down = experts.Shape(E, rows, problem.most_rows, D, F, FP8)
    stages["down"] = experts.bind_quantized(
        config.step, down, hidden, w_down, order.offsets, buffers["out"], host
    )
    return stages, (w_gate_up, w_down, x_codes)


def _empty_quantized(rows: int, columns: int) -> Quantized:
    """Room for quantised rows: not a number, until something is written."""
    values = to_device(np.full((rows, columns), _NAN_CODE, np.uint8)).view(DTYPES[FP8])
    return Quantized(values, to_device(poisoned(rows, ceil_div(columns, BLOCK), DTYPES["float32"])))


def _drop_by_weight(problem: LayerProblem, routed: PreparedRouter) -> tuple[Part | None, ...]:
    """Where the heaviest tokens stay: who wants an expert, and who loses it; otherwise nothing."""
    if problem.drop != "weight" or problem.capacity is None:
        return ()
    wanted = prepare_permutation(routed.experts, problem.num_experts)
    return wanted, prepare_drop_by_weight(routed, wanted, problem.capacity)


def _bits(array: Any) -> np.dtype[Any]:
    return np.dtype(f"u{array.dtype.itemsize}")


def _check_inputs(problem: LayerProblem, inputs: LayerInputs) -> None:
    E, D, F, dtype = problem.num_experts, problem.width, problem.hidden, problem.stored
    wanted: dict[str, tuple[Any, tuple[int, ...], np.dtype[Any]]] = {
        "x": (inputs.x, (problem.num_tokens, D), dtype),
        "router": (inputs.router, (E, D), DTYPES["float32"]),
        "gate": (inputs.experts.gate, (E, F, D), dtype),
        "up": (inputs.experts.up, (E, F, D), dtype),
        "down": (inputs.experts.down, (E, D, F), dtype),
    }
    if inputs.bias is not None:
        wanted["bias"] = (inputs.bias, (E,), DTYPES["float32"])
    for label, (array, shape, kind) in wanted.items():
        if tuple(array.shape) != shape or array.dtype != kind:
            raise ProblemError(
                f"{label} is {array.dtype} {tuple(array.shape)}, this layer needs {kind} {shape}"
            )
