"""Counters, timeline, and what a finding holds."""

import numpy as np
import pytest
from numba import cuda, float32, int32

from gemm_lessons import sim
from gemm_lessons.sim.report import LineCount, Place, Report


@cuda.jit
def row_per_thread(x, y):
    i = cuda.grid(1)
    y[i] = x[i, 0]


@cuda.jit
def column_per_thread(x, y):
    i = cuda.grid(1)
    y[i] = x[0, i]


@cuda.jit
def offset_by_one(x, y):
    i = cuda.grid(1)
    y[i] = x[0, i + 1]


@pytest.mark.parametrize(
    ("kernel", "text", "sectors"),
    [
        (row_per_thread, "x[i, 0]", 32),
        (column_per_thread, "x[0, i]", 4),
        (offset_by_one, "x[0, i + 1]", 5),
    ],
)
def test_sectors_per_request(kernel, text, sectors):
    kernel[2, 32](np.zeros((64, 72), np.float32), np.zeros(64, np.float32))
    line = sim.last_report().line(text)
    assert line.requests == 2
    assert line.sectors_per_request == sectors
    assert line.array == "x"


def shared_access(stride, columns=32):
    @cuda.jit
    def kernel(y):
        s = cuda.shared.array((32, columns), float32)
        t = cuda.threadIdx.x
        for i in range(32):
            s[i, t] = t
        cuda.syncthreads()
        y[t] = s[t, stride]

    return kernel


def test_column_of_a_tile_is_a_32_way_bank_conflict():
    shared_access(3)[1, 32](np.zeros(32, np.float32))
    line = sim.last_report().line("s[t, stride]")
    assert (line.requests, line.wavefronts, line.worst) == (1, 32, 32)


def test_padding_removes_the_conflict():
    shared_access(3, 33)[1, 32](np.zeros(32, np.float32))
    assert sim.last_report().line("s[t, stride]").worst == 1


@cuda.jit
def broadcast(x, y):
    s = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    y[t] = s[7]


def test_broadcast_is_no_conflict():
    broadcast[1, 32](np.zeros(32, np.float32), np.zeros(32, np.float32))
    assert sim.last_report().line("s[7]").worst == 1


@cuda.jit
def wide_elements(x, y):
    s = cuda.shared.array(32, np.float64)
    t = cuda.threadIdx.x
    s[t] = x[t]
    cuda.syncthreads()
    y[t] = s[t]


def test_eight_byte_elements_take_two_passes():
    wide_elements[1, 32](np.zeros(32), np.zeros(32))
    assert sim.last_report().line("s[t]").wavefronts == 2 * sim.last_report().line("s[t]").requests


@cuda.jit
def queue(counter, work, done):
    s_tile = cuda.shared.array(1, int32)
    while True:
        if cuda.threadIdx.x == 0:
            s_tile[0] = cuda.atomic.add(counter, 0, 1)
        cuda.syncthreads()
        tile = s_tile[0]
        cuda.syncthreads()
        if tile >= work.size:
            break
        for i in range(work[tile]):
            done[tile, i, cuda.threadIdx.x] = 1


def run_queue(work, blocks=4):
    work = np.array(work, np.int32)
    queue[blocks, 32](np.zeros(1, np.int32), work, np.zeros((work.size, work.max(), 32)))
    return sim.last_report()


@pytest.mark.parametrize("mode", ["checked", "plain"])
def test_work_stealing_spreads(mode):
    sim.configure(mode=mode)
    tickets = run_queue([4] * 40).tickets
    assert sorted(t for draws in tickets.values() for t in draws) == list(range(44))
    assert all(10 <= len(draws) <= 12 for draws in tickets.values())


def test_work_stealing_follows_the_cost_of_tiles():
    tickets = run_queue([400, 200, *[10] * 20], blocks=4).tickets
    lengths = sorted(len(draws) for draws in tickets.values())
    assert lengths[0] == 2
    assert lengths[-1] >= 8


def test_timeline_has_a_span_for_each_block_and_ticket():
    report = run_queue([4] * 6, blocks=3)
    blocks = [span for span in report.spans if span.label == "block"]
    assert {span.block for span in blocks} == {0, 1, 2}
    for span in report.spans:
        (outer,) = [b for b in blocks if b.block == span.block]
        assert outer.start <= span.start <= span.stop <= outer.stop
        assert span.sm == outer.sm
    assert report.atomics == 9
    assert report.barriers == 18


def test_counts_do_not_depend_on_where_the_log_is_cut(monkeypatch):
    def count():
        work = np.full(6, 3, np.int32)
        queue[3, 64](np.zeros(1, np.int32), work, np.zeros((6, 3, 64)))
        return [(line.place, line.accesses, line.requests) for line in sim.last_report().lines]

    whole = count()
    monkeypatch.setattr("gemm_lessons.sim.engine.BATCH", 100)
    assert count() == whole


def test_races_do_not_depend_on_where_the_log_is_cut(monkeypatch):
    @cuda.jit
    def kernel(x, y):
        b, t = cuda.blockIdx.x, cuda.threadIdx.x
        if b == 0:
            y[t] = 1
        for i in range(50):
            x[b, i, t] = i
        if b == 5:
            y[t] += 1

    monkeypatch.setattr("gemm_lessons.sim.engine.BATCH", 100)
    with pytest.raises(sim.SimulatorError) as caught:
        kernel[6, 32](np.zeros((6, 50, 32)), np.zeros(32))
    assert {f.kind for f in caught.value.findings} == {"race"}


def test_counters_can_be_switched_off():
    sim.configure(counters=False)
    row_per_thread[2, 32](np.zeros((64, 4), np.float32), np.zeros(64, np.float32))
    assert sim.last_report().lines == []


def test_report_prints_its_lines():
    row_per_thread[2, 32](np.zeros((64, 64), np.float32), np.zeros(64, np.float32))
    assert "'x[i, 0]' load global x: 2 requests, 32.0 sectors each" in str(sim.last_report())


def test_unknown_expression_names_those_there_are():
    report = Report("k", (1, 1, 1), (1, 1, 1))
    report.lines.append(LineCount(Place(text="x[i]"), "global", "x", "load"))
    with pytest.raises(KeyError, match=r"no counts for 'y\[i\]'; there are 'x\[i\]'"):
        report.line("y[i]")


@cuda.jit
def many_mistakes(x):
    s = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    x[t + 100] = 1
    x[t - 50] = 1
    x[t] = s[t]
    s[t] = 1
    x[t] = s[31 - t]
    r = cuda.local.array(2, float32)
    x[t] = r[0]
    x[0] = t


def test_up_to_five_findings_in_the_order_of_the_run():
    with pytest.raises(sim.SimulatorError) as caught:
        many_mistakes[1, 32](np.zeros(32, np.float32))
    findings = caught.value.findings
    assert len(findings) == 5
    assert [f.kind for f in findings[:2]] == ["bounds", "bounds"]
    assert "(5) " in str(caught.value)
    assert findings == sim.last_report().findings


def test_a_finding_names_kernel_place_and_both_threads():
    @cuda.jit
    def racy(x):
        x[0] = cuda.threadIdx.x + cuda.blockIdx.x

    with pytest.raises(sim.SimulatorError) as caught:
        racy[2, 1](np.zeros(1, np.int32))
    (finding,) = caught.value.findings
    assert finding.kernel == "racy"
    assert finding.place.text == "x[0]"
    assert finding.place.file == __file__
    assert {finding.actor.block, finding.other_actor.block} == {(0, 0, 0), (1, 0, 0)}
    assert "different blocks" in finding.message.lower()
