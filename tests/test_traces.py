"""A recorded trace comes back as it was, and nothing else is taken for one."""

import numpy as np
import pytest

from gemm_lessons.measure import traces
from gemm_lessons.measure.results import ResultsError
from gemm_lessons.trace import Slice, Timeline

MACHINE = {"device": "A GPU", "commit": "abc"}
SLICES = (Slice(0, 3, 1, 2, 4, 5_000, 7_500), Slice(8, 3, 0, 0, 0, 6_000, 9_000))


def test_what_was_saved_comes_back(tmp_path):
    kept = Timeline(SLICES, 4, "ns", "tile-level")
    path = traces.path_for("S", tmp_path)
    traces.save("S", [kept, Timeline((), 4, "ns", "sequential")], MACHINE, "2026-01-02T03:04:05+00:00", path)
    found = traces.recorded("S", tmp_path)
    assert found is not None
    assert (found.workload, found.machine, found.label) == ("S", MACHINE, "A GPU, 2026-01-02")
    first, empty = found.timelines
    assert (first.label, first.num_sms, first.makespan, first.idle_tail) == (
        "tile-level", 4, kept.makespan, kept.idle_tail,
    )  # fmt: skip
    assert first.slices[1] == Slice(8, 3, 0, 0, 0, 1_000, 4_000)
    assert (empty.label, empty.slices) == ("sequential", ())


def test_a_prediction_is_not_recorded(tmp_path):
    with pytest.raises(ValueError, match="only a run on a GPU is recorded"):
        traces.save("S", [Timeline(SLICES, 4, "multiply-adds")], MACHINE, "", tmp_path / "S.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_something_else_is_refused(tmp_path, content):
    path = tmp_path / "S.npz"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match="holds no traces"):
        traces.load(path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "S.npz", weights=np.zeros(3))
    with pytest.raises(ResultsError, match="holds no traces"):
        traces.load(tmp_path / "S.npz")


def test_what_is_not_there_is_none(tmp_path):
    assert traces.recorded("nowhere", tmp_path) is None
