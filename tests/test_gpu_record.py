"""gpu-record keeps what was recorded, whatever becomes of the recorder after it."""

import importlib.util
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("gpu_record", ROOT / "tools" / "gpu_record.py")
gpu_record = importlib.util.module_from_spec(spec)
sys.modules["gpu_record"] = gpu_record  # dataclasses look their module up
spec.loader.exec_module(gpu_record)

SAY_GPU = "import os; print('on', os.environ['CUDA_VISIBLE_DEVICES'])"


def session(tmp_path, recorders, gpus=("0",), limit=60):
    commands = {name: ("-c", code) for name, code in recorders.items()}
    return gpu_record.Session(commands, gpus, limit, tmp_path / "logs", tmp_path / "kept" / "all.tgz")


def statuses(outcomes):
    return {one.name: one.status for one in outcomes}


def test_each_recorder_has_a_gpu_and_the_archive_has_all_logs(tmp_path):
    recorders = dict.fromkeys(("a", "b", "c"), SAY_GPU) | {"d": "raise SystemExit(3)"}
    found = statuses(session(tmp_path, recorders, gpus=("4", "7")).run())
    assert found == {"a": "ok", "b": "ok", "c": "ok", "d": "failed"}
    with tarfile.open(tmp_path / "kept" / "all.tgz") as archive:
        names = archive.getnames()
        said = {archive.extractfile(f"logs/{name}.log").read().decode().split()[1] for name in "abc"}
    assert said <= {"4", "7"}
    assert "logs/d.log" in names
    assert "gemm_lessons/measure/results/h200-float32.json" in names


def test_what_takes_too_long_is_interrupted_and_says_where_it_was(tmp_path):
    recorders = {"slow": "import time\nprint('begun', flush=True)\ntime.sleep(60)", "next": SAY_GPU}
    start = time.monotonic()
    found = statuses(session(tmp_path, recorders, limit=3).run())
    assert time.monotonic() - start < 30
    assert found == {"slow": "interrupted", "next": "not run"}
    log = (tmp_path / "logs" / "slow.log").read_text()
    assert "begun" in log
    assert "KeyboardInterrupt" in log


def test_every_recorder_is_a_module_that_exists():
    for command in gpu_record.RECORDERS.values():
        assert command[0] == "-m"
        assert importlib.util.find_spec(command[1]), command
