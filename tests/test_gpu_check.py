"""gpu-check tells right from wrong from not run, with a compute-sanitizer that the test wrote."""

import importlib.util
import json
import stat
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "tools" / "gpu_check.py")
gpu_check = importlib.util.module_from_spec(spec)
sys.modules["gpu_check"] = gpu_check  # dataclasses look their module up
spec.loader.exec_module(gpu_check)


@pytest.fixture
def sanitizer(tmp_path):
    def make(output: str, code: int) -> str:
        path = tmp_path / "compute-sanitizer"
        path.write_text(f"#!/bin/sh\necho '{output}'\nexit {code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("output", "code", "status"),
    [
        ("========= ERROR SUMMARY: 0 errors", 0, "ok"),
        ("========= ERROR SUMMARY: 3 errors", gpu_check.FOUND_SOMETHING, "failed"),
        ("========= RACECHECK SUMMARY: 1 hazard displayed", gpu_check.FOUND_SOMETHING, "failed"),
        ("========= ERROR SUMMARY: 0 errors", 1, "failed"),  # a step was wrong
        ("Error: no permission to profile", 255, "not run"),
    ],
)
def test_what_the_sanitizer_says(sanitizer, tmp_path, output, code, status):
    result = gpu_check.sanitize("memcheck", sanitizer(output, code), tmp_path, 20)
    assert result.status == status
    assert ("a step did not run or was wrong" in result.detail) == (code == 1)
    assert output.strip("= ") in result.detail


def test_a_finding_is_named(sanitizer, tmp_path):
    output = """========= COMPUTE-SANITIZER
what the program prints
========= Error: Race reported between Write access at kernel+0x10
=========     and Read access at kernel+0x20 [1 hazards]
=========
========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"""
    tool = sanitizer(output, gpu_check.FOUND_SOMETHING)
    result = gpu_check.sanitize("racecheck", tool, tmp_path, 20)
    assert "Write access at kernel+0x10, and Read access at kernel+0x20" in result.detail


def test_a_hang_is_a_failure(tmp_path):
    path = tmp_path / "compute-sanitizer"
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o755)
    result = gpu_check.sanitize("memcheck", str(path), tmp_path, 1)
    assert (result.status, result.detail.split(";")[0]) == ("failed", "stopped after 1 s")


def test_without_the_tool_every_check_says_not_run(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "find_sanitizer", lambda: None)
    monkeypatch.setattr(gpu_check, "gpu_tests", lambda *_: gpu_check.Result("tests", "ok", "", 0))
    results = gpu_check.check(tmp_path, 1, (*gpu_check.TESTS, *gpu_check.TOOLS))
    assert [result.status for result in results] == [*["ok"] * len(gpu_check.TESTS), *["not run"] * 4]


def test_a_run_of_some_checks_keeps_what_the_file_says_of_others(monkeypatch, tmp_path, capsys):
    out = tmp_path / "checks.json"
    old = [{"name": name, "status": "ok", "detail": "", "seconds": 1.0} for name in ("kernels", "memcheck")]
    out.write_text(json.dumps({"machine": {"device": "H", "commit": "0123abc"}, "results": old}))
    monkeypatch.setattr(gpu_check.device, "probe_gpu", lambda: (None, ""))
    monkeypatch.setattr(gpu_check.machine, "machine", lambda: {"device": "H", "commit": "9876fed"})
    monkeypatch.setattr(
        gpu_check, "check", lambda folder, limit, names: [gpu_check.Result(n, "ok", "", 2.0) for n in names]
    )
    told = ["gpu_check.py", "--out", str(out), "--only", "memcheck", "--only", "instructions"]
    monkeypatch.setattr(sys, "argv", told)
    assert gpu_check.main() == 0
    found = [(one["name"], one["commit"]) for one in json.loads(out.read_text())["results"]]
    assert found == [("instructions", "9876fed"), ("kernels", "0123abc"), ("memcheck", "9876fed")]
    assert gpu_check.kept(out, ["memcheck"], "another device") == []


def test_every_test_that_needs_a_gpu_is_in_one_of_the_groups():
    words = {word.removeprefix("--ignore=") for told in gpu_check.TESTS.values() for word in told}
    named = {word for word in words if word.startswith("tests")}
    assert named == {"tests", "tests/ptx", "tests/grading", "tests/test_notebooks.py"}
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check.device, "probe_gpu", lambda: (None, "there is no driver"))
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert gpu_check.main() == 2
    assert "NOT RUN: gpu-check needs a GPU, and there is no driver" in capsys.readouterr().out
