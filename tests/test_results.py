"""Results files: what is written can be read again, and what cannot be read says why."""

import json

import pytest

from gemm_lessons.measure import machine
from gemm_lessons.measure.results import (
    Measurement,
    Record,
    ResultsError,
    load,
    path_for,
    recorded,
    save,
)


def record(date: str = "2026-01-02T03:04:05+00:00") -> Record:
    return Record({"device": "NVIDIA Test 9000"}, date, "float32", measurements=[
        Measurement("S", "tiled", "step", "ok", median_us=2.5, work={"launches": 1}),
        Measurement("S", "tiled", "padded twin", "not run", reason="too slow"),
    ])  # fmt: skip


def test_a_record_survives_the_disk(tmp_path):
    path = tmp_path / "deep" / "a-float32.json"
    save(record(), path)
    assert load(path) == record()
    assert [entry.name for entry in path.parent.iterdir()] == ["a-float32.json"]


def test_measurements_are_found_by_kind():
    assert record().find("S", "tiled").median_us == 2.5
    assert record().find("S", "tiled", "padded twin").reason == "too slow"
    assert record().find("S", "naive") is None


def test_the_newest_record_of_a_dtype_is_taken(tmp_path):
    save(record("2026-01-01T00:00:00+00:00"), tmp_path / "z-float32.json")
    save(record("2026-03-01T00:00:00+00:00"), tmp_path / "a-float32.json")
    save(record("2026-09-01T00:00:00+00:00"), tmp_path / "a-bfloat16.json")
    assert recorded("float32", tmp_path).date.startswith("2026-03")
    assert recorded("float16", tmp_path) is None


def test_a_label_names_device_and_day():
    assert record().label == "NVIDIA Test 9000, 2026-01-02"


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "no results file"), ("[]", "no results file"), ('{"schema": 99}', "schema 99")],
)
def test_a_broken_file_is_refused(tmp_path, text, says):
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=says):
        load(path)


def test_an_unknown_field_is_refused(tmp_path):
    path = tmp_path / "a-float32.json"
    save(record(), path)
    raw = json.loads(path.read_text())
    raw["measurements"][0]["speed"] = 3
    path.write_text(json.dumps(raw))
    with pytest.raises(ResultsError, match="speed"):
        load(path)


def test_file_names_are_made_of_the_device_name(tmp_path):
    path = path_for("NVIDIA H100 80GB HBM3", "float32", tmp_path)
    assert path == tmp_path / "h100-80gb-hbm3-float32.json"


def test_the_machine_is_described_without_a_gpu():
    described = machine.machine()
    assert described["device"]
    assert "numpy" in described["versions"]
    json.dumps(described)
