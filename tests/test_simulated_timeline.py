"""The checked simulator has a virtual clock and virtual SMs: a traced run shows who stole what."""

from dataclasses import replace
from itertools import pairwise

import pytest

from gemm_lessons import device
from gemm_lessons.steps import persistent
from gemm_lessons.workloads import WORKLOADS

if not device.choose().name.startswith("checked"):
    pytest.skip("needs the checked simulator", allow_module_level=True)


def traced(schedule):
    problem = WORKLOADS["zipf"].twin
    config = replace(persistent.SIM_CONFIG, trace=True)
    prepared = persistent.prepare(problem, config, schedule=schedule)
    prepared.check(problem.inputs()).raise_if_wrong(schedule)
    return prepared.timeline()


def test_a_traced_run_has_times_and_uses_every_virtual_sm():
    timeline = traced("work-stealing")
    assert {piece.sm for piece in timeline.slices} == set(range(timeline.num_sms))
    assert all(piece.stop > piece.start for piece in timeline.slices)
    by_sm = sorted((piece.sm, piece.start, piece.stop) for piece in timeline.slices)
    for (sm, _, stop), (next_sm, start, _) in pairwise(by_sm):
        assert sm != next_sm or stop <= start


def test_stealing_leaves_a_shorter_idle_tail_than_whole_experts():
    assert traced("work-stealing").makespan < 0.6 * traced("sequential").makespan
