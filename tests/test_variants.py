"""Variants are built without a GPU, and their kernels are found in the machine code by name."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "variants.py"
spec = importlib.util.spec_from_file_location("variants", TOOL)
variants = importlib.util.module_from_spec(spec)
spec.loader.exec_module(variants)


def test_every_variant_has_constants_that_its_step_knows():
    for path, options in variants.VARIANTS.values():
        module = importlib.import_module(path)
        module.Config(**options)
        assert module.SIGNATURE


def test_an_unknown_variant_is_one_sentence():
    command = [sys.executable, TOOL, "time", "--rounds", "3", "-w", "S", "hopper", "faster"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no variant is called 'faster': use one of hopper, " in done.stderr


@pytest.mark.slow
def test_a_variant_is_built_without_a_gpu():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, TOOL, "build", "tensor_core"], capture_output=True, text=True, env=environment
    )
    if "wheels are missing" in done.stderr:
        pytest.skip(f"NOT RUN: {done.stderr.strip()}")
    assert re.search(r"tensor_core +\d+ registers, 0 bytes spilled, no warning", done.stdout), done.stderr
    code = (variants.FOLDER / "tensor_core.cubin").read_bytes()
    assert "tensor_core_kernel" in variants.kernel_name(code)
