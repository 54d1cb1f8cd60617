"""The whole layer against the dense NumPy layer: every step, fusion and system, and adversarial routings."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gemm_lessons import device
from gemm_lessons.compare import NUM_GUARD_ROWS, scaled_tolerance
from gemm_lessons.launch import Graph, launch_parts
from gemm_lessons.moe import activation, dense, experts, layer
from gemm_lessons.moe.layer import Config, LayerInputs, LayerProblem
from gemm_lessons.moe.permute import scatter
from gemm_lessons.moe.router import DeepSeek, ExpertChoice, Sinkhorn, Switch, TopK, TopP
from gemm_lessons.moe.routing import RoutingError, drop_by_position, drop_by_weight
from gemm_lessons.moe.systems import SYSTEMS, deepseek_v3, megatron_lm
from gemm_lessons.problem import DTYPES, GroupedProblem, ProblemError
from gemm_lessons.quantize import (
    BLOCK,
    Quantized,
    QuantizedInputs,
    dequantize,
    quantize_blocks,
    quantize_rows,
)
from gemm_lessons.reference import scaled_grouped_gemm_rows
from gemm_lessons.steps import FP8_STEPS, STEPS, TENSOR_STEPS

ON_GPU = device.choose().is_gpu
ON_HOPPER = device.choose().compute_capability[0] == 9
pytestmark = [pytest.mark.gpu] if ON_GPU else []  # the same tests on both
SIZE = (300, 264, 136, 8) if ON_GPU else (23, 24, 16, 4)  # tokens, width, hidden, experts
ODD = (301, 130, 77, 8) if ON_GPU else (21, 10, 7, 4)  # what no vector and no tile divides
ROUTED, LOADED = Config("routed"), Config("routed", gather="load")
HOPPER = Config("hopper", activation="epilogue")
needs_bfloat16 = pytest.mark.skipif(
    device.choose().compute_capability < (8, 0), reason="NOT RUN: bfloat16 needs compute capability 8.0"
)
needs_hopper = pytest.mark.skipif(
    not ON_HOPPER, reason="NOT RUN: the step hopper is for compute capability 9.0"
)


def problem_of(size=SIZE, router=None, dtype="float32", **options):
    return LayerProblem(*size, router or TopK(2), dtype, **options)


def host_of(array):
    return array.view(np.dtype(f"u{array.dtype.itemsize}")).copy_to_host().view(array.dtype)


def y_of(prepared):
    return prepared.result()[NUM_GUARD_ROWS:-NUM_GUARD_ROWS]


def check(problem, config, inputs=None, launches=2):
    inputs = inputs or problem.inputs(1)
    prepared = layer.prepare(problem, config, inputs)
    for number in range(launches):
        prepared.check(inputs).raise_if_wrong(f"launch {number}")
    return prepared


# --- every step and every choice -----------------------------------------------------------------------


@pytest.mark.parametrize("step", [*STEPS, "routed"])
@pytest.mark.parametrize("size", [SIZE, pytest.param(ODD, marks=pytest.mark.slow)], ids=["even", "odd"])
def test_float32_on_every_step(step, size):
    check(problem_of(size), Config(step))


@pytest.mark.parametrize(
    "choices",
    [
        {"gather": "load"},
        {"gather": "router"},
        {"weighting": "activation"},
        {"gather": "load", "weighting": "activation"},
    ],
    ids=str,
)
def test_float32_with_every_choice(choices):
    check(problem_of(ODD), replace(ROUTED, **choices))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(HOPPER, marks=needs_hopper),
        pytest.param(Config("tensor_core"), marks=needs_bfloat16),
        pytest.param(Config("decode"), marks=needs_bfloat16),
        pytest.param(Config("hopper"), marks=[needs_hopper, pytest.mark.slow]),
        pytest.param(Config("hopper", weighting="activation"), marks=[needs_hopper, pytest.mark.slow]),
        pytest.param(Config("hopper", "router", "epilogue"), marks=[needs_hopper, pytest.mark.slow]),
        pytest.param(Config("tensor_core", weighting="activation"), marks=[needs_bfloat16, pytest.mark.slow]),
    ],
    ids=str,
)
def test_bfloat16_on_the_tensor_cores(config):
    check(problem_of(dtype="bfloat16"), config, launches=2 if ON_GPU else 1)


def test_every_variant_gives_the_same_routing_and_nearly_the_same_output():
    problem = problem_of()
    inputs = problem.inputs(2)
    outputs = []
    for config in (ROUTED, LOADED, replace(ROUTED, gather="router")):
        prepared = layer.prepare(problem, config, inputs)
        launch_parts(prepared)
        outputs.append(y_of(prepared))
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])


@pytest.mark.slow
@pytest.mark.parametrize("size", [(5, 136, 24, 3), (23, 144, 136, 4)])
def test_fp8_stage_by_stage(size):
    """Every stage against what the stage before it has written, so that no error hides in another's."""
    problem = problem_of(SIZE if ON_GPU else size, dtype="float8_e4m3fn", residual=True)
    inputs = problem.inputs(20)
    outputs = []
    for choice in ("kernel", "quantize"):
        prepared = layer.prepare(problem, Config("tiled_fp8", activation=choice), inputs)
        prepared.check(inputs).raise_if_wrong(choice)
        outputs.append(y_of(prepared).view(np.uint16))
    np.testing.assert_array_equal(*outputs, err_msg="quantised in a second pass, and at once")
    order = prepared.order.read()
    total = order.offsets[-1]
    tokens, hidden = (
        Quantized(*(host_of(prepared.buffers[f"{name}_{part}"])[:total] for part in ("values", "scales")))
        for name in ("rows", "hidden")
    )
    wanted = quantize_rows(np.asarray(inputs.x)[order.source // problem.num_slots])
    np.testing.assert_array_equal(tokens.values.view(np.uint8), wanted.values.view(np.uint8))
    np.testing.assert_array_equal(tokens.scales, wanted.scales)

    stacked = activation.interleave(inputs.experts.gate, inputs.experts.up)
    for name, x, w in (("gate_up", tokens, stacked), ("out", hidden, inputs.experts.down)):
        product = GroupedProblem(tuple(order.counts), w.shape[1], w.shape[2], "float8_e4m3fn")
        given = QuantizedInputs(x, quantize_blocks(w))
        want, spread = scaled_grouped_gemm_rows(given, product.offsets, np.arange(total))
        got = host_of(prepared.buffers[name])[:total].astype(np.float64)
        assert (np.abs(got - want) <= scaled_tolerance(want, spread, product.K)).all(), name

    gate, up = (
        half[0].T for half in activation.separate(host_of(prepared.buffers["gate_up"])[:total].T[None])
    )
    exact = dense.silu(gate.astype(np.float64)) * up.astype(np.float64)
    step = 2.0**-4 + 2.0**-8  # half a unit of e4m3, and of the bfloat16 before it
    smallest = np.repeat(hidden.scales, BLOCK, axis=1)[:, : problem.hidden] * 2.0**-10
    assert (np.abs(dequantize(hidden) - exact) <= step * np.abs(exact) + smallest).all()

    out, weights = host_of(prepared.buffers["out"]), prepared.routed.weights.copy_to_host()
    want = scatter(out, order, weights, np.asarray(inputs.x))
    assert (np.abs(y_of(prepared) - want) <= 2.0**-8 * np.abs(want) + 2.0**-20).all()


@pytest.mark.parametrize(
    "choices", [pytest.param({"padded": True}, marks=pytest.mark.slow), {"drop": "weight"}], ids=str
)
def test_fp8_with_dropped_tokens(choices):
    problem = problem_of(router=TopK(2, capacity_factor=0.5), dtype="float8_e4m3fn", **choices)
    check(problem, Config("tiled_fp8", activation="quantize"), launches=1)


@pytest.mark.skipif(
    device.choose().compute_capability < (8, 9),
    reason="NOT RUN: decode takes FP8 from compute capability 8.9 on",
)
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(Config("decode", activation="quantize"), marks=pytest.mark.slow),
        pytest.param(Config("hopper_fp8", activation="quantize"), marks=needs_hopper),
        pytest.param(Config("decode"), marks=pytest.mark.slow),
        pytest.param(Config("hopper_fp8"), marks=[needs_hopper, pytest.mark.slow]),
    ],
    ids=str,
)
def test_fp8_with_counts_on_the_device(config):
    size = (300, 272, 144, 8) if ON_GPU else (9, 32, 48, 3)
    problem = problem_of(size, dtype="float8_e4m3fn")
    inputs = problem.inputs(21)
    prepared = layer.prepare(problem, config, inputs)
    prepared.check(inputs).raise_if_wrong("first launch")
    if ON_GPU:
        replay, x = Graph(prepared), problem.inputs(22).x
        prepared.x.view(np.uint16).copy_to_device(x.view(np.uint16))
        prepared.check(inputs._replace(x=x), launch=lambda _: replay()).raise_if_wrong("other tokens")


# --- adversarial routings ------------------------------------------------------------------------------

ROUTERS = {
    "top-1": TopK(1),
    "all experts": TopK(SIZE[3]),
    "without rescaling": TopK(2, renormalise=False),
    "as many as needed": TopP(0.4, most=3),
    "balanced": Sinkhorn(2),
    "overflow": Switch(0.5),
    "groups": DeepSeek(k=2, num_groups=2, groups_kept=1),
    "few tokens for each expert": ExpertChoice(0.5),
    "most tokens for each expert": ExpertChoice(float(SIZE[3])),
}


TELLING = ("as many as needed", "overflow", "few tokens for each expert")


@pytest.mark.parametrize(
    "name", [name if name in TELLING else pytest.param(name, marks=pytest.mark.slow) for name in ROUTERS]
)
def test_every_router(name):
    check(problem_of(router=ROUTERS[name]), LOADED, launches=1)


@pytest.mark.parametrize(
    "config",
    [LOADED, Config("padded"), pytest.param(HOPPER, marks=[needs_hopper, pytest.mark.slow])],
    ids=str,
)
def test_all_logits_equal(config):
    problem = problem_of(dtype="bfloat16" if config.step == "hopper" else "float32")
    inputs = problem.inputs(3)
    inputs = inputs._replace(router=np.zeros_like(inputs.router))
    prepared = check(problem, config, inputs, launches=1)
    gates = prepared.gates()
    np.testing.assert_array_equal(gates[:, :2], np.full((problem.num_tokens, 2), 0.5))
    assert not gates[:, 2:].any(), "among equals the first experts win"


@pytest.mark.parametrize(
    "config", [LOADED, Config("masked"), Config("naive"), pytest.param(HOPPER, marks=needs_hopper)], ids=str
)
@pytest.mark.parametrize("expert", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_one_expert_takes_all(config, expert):
    problem = problem_of(router=TopK(1), dtype="bfloat16" if config.step == "hopper" else "float32")
    inputs = problem.inputs(4)
    x, router = np.array(inputs.x), np.zeros_like(inputs.router)
    x[:, 0], router[expert, 0] = 1, 50
    prepared = check(problem, config, inputs._replace(x=x, router=router), launches=1)
    assert prepared.order.counts.copy_to_host()[expert] == problem.num_tokens


@pytest.mark.parametrize(
    ("residual", "drop", "padded"),
    [
        (True, "position", False),
        (False, "weight", True),
        pytest.param(False, "position", True, marks=pytest.mark.slow),
        pytest.param(True, "weight", False, marks=pytest.mark.slow),
    ],
)
def test_dropped_tokens(residual, drop, padded):
    problem = problem_of(router=TopK(2, capacity_factor=0.5), residual=residual, drop=drop, padded=padded)
    inputs = problem.inputs(5)
    prepared = check(problem, ROUTED, inputs, launches=1)
    lost = prepared.gates().sum(axis=1) == 0
    assert lost.any(), "the case is meant to have tokens without any expert"
    wanted = inputs.x[lost] if residual else np.zeros_like(inputs.x[lost])
    np.testing.assert_array_equal(y_of(prepared)[lost], wanted)


@pytest.mark.parametrize("config", [LOADED, Config("masked"), Config("tiled")], ids=str)
def test_no_tokens(config):
    problem = problem_of((0, *SIZE[1:]))
    prepared = check(problem, config)
    assert not prepared.parts
    assert y_of(prepared).shape == (0, SIZE[1])


@pytest.mark.parametrize("config", [LOADED, Config("concatenated"), Config("persistent")], ids=str)
def test_one_token(config):
    check(problem_of((1, *SIZE[1:])), config)


@pytest.mark.parametrize(
    "config", [ROUTED, LOADED, Config("masked"), pytest.param(HOPPER, marks=needs_hopper)], ids=str
)
def test_a_token_that_is_not_a_number_goes_nowhere(config):
    problem = problem_of(dtype="bfloat16" if config.step == "hopper" else "float32")
    inputs = problem.inputs(7)
    x = np.array(inputs.x)
    x[3, 1], x[5, 0] = np.nan, np.inf
    prepared = layer.prepare(problem, config, inputs._replace(x=x))
    prepared.check(inputs._replace(x=x)).raise_if_wrong("with two tokens that are not finite")
    assert not y_of(prepared)[[3, 5]].any()
    with pytest.raises(RoutingError, match=rf"2 of {problem.num_tokens} tokens .* the first is token 3"):
        prepared.order.raise_if_bad()


@pytest.mark.parametrize("step", ["tiled", pytest.param("persistent", marks=pytest.mark.slow)])
def test_who_reads_the_counts_is_told_of_a_token_that_is_not_a_number(step):
    problem = problem_of()
    inputs = problem.inputs(7)
    x = np.array(inputs.x)
    x[3, 1] = np.nan
    prepared = layer.prepare(problem, Config(step), inputs._replace(x=x))
    with pytest.raises(RoutingError, match=rf"1 of {problem.num_tokens} tokens .* the first is token 3"):
        launch_parts(prepared)


def test_an_expert_that_is_not_a_number_spoils_its_own_tokens_only():
    problem = problem_of(router=TopK(1))
    inputs = problem.inputs(8)
    weights = dense.Weights(*(np.array(w) for w in inputs.experts))
    weights.gate[1], weights.up[1], weights.down[1] = np.nan, np.nan, np.nan
    outputs = []
    for given in (inputs, inputs._replace(experts=weights)):
        prepared = layer.prepare(problem, LOADED, given)
        prepared.poison()
        launch_parts(prepared)
        outputs.append(y_of(prepared))
    sick = prepared.gates()[:, 1] != 0
    assert sick.any()
    assert np.isnan(outputs[1][sick]).all()
    np.testing.assert_array_equal(outputs[1][~sick], outputs[0][~sick])


# --- again and again -----------------------------------------------------------------------------------

GRAPHS = [
    LOADED,
    Config("concatenated"),
    Config("masked"),
    replace(ROUTED, gather="router"),
    pytest.param(Config("decode"), marks=needs_bfloat16),
    pytest.param(HOPPER, marks=[needs_hopper, pytest.mark.slow]),
    pytest.param(Config("hopper", "router", "epilogue"), marks=[needs_hopper, pytest.mark.slow]),
]


@pytest.mark.parametrize("config", GRAPHS, ids=str)
def test_a_replayed_graph_takes_other_tokens(config):
    problem = problem_of(dtype="bfloat16" if config.step in TENSOR_STEPS else "float32")
    inputs = problem.inputs(9)
    prepared = layer.prepare(problem, config, inputs)
    replay = Graph(prepared)
    seen = set()
    for seed in range(5 if ON_GPU else 2):
        x = problem.inputs(10 + seed).x
        bits = np.dtype(f"u{x.dtype.itemsize}")
        prepared.x.view(bits).copy_to_device(np.ascontiguousarray(x).view(bits))
        prepared.check(inputs._replace(x=x), launch=lambda _: replay()).raise_if_wrong(f"replay {seed}")
        seen.add(tuple(prepared.order.counts.copy_to_host()))
    assert len(seen) > 1, "the replays were meant to have other counts"


@pytest.mark.parametrize(
    "step",
    [
        step if step == "persistent" else pytest.param(step, marks=pytest.mark.slow)
        for step in STEPS
        if step not in experts.ON_DEVICE
    ],
)
def test_what_waits_for_the_host_takes_other_tokens_launch_by_launch(step):
    problem = problem_of()
    inputs = problem.inputs(11)
    config = Config(step)
    assert not config.graph_capable
    prepared = layer.prepare(problem, config, inputs)
    for seed in (12, 13):
        x = problem.inputs(seed).x
        prepared.x.copy_to_device(x)
        prepared.check(inputs._replace(x=x)).raise_if_wrong(f"{step}, tokens {seed}")


@pytest.mark.parametrize(
    "config",
    [
        LOADED,
        pytest.param(replace(ROUTED, gather="router"), marks=pytest.mark.slow),
        Config("tiled"),
        pytest.param(HOPPER, marks=[needs_hopper, pytest.mark.slow]),
    ],
    ids=str,
)
def test_every_run_gives_the_same_bits(config):
    problem = problem_of(dtype="bfloat16" if config.step == "hopper" else "float32")
    prepared = layer.prepare(problem, config, problem.inputs(14))
    outputs = set()
    for _ in range(100 if ON_GPU else 2):
        prepared.poison()
        launch_parts(prepared)
        outputs.add(y_of(prepared).tobytes())
    assert len(outputs) == 1


@pytest.mark.skipif(ON_GPU, reason="NOT RUN: a GPU orders events as it likes")
@pytest.mark.slow
def test_every_order_of_events_gives_the_same_bits():
    from gemm_lessons import sim

    problem = problem_of((9, 12, 8, 3))
    prepared = layer.prepare(problem, LOADED, problem.inputs(15))
    outputs = set()
    for seed in range(100):
        prepared.poison()
        with sim.configured(seed=seed):
            launch_parts(prepared)
        outputs.add(y_of(prepared).tobytes())
    assert len(outputs) == 1


def test_a_graph_and_its_own_stream_agree():
    problem = problem_of()
    prepared = layer.prepare(problem, LOADED, problem.inputs(16))
    launch_parts(prepared)
    want = y_of(prepared).copy()
    replay = Graph(prepared)
    prepared.poison()
    replay()
    np.testing.assert_array_equal(y_of(prepared), want)


# --- named systems -------------------------------------------------------------------------------------


def system_problem(name, dtype="float32"):
    options = {"dtype": dtype}
    if name == "DeepSeek-V3":
        return deepseek_v3(*SIZE, router=DeepSeek(k=3, num_groups=2, groups_kept=2), **options)
    return SYSTEMS[name](*SIZE, **options)


def expected_gates(problem, inputs):
    """Routing and drops in NumPy, from the tokens on: nothing that ran on the device is looked at."""
    logits = np.asarray(inputs.x).astype(np.float32) @ inputs.router.T
    routing = problem.router.route(logits, inputs.bias)
    if problem.capacity is not None and not isinstance(problem.router, ExpertChoice):
        drop = drop_by_position if problem.drop == "position" else drop_by_weight
        routing = drop(routing, problem.capacity)
    return dense.gates_of(routing.experts, routing.weights, problem.num_experts)


def check_system(problem, config):
    inputs = problem.inputs(17)
    if isinstance(problem.router, DeepSeek):
        bias = np.linspace(-0.2, 0.2, problem.num_experts, dtype=np.float32)
        inputs = inputs._replace(bias=bias)
    prepared = check(problem, config, inputs, launches=1)
    gates = expected_gates(problem, inputs)
    np.testing.assert_allclose(prepared.gates(), gates, rtol=1e-5, atol=1e-7)
    return prepared, gates


@pytest.mark.parametrize("name", SYSTEMS)
def test_system(name):
    problem = system_problem(name)
    prepared, gates = check_system(problem, LOADED)
    counts = prepared.order.counts.copy_to_host()
    if name == "Switch Transformers":
        assert (np.count_nonzero(gates, axis=1) <= 1).all()
        assert counts.max() <= problem.capacity
    elif name == "Expert Choice":
        assert (counts == problem.capacity).all(), "perfect balance by construction"
    elif name == "DeepSeek-V3":
        assert (np.count_nonzero(gates, axis=1) == 3).all(), "nothing is dropped"
        np.testing.assert_allclose(gates.sum(axis=1), 2.5, rtol=1e-6)
    elif name == "Megatron-LM":
        offsets = prepared.order.offsets.copy_to_host()
        assert (np.diff(offsets) == problem.capacity).all(), "every expert is padded to its capacity"
    elif name == "FasterTransformer":
        assert (np.count_nonzero(gates, axis=1) == 2).all()
        assert (gates.sum(axis=1) < 1).all(), "probabilities of the chosen, not rescaled"


@pytest.mark.parametrize("drop", layer.DROPS)
@pytest.mark.parametrize("pad", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_megatron_policies(drop, pad):
    check_system(
        megatron_lm(*SIZE, capacity_factor=0.6, pad=pad, drop=drop, dtype="float32"), Config("masked")
    )


@needs_hopper
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in SYSTEMS])
def test_system_on_hopper(name):
    check_system(system_problem(name, "bfloat16"), HOPPER)


# --- the judge, the table, and what is refused -----------------------------------------------------------


def test_the_judge_rejects_what_is_wrong():
    problem = problem_of()
    inputs = problem.inputs(18)
    prepared = layer.prepare(problem, LOADED, inputs)
    swapped = inputs.experts._replace(down=inputs.experts.down[::-1].copy())
    assert "outputs are wrong" in prepared.check(inputs._replace(experts=swapped)).complaint
    slightly = inputs.experts._replace(up=inputs.experts.up * np.float32(1 + 2.0**-10))
    assert not prepared.check(inputs._replace(experts=slightly)).ok
    unwritten = prepared.check(inputs, launch=lambda _: None)
    assert not unwritten.ok


def test_the_judge_sees_writes_outside():
    problem = problem_of()
    inputs = problem.inputs(19)
    prepared = layer.prepare(problem, LOADED, inputs)

    def launch(prepared):
        launch_parts(prepared)
        prepared.output[:1].copy_to_device(np.zeros((1, problem.width), np.float32))

    assert "outside the output" in prepared.check(inputs, launch=launch).complaint


def test_the_table_of_steps_is_the_code():
    rows = re.findall(r"^\| (\w+) +\| (\w+): .*\| (yes|no) +\|$", experts.__doc__, re.MULTILINE)
    assert {step for step, where, _ in rows if where == "device"} == set(experts.ON_DEVICE)
    assert {step for step, _, graph in rows if graph == "yes"} == set(experts.ON_DEVICE)
    assert {step for step, *_ in rows} == {*STEPS, *TENSOR_STEPS, *FP8_STEPS, "routed"}


def test_the_choice_for_a_device():
    assert layer.choose_config(problem_of()) == LOADED
    assert layer.choose_config(problem_of(dtype="bfloat16")).step == (
        "hopper" if ON_HOPPER else "tensor_core"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width is 0: use 1 or more"),
        ({"num_tokens": -1}, "it cannot be negative"),
        ({"dtype": "float16"}, "in float32, bfloat16 or float8_e4m3fn, not in float16"),
        ({"padded": True}, "padding wants a capacity"),
        ({"drop": "luck"}, "drop is 'luck'"),
    ],
    ids=str,
)
def test_refuses_a_layer_that_makes_no_sense(options, message):
    with pytest.raises(ProblemError, match=message):
        replace(problem_of(), **options)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (Config("cublas"), {}, "no step called 'cublas' computes in float32: use one of padded"),
        (Config("hopper"), {}, "no step called 'hopper' computes in float32"),
        (Config("tiled"), {"dtype": "bfloat16"}, "no step called 'tiled' computes in bfloat16"),
        (Config("tiled", gather="load"), {}, "the step tiled does not gather"),
        (Config("routed", activation="epilogue"), {}, "the step routed has no SwiGLU epilogue"),
        (Config("hopper", "kernel", "epilogue", "activation"), {"dtype": "bfloat16"}, "does not weigh"),
        (
            Config("tensor_core", activation="quantize"),
            {"dtype": "bfloat16"},
            "nothing is quantised in bfloat16",
        ),
        (
            Config("tiled_fp8", gather="router"),
            {"dtype": "float8_e4m3fn"},
            "quantised before they are gathered",
        ),
        (Config("routed", gather="magic"), {}, "gather is 'magic': use one of kernel, router, load"),
        (
            Config("routed", gather="router"),
            {"router": TopK(1, capacity_factor=1.0), "padded": True},
            "drop by position and do not pad",
        ),
    ],
    ids=str,
)
def test_refuses_choices_that_do_not_fit(config, options, message):
    with pytest.raises(ProblemError, match=message):
        layer.prepare(problem_of(**options), config)


def test_refuses_inputs_that_do_not_fit():
    problem = problem_of()
    inputs = problem.inputs()
    with pytest.raises(ProblemError, match=r"x is float32 \(\d+, \d+\), this layer needs float32"):
        layer.prepare(problem, LOADED, inputs._replace(x=inputs.x[1:]))
    wrong = inputs.experts._replace(up=inputs.experts.up.astype(DTYPES["bfloat16"]))
    with pytest.raises(ProblemError, match="up is bfloat16"):
        layer.prepare(problem, LOADED, inputs._replace(experts=wrong))
    assert isinstance(inputs, LayerInputs)


# --- the page of systems ---------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "systems.md").read_text(encoding="utf-8")


def test_the_page_names_every_system_and_its_layer():
    for name, make in SYSTEMS.items():
        section = PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert f"Layer: `systems.{make.__name__}`" in section


def test_the_page_names_tests_that_exist():
    named = set(re.findall(r"`tests/(test_\w+\.py)::(test_\w+)`", PAGE))
    assert len(named) > 15
    missing = [
        f"{file}::{test}"
        for file, test in sorted(named)
        if f"\ndef {test}(" not in (ROOT / "tests" / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_every_mechanism_has_a_test_or_says_that_it_is_missing():
    rows = [row.strip("|").split("|") for row in PAGE.splitlines() if row.startswith("| ")]
    silent = [
        what
        for what, here, shown in rows
        if not (shown.strip() or "not here" in here or what.strip().startswith("("))
    ]
    assert silent == []


def test_the_page_s_example_runs():
    example = "\n".join(line[4:] for line in PAGE.splitlines() if line.startswith("    "))
    assert "raise_if_wrong" in example
    small = example.replace(
        "64, width=128, hidden=64, num_experts=256", "4, width=32, hidden=16, num_experts=32"
    )
    assert small != example
    names: dict[str, object] = {}
    exec(compile(example if ON_GPU else small, "docs/systems.md", "exec"), names)
    assert names["prepared"].parts
