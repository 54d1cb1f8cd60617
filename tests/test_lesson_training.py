"""What lesson 15 shows: its pictures, its predictions, and what it times."""

import numpy as np
import pytest

from gemm_lessons import device, training_pictures
from gemm_lessons.measure import backward
from gemm_lessons.measure.ladder import Bench
from gemm_lessons.measure.results import Record
from gemm_lessons.measure.roofline import Peaks
from gemm_lessons.measure.timing import Rules
from gemm_lessons.moe import training, wgrad
from gemm_lessons.moe.gradient import SIM_CONFIG
from gemm_lessons.problem import GroupedProblem


@pytest.fixture(scope="module")
def history():
    return training.train(seed=2, balance=0.1, steps=40)


def test_a_slab_shows_whose_token_lies_behind_the_last_one():
    figure = training_pictures.slabs(GroupedProblem((3, 0, 2, 4), N=1, K=1), BK=4)
    (axes,) = figure.axes
    hatched = [patch for patch in axes.patches if patch.get_hatch()]
    assert len(axes.patches) == 3 * 4, "slabs of four, and none for the expert without tokens"
    assert len(hatched) == (4 - 3) + (4 - 2)
    shown = [text.get_text() for text in axes.texts]
    assert shown == ["0", "0", "0", "2", "no slab at all: the sum is zero", "2", "2", "3", "3", *"3333"]


def test_behind_the_last_token_of_all_there_is_nothing():
    figure = training_pictures.slabs(GroupedProblem((1,), N=1, K=1), BK=2)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "·"]


def test_loads_are_shares_of_all_tokens(history):
    figure = training_pictures.loads({"one": history, "another": history})
    above, _, below, _ = figure.axes
    assert above.get_title(loc="left") == "one"
    assert len(above.collections) == training.NUM_EXPERTS
    top = above.collections[-1].get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(1.0)
    np.testing.assert_allclose(below.lines[0].get_ydata(), history.losses)


def test_territories_are_where_the_router_sends_a_point(history):
    figure = training_pictures.territories({"at the end": history.weights[-1]})
    shown = figure.axes[0].images[0].get_array()
    axis = np.linspace(-1.3, 1.3, len(shown))
    for row, column in ((0, 0), (20, 130), (159, 80)):
        x = training.tokens_at(np.array([[axis[column], axis[row]]]))
        assert shown[row, column] == training.owners(history.weights[-1], x)[0]


def test_a_predicted_launch_has_every_tile_once_and_costs_slabs():
    problem = GroupedProblem((3, 0, 20), N=17, K=16)
    for longest_first in (True, False):
        timeline = wgrad.predict(problem, SIM_CONFIG, 2, longest_first=longest_first)
        assert sorted((one.group, one.tile_m, one.tile_n) for one in timeline.slices) == [
            (group, tile_m, 0) for group in range(3) for tile_m in range(2)
        ]
        for one in timeline.slices:
            assert one.stop - one.start == {0: 1, 1: 0, 2: 3}[one.group] * 8 * 16 * 16
    assert timeline.makespan == (1 + 3) * 8 * 16 * 16


def test_without_a_gpu_nothing_is_timed(monkeypatch, capsys):
    if device.choose().is_gpu:
        pytest.skip("NOT RUN: there is a GPU here")
    monkeypatch.setattr("sys.argv", ["backward"])
    assert backward.main() == 3
    assert "NOT RUN" in capsys.readouterr().out


def test_the_experts_order_is_all_that_differs():
    problem = GroupedProblem((2, 9, 5), N=8, K=8)
    inputs = problem.inputs()
    orders = []
    for step in (wgrad, backward.ByNumber()):
        prepared = step.prepare(problem, inputs=inputs)
        prepared.check(inputs).raise_if_wrong("wgrad")
        orders.append(prepared.parts["wgrad"].arguments[3].copy_to_host().tolist())
    assert orders == [[1, 2, 0], [0, 1, 2]]


def test_a_gradient_can_be_timed_next_to_its_padded_twin(tmp_path):
    class SteadyGpu:
        """Everything takes 100 us."""

        stream = 0
        flush = wait = lambda self: None
        record = lambda self: 0.0  # noqa: E731
        elapsed_us = lambda self, start, stop: 100.0  # noqa: E731

    record = Record({"device": "none"}, "2026-01-01", "float32")
    bench = Bench(
        SteadyGpu(), Peaks(1e12, 1e12, {"float32": 1e12}), record, rules=Rules.quick().once, most_sets=1
    )
    bench.ladder(GroupedProblem((3, 0, 9), 8, 4, name="tiny"), backward.STEPS)
    found = [(one.name, one.kind, one.status) for one in record.measurements]
    assert found == [(name, kind, "ok") for name in backward.STEPS for kind in ("step", "padded twin")]
    assert "right: 96 outputs" in record.find("tiny", "wgrad").verdict
