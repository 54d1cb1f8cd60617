"""The layer's bench: every stage is timed, what is wrong is named, and work is counted without a GPU."""

import sys
from pathlib import Path

import pytest

from gemm_lessons import cli, device, layer_pictures
from gemm_lessons.measure import layer as program
from gemm_lessons.measure import results, tables
from gemm_lessons.measure.results import MOVING, Record, load, moving_share, stages_of
from gemm_lessons.measure.timing import Rules
from gemm_lessons.moe import dense, layer
from gemm_lessons.moe.layer import Config
from gemm_lessons.moe.router import TopK

pytestmark = pytest.mark.skipif(
    device.choose().is_gpu, reason="NOT RUN: a GPU does not take 100 us for everything"
)
PROBLEM = program.problem_of(12, 16, 8, 4, 2, "float32")
ROUTED = Config("routed")
STAGES = ["router", "permute", "gather", "gate_up", "swiglu", "down", "scatter"]


class SteadyGpu:
    """Every stage takes 100 us, and every call."""

    stream = 0

    def flush(self):
        pass

    def record(self):
        return 0.0

    def elapsed_us(self, start, stop):
        return 100.0

    def wait(self):
        pass


@pytest.fixture
def bench(tmp_path):
    record = Record({"device": "none"}, "2026-01-01", "float32")
    return program.LayerBench(SteadyGpu(), record, tmp_path / "none-float32-layer.json", Rules(3, 2, 1))


def test_a_variant_is_timed_whole_and_stage_by_stage(bench):
    bench.run(PROBLEM, {"routed": ROUTED})
    whole = bench.record.find("layer", "routed", "layer")
    assert (whole.status, whole.median_us, whole.samples) == ("ok", 100, 3)
    assert whole.useful_tflops == pytest.approx(6 * 12 * 2 * 16 * 8 / 100e-6 / 1e12)
    assert "192 outputs" in whole.verdict
    stages = stages_of(bench.record, "layer", "routed")
    assert stages == dict.fromkeys(STAGES, 100)
    assert moving_share(stages) == pytest.approx(4 / 7)
    assert load(bench.path).find("layer", "routed", "layer") == whole


@pytest.mark.slow
def test_what_waits_for_the_host_says_so(bench):
    bench.run(PROBLEM, {"tiled": Config("tiled")})
    assert "one host read" in bench.record.find("layer", "tiled", "layer").reason
    assert "counts" in stages_of(bench.record, "layer", "tiled")


def test_a_wrong_variant_is_named_and_the_next_one_runs(bench, monkeypatch):
    monkeypatch.setattr(dense, "silu", lambda values: values)
    bench.run(PROBLEM, {"routed": ROUTED, "nonsense": Config("nonsense")})
    wrong = bench.record.find("layer", "routed", "layer")
    assert wrong.status == "wrong"
    assert "outputs are wrong" in wrong.reason
    refused = bench.record.find("layer", "nonsense", "layer")
    assert (refused.status, refused.median_us) == ("not run", None)
    assert "no step called 'nonsense'" in refused.reason


def test_a_peer_that_cannot_run_says_why(bench):
    bench.run(PROBLEM, {})
    peer = bench.record.find("layer", program.TORCH, "peer")
    assert peer.status == "not run"
    assert peer.reason


def test_tables_and_picture_of_a_record(bench):
    bench.run(PROBLEM, {"routed": ROUTED, "nonsense": Config("nonsense")})
    table = tables.layer(bench.record, "layer")
    assert table.rows[0][0] == "routed"
    assert table.rows[0][-1] == f"{4 / 7:.1%}"
    assert ("nonsense", "NOT RUN", "", "", "", "") in table.rows
    assert [row[0] for row in tables.stages(bench.record, "layer", "routed").rows] == STAGES
    figure = layer_pictures.timeline(bench.record, "layer")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert any("routing, gather, scatter: 57.1%" in text for text in texts)


@pytest.mark.slow
def test_the_stages_that_are_counted_are_those_that_run():
    for dtype, variants in program.VARIANTS.items():
        for name, config in variants.items():
            problem = program.problem_of(6, 16, 16, 4, 2, dtype)
            ran = set(layer.prepare(problem, config, problem.inputs()).parts) - {"counts"}
            assert ran == set(program.counted(problem, config)), name
    assert set(MOVING) - {"counts"} <= set(STAGES)


def test_counted_work():
    works = program.counted(program.problem_of(), Config("hopper"))
    assert works["gate_up"].flops == 2 * works["down"].flops == 4 * 16384 * 2048 * 2048
    assert works["swiglu"].num_bytes == 3 * 16384 * 2048 * 2
    fused = program.counted(program.problem_of(), Config("hopper", activation="epilogue"))
    saved = works["gate_up"].num_bytes + works["swiglu"].num_bytes - fused["gate_up"].num_bytes
    assert saved == 4 * 16384 * 2048 * 2, "gate and up are neither written nor read, hidden is written once"
    eight = program.counted(program.problem_of(dtype="float8_e4m3fn"), Config("hopper_fp8"))
    at_once = program.counted(
        program.problem_of(dtype="float8_e4m3fn"), Config("hopper_fp8", activation="quantize")
    )
    assert eight["swiglu"].num_bytes - at_once["swiglu"].num_bytes == 2 * 16384 * 2048 * 2, (
        "hidden in 16 bits"
    )
    assert eight["gather"].num_bytes == works["gather"].num_bytes * (1 + 4 / 128) / 2
    assert tables.counted_layer("layer", works).rows[3][1] == "275"
    figure = layer_pictures.counted(works, "counted")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["multiply-adds", "bytes"]


LOG = (Path(__file__).resolve().parent.parent / "docs" / "layer_log.md").read_text(encoding="utf-8")


def megabytes(dtype, config):
    works = program.counted(program.problem_of(dtype=dtype), config)
    return sum(work.num_bytes for work in works.values()) / 1e6


def test_the_log_counts_as_the_code_does():
    plain, epilogue = Config("hopper"), Config("hopper", activation="epilogue")
    fused = Config("hopper", "router", "epilogue")
    whole = megabytes("bfloat16", plain)
    assert f"{whole - megabytes('bfloat16', epilogue):.0f} of {whole:.0f} MB" in LOG
    assert f"{megabytes('bfloat16', epilogue) - megabytes('bfloat16', fused):.0f} MB" in LOG
    whole = megabytes("float32", ROUTED)
    assert f"{whole - megabytes('float32', Config('routed', gather='load')):.0f} of {whole:.0f} MB" in LOG
    assert f"{program.problem_of().flops / 1e9:.0f} GFLOP" in LOG


def test_the_log_says_whether_times_are_recorded():
    nothing = results.recorded("bfloat16-layer") is None and results.recorded("float32-layer") is None
    assert nothing == ("No time is recorded yet" in LOG)


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run `gemm-lessons layer` in a folder of its own; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.console, "_width", 200)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gemm-lessons", "layer", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code or 0, " ".join(out.split()), err

    return run


def test_the_command_counts_and_draws_without_a_gpu(command, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "recorded", lambda dtype: None)
    code, out, _ = command("--tokens", "64", "--experts", "4", "--width", "32", "--hidden", "16")
    assert code == 0
    assert "counted work of its stages" in out
    assert "µs" not in out, "nothing was timed"
    assert "No times are recorded yet" in out
    assert (tmp_path / "out" / "layer-bfloat16.png").stat().st_size > 10_000


def test_the_command_shows_what_was_recorded(command, bench, tmp_path, monkeypatch):
    bench.run(PROBLEM, {"routed": ROUTED})
    monkeypatch.setattr(results, "recorded", lambda dtype: bench.record)
    code, out, _ = command("--dtype", "float32")
    assert code == 0
    assert "Recorded on none, 2026-01-01; nothing below was measured now." in out
    assert "layer: stages of routed" in out
    assert (tmp_path / "out" / "layer-float32-recorded.png").stat().st_size > 10_000


def test_the_command_refuses_an_unknown_dtype(command):
    code, _, err = command("--dtype", "float16")
    assert code == 2
    assert "no layer computes in float16: use one of bfloat16, float8_e4m3fn, float32" in err


def test_the_size_that_is_judged():
    problem = program.problem_of()
    assert (problem.num_tokens, problem.width, problem.hidden, problem.num_experts) == (8192, 2048, 2048, 8)
    assert problem.router == TopK(2)
