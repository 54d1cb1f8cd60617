"""The same corpora on plain numba, which is all there is on macOS."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# why: with -S no .pth file is read, and so nothing redirects numba.cuda to numba-cuda.
RUNNER = """
import os, sys
sys.path[:0] = sys.argv[1:3]
os.environ.update(NUMBA_ENABLE_CUDASIM="1", GEMM_LESSONS_DEVICE="sim")
import pytest
code = pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not slow", *sys.argv[3:]])
import numba.cuda
print("file:", numba.cuda.__file__)
sys.exit(code)
"""


@pytest.mark.slow
def test_corpora_on_plain_numba():
    spec = find_spec("numba")
    site = Path(spec.origin).parents[1]
    if not (site / "numba" / "cuda" / "simulator").exists():
        pytest.skip("NOT RUN: this numba ships no simulator of its own")
    names = ("right_kernels", "wrong_kernels", "execution", "semantics", "instructions")
    files = [str(ROOT / "tests" / "sim" / f"test_{name}.py") for name in names]
    done = subprocess.run(
        [sys.executable, "-S", "-c", RUNNER, str(site), str(ROOT), *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert f"file: {site / 'numba' / 'cuda'}" in done.stdout
