"""README: its table is the recorded one, its links lead somewhere, and its ladder is the ladder."""

import re
from pathlib import Path

import pytest

from gemm_lessons.authoring import readme
from gemm_lessons.measure.results import Measurement, Record

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def record() -> Record:
    machine = {
        "device": "NVIDIA Test",
        "driver": "580.1",
        "commit": "abc",
        "versions": {"numba-cuda": "0.30"},
    }
    found = Record(machine, "2026-01-02T03:04:05+00:00", "float32")
    found.problems["S-x16"] = {"counts": [3, 4], "N": 8, "K": 16}
    found.measurements += [
        Measurement("S-x16", "padded", "step", "ok", median_us=30.0, useful_tflops=10.0),
        Measurement(
            "S-x16", "tiled", "step", "ok", median_us=10.0, useful_tflops=30.0, percent_of_roofline=60
        ),
        Measurement("S-x16", "tiled", "padded twin", "ok", median_us=15.0, useful_tflops=20.0),
        Measurement("S-x16", "torch", "peer", "not run", "torch is not installed"),
    ]
    return found


def test_a_block_holds_the_numbers_and_the_reasons():
    text = readme.ladder_block(record())
    assert "| tiled | 10.0 | - | 30.0 | 60.0% | 15.0 | 1.50x | 3.00x | - | - |" in text
    assert "- torch: NOT RUN, torch is not installed" in text
    assert "NVIDIA Test, 2026-01-02" in text


def test_without_results_there_are_no_numbers():
    assert not re.search(r"\d", readme.ladder_block(None) + readme.tensor_block({}))


def test_tensor_cores_are_shown_beside_a_library():
    found = record()
    found.dtype = "bfloat16"
    found.measurements += [
        Measurement("S-x16", "hopper", "step", "ok", median_us=8.0, iqr_us=0.5, useful_tflops=700.0),
        Measurement("S-x16", "torch._grouped_mm", "peer", "ok", median_us=10.0),
        Measurement("S-x16", "torch.bmm padded", "peer", "not run", "no memory"),
    ]
    text = readme.tensor_block({"bfloat16": found})
    assert "| S-x16 | 8, 16 | 8.00 | 0.50 | 700 | - | 10.0 | 0.80 | - | - |" in text
    assert "- torch.bmm padded on S-x16: NOT RUN, no memory" in text
    assert "Recorded 2026-01-02 on NVIDIA Test" in text


MARKED = "a\n<!-- ladder:begin -->\nold\n<!-- ladder:end -->\n<!-- tensor:begin --><!-- tensor:end -->\nb\n"


def test_what_is_written_is_not_stale_and_a_new_record_makes_it_stale(tmp_path):
    (tmp_path / "README.md").write_text(MARKED)
    records = {"float32": record()}
    assert readme.stale(tmp_path, records) == ["README.md", "docs/ladder.svg"]
    readme.write(tmp_path, records)
    assert readme.stale(tmp_path, records) == []
    newer = record()
    newer.date = "2026-02-02T00:00:00+00:00"
    assert readme.stale(tmp_path, {"float32": newer}) == ["README.md", "docs/ladder.svg"]
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("a\n")
    assert text.endswith("<!-- tensor:end -->\nb\n")


@pytest.mark.parametrize("text", ["", "B", "EB", "BBE"])
def test_missing_markers_are_an_error(text):
    marked = text.replace("B", "<!-- ladder:begin -->").replace("E", "<!-- ladder:end -->")
    with pytest.raises(readme.MarkerError):
        readme.replace_block(marked, "ladder", "x")


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_ladder_in_the_text_is_the_ladder():
    from gemm_lessons.steps import FP8_STEPS, STEPS, TENSOR_STEPS

    assert re.findall(r"^\| \[`(\w+)`\]", README, re.MULTILINE) == [*(STEPS | TENSOR_STEPS | FP8_STEPS)]


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    texts = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", texts, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
