"""The bench of few tokens: what it draws, what it judges, with a device that does not exist."""

import re

import numpy as np
import pytest

from gemm_lessons.launch import quantized_to_device, to_device
from gemm_lessons.measure import decoding
from gemm_lessons.measure.roofline import Peaks
from gemm_lessons.measure.timing import Rules
from gemm_lessons.problem import DTYPES, Inputs
from gemm_lessons.steps import decode

PEAKS = Peaks(copy_bytes_per_s=2e12, read_bytes_per_s=4e12)


class FakeGpu:
    stream = None

    def flush(self):
        pass

    def record(self):
        return 0

    def elapsed_us(self, start, stop):
        return 100.0

    def wait(self):
        pass


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(decoding, "N", decoding.BLOCK)
    monkeypatch.setattr(decoding, "K", 128)
    monkeypatch.setattr(decoding, "ROUTINGS", {"small": (1, 0, 2)})
    monkeypatch.setattr(decoding, "Rules", lambda: Rules(samples=1, least_samples=1, warmups=1))
    everything = decoding.programs
    only_decode = lambda *given: (one for one in everything(*given) if one[0] == "decode")  # noqa: E731
    monkeypatch.setattr(decoding, "programs", only_decode)  # why: the others take a minute to simulate


def weights(dtype):
    w = decoding.draw((3, decoding.BLOCK, 128), dtype, 0)
    if dtype == "bfloat16":
        return w, to_device(w)
    scaled = decoding.scales_of(w, (decoding.BLOCK, decoding.BLOCK), 5)
    return scaled, quantized_to_device(scaled)


def test_fewer_experts_have_the_first_weights():
    values = decoding.draw((3, 128, 128), "float8_e4m3fn", 1)
    w = decoding.scales_of(values, (128, 128), 2)
    few = decoding.first_experts(w, 2)
    assert (few.values.shape[0], few.scales.shape[0], few.block) == (2, 2, w.block)
    assert np.shares_memory(few.values, values)
    assert decoding.first_experts(values, 1).shape == (1, 128, 128)


def lines_of(dtype):
    return decoding.measure(FakeGpu(), PEAKS, "small", dtype, *weights(dtype))


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float8_e4m3fn", marks=pytest.mark.slow)])
def test_a_line_counts_the_fewest_bytes_and_its_output_is_right(small, dtype):
    line = lines_of(dtype)[0]
    item = DTYPES[dtype].itemsize
    least = (3 * 128 + 2 * 128 * 128) * item + 3 * 128 * 2  # tokens, two experts' weights, outputs
    assert (line.name, line.least_bytes, line.median_us) == ("decode", least, 100.0)
    assert line.tb_per_s == pytest.approx(least / 100e-6 / 1e12)
    assert line.percent_of_read == pytest.approx(100 * least / 100e-6 / 4e12)
    assert line.right, line.verdict


@pytest.mark.slow
def test_a_wrong_feature_is_seen(small, monkeypatch):
    def broken(*arguments, **options):
        prepared = prepare(*arguments, **options)
        result = prepared.result

        def spoiled():
            guarded = result()
            guarded[8, -1] += 1
            return guarded

        prepared.result = spoiled
        return prepared

    prepare = decode.prepare
    monkeypatch.setattr(decode, "prepare", broken)
    line = lines_of("bfloat16")[0]
    assert not line.right
    assert "column 127" in line.verdict


def test_large_arrays_repeat_what_was_drawn(monkeypatch):
    monkeypatch.setattr(decoding, "DRAWN", 10)
    drawn = decoding.draw((3, 7), "bfloat16", 1)
    np.testing.assert_array_equal(drawn.reshape(-1)[10:20], drawn.reshape(-1)[:10])
    assert len(np.unique(drawn.reshape(-1)[:10].astype(np.float32))) > 5


def test_the_oracle_gets_the_scales_of_its_features():
    values = decoding.draw((2, 384, 256), "float8_e4m3fn", 1)
    x = decoding.scales_of(values[0, :3], (1, 128), 2)
    for block, shape in (((128, 128), (2, 1, 2)), ((1, 256), (2, 128, 1))):
        w = decoding.scales_of(values, block, 3)
        some = decoding.some_features(decoding.QuantizedInputs(x, w), 256)
        assert some.w.scales.shape == shape
        np.testing.assert_array_equal(some.w.scales, w.scales[:, 2:3] if block[0] > 1 else w.scales[:, 256:])
    plain = decoding.some_features(Inputs(values[0], values), 128)
    np.testing.assert_array_equal(plain.w.view(np.uint8), values[:, 128:256].view(np.uint8))


def test_without_a_gpu_the_record_is_shown_with_its_device_day_and_commit(monkeypatch):
    monkeypatch.setattr(decoding.device, "choose", lambda: type("Simulator", (), {"is_gpu": False}))
    label, lines = decoding.here_or_recorded(["8 each", "1 each"], "bfloat16")
    assert re.fullmatch(r"recorded on NVIDIA .+, \d{4}-\d\d-\d\d, commit [0-9a-f]{7,}", label)
    assert {line.routing for line in lines} == {"8 each", "1 each"}
    assert {line.dtype for line in lines} == {"bfloat16"}
    assert lines[0].counts in ((8,) * 8, (1,) * 8)
    assert all(line.right for line in lines)


def test_with_a_gpu_routings_are_timed(small, monkeypatch):
    monkeypatch.setattr(decoding.device, "choose", lambda: type("Card", (), {"is_gpu": True, "name": "card"}))
    monkeypatch.setattr(decoding, "CudaGpu", FakeGpu)
    monkeypatch.setattr(decoding, "peaks", lambda gpu: PEAKS)
    monkeypatch.setattr(
        decoding, "measure", lambda gpu, limits, routing, dtype, w, there: [(routing, w.shape)]
    )
    assert decoding.here_or_recorded(["a", "b"], "bfloat16") == (
        "card, now",
        [("a", (8, decoding.BLOCK, 128)), ("b", (8, decoding.BLOCK, 128))],
    )
