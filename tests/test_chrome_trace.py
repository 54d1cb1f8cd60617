"""The exported trace holds every slice, in the format that trace viewers read."""

import json

from gemm_lessons.measure.timeline import chrome_trace, write_chrome_trace
from gemm_lessons.trace import Slice, Timeline

SLICES = (
    Slice(block=0, sm=3, group=1, tile_m=2, tile_n=4, start=5_000, stop=7_500),
    Slice(block=8, sm=3, group=0, tile_m=0, tile_n=0, start=6_000, stop=9_000),
)


def test_every_slice_is_an_event_in_microseconds_from_the_start():
    trace = chrome_trace(Timeline(SLICES, 4, "ns", "tile-level"))
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [(event["ts"], event["dur"]) for event in events] == [(0.0, 2.5), (1.0, 3.0)]
    assert [(event["pid"], event["tid"]) for event in events] == [(3, 0), (3, 1)]
    assert events[0]["name"] == "expert 1 (2, 4)"
    names = [event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"]
    assert names == ["SM 3"]


def test_a_prediction_keeps_its_own_unit():
    trace = chrome_trace(Timeline(SLICES, 4, "multiply-adds"))
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert events[0]["dur"] == 2500
    assert trace["otherData"]["unit"] == "multiply-adds"


def test_the_file_is_json(tmp_path):
    write_chrome_trace(Timeline(SLICES, 4, "ns"), tmp_path / "a" / "trace.json")
    assert json.loads((tmp_path / "a" / "trace.json").read_text())["traceEvents"]
