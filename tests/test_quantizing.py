"""Timing of quantisation: what is timed is also judged, and the record holds right results only."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from gemm_lessons.measure import quantizing
from gemm_lessons.measure.quantizing import SHAPES, measure, measure_turn
from gemm_lessons.measure.study import FOLDER
from gemm_lessons.quantize_kernels import prepare


@pytest.fixture
def steady(monkeypatch):
    """A GPU on which quantising takes 100 us and a copy 90."""

    def time_calls(calls, gpu, rules):
        return SimpleNamespace(median_us=calls[0](None) or 100.0)

    monkeypatch.setattr(quantizing, "time_calls", time_calls)
    monkeypatch.setattr(quantizing, "_copy", lambda gpu, num_bytes: lambda stream: 90.0)


@pytest.mark.parametrize(("shape", "block"), [((5, 256), (1, 128)), ((2, 130, 136), (128, 128))], ids=str)
def test_a_line_counts_what_must_move(steady, shape, block):
    line = measure(None, "tiny", shape, block, "bfloat16", None)
    scales = 10 if len(shape) == 2 else 8
    assert line.bytes == 3 * np.prod(shape) + 4 * scales
    assert line.percent_of_copy == pytest.approx(90)
    assert line.gb_per_s == pytest.approx(line.bytes / 100e-6 / 1e9)
    assert line.right


def test_turned_scales_are_read_and_written_once(steady, monkeypatch):
    line = measure_turn(None, "tiny", (6, 300))
    assert (line.kernel, line.shape, line.bytes) == ("turn", (6, 3), 2 * 4 * 18)
    assert line.right
    monkeypatch.setattr(quantizing, "prepare_turn", lambda scales, turned: lambda stream: None)
    assert not measure_turn(None, "tiny", (6, 300)).right


def test_a_wrong_result_is_noticed(steady, monkeypatch):
    class Wrong:
        kernel = "wrong"

        def __init__(self, x, block):
            self.out = prepare(x, block).out  # never launched

        def __call__(self, stream):
            pass

    monkeypatch.setattr(quantizing, "prepare", lambda x, block, kernel: Wrong(x, block))
    assert not measure(None, "tiny", (5, 256), (1, 128), "float32", None).right


@pytest.mark.parametrize("path", sorted(FOLDER.glob("quantize-*.json")), ids=lambda path: path.stem)
def test_what_is_recorded_was_right_and_complete(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"] == quantizing.COMMAND
    assert {"device", "commit", "versions"} <= set(record["machine"])
    assert {line["name"] for line in record["lines"]} == {name for name, _, _ in SHAPES}
    assert all(line["right"] for line in record["lines"])


def test_without_a_gpu_the_record_is_shown():
    label, lines = quantizing.here_or_recorded(["tokens of S", "weights of S"])
    assert label.startswith("recorded on NVIDIA ")
    assert [(line.name, line.kernel) for line in lines] == [
        ("tokens of S", "rows"),
        ("weights of S", "tiles"),
    ]
