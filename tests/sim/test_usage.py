"""The simulator on its own: script, module, pytest, notebook, lint; and install() elsewhere."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gemm_lessons.sim.lint import LintError, lint_file
from gemm_lessons.sim.settings import from_environment

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
import numpy as np
from numba import cuda

@cuda.jit
def histogram(v, h):
    i = cuda.grid(1)
    if {guard}:
        cuda.atomic.add(h, v[i], 1)

if __name__ == "__main__":
    v = cuda.to_device(np.arange(50) % 5)
    h = cuda.to_device(np.zeros(5, np.int32))
    histogram[2, 32](v, h)
    print(h.copy_to_host().tolist(), sys.argv[1:])
"""


def python(*args, cwd=None, **environment):
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("GEMM", "NUMBA"))}
    return subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**variables, "PYTHONPATH": str(ROOT), **environment},
        timeout=120,
        check=False,
    )


@pytest.fixture
def script(tmp_path):
    def write(guard="i < v.size"):
        file = tmp_path / "histogram.py"
        file.write_text(SCRIPT.format(guard=guard))
        return file

    return write


def test_right_script(script):
    done = python("-m", "gemm_lessons.sim", str(script()), "a", "b")
    assert (done.returncode, done.stdout) == (0, "[10, 10, 10, 10, 10] ['a', 'b']\n")


def test_wrong_script_ends_with_the_finding_and_no_traceback(script):
    done = python("-m", "gemm_lessons.sim", str(script("True")))
    assert done.returncode == 1
    assert "histogram.py: OutOfBoundsError: kernel 'histogram': index 50 is outside axis 0" in done.stderr
    assert "'v[i]', line 10" in done.stderr
    assert "Traceback" not in done.stderr


def test_module(script):
    done = python("-m", "gemm_lessons.sim", "-m", "histogram", "x", cwd=script().parent)
    assert (done.returncode, done.stdout) == (0, "[10, 10, 10, 10, 10] ['x']\n")


@pytest.mark.parametrize("args", [[], ["-m"], ["nowhere.py"]])
def test_wrong_command_line(args):
    done = python("-m", "gemm_lessons.sim", *args)
    assert done.returncode == 2
    assert done.stderr


def test_settings_come_from_the_environment(script):
    done = python("-m", "gemm_lessons.sim", str(script("True")), GEMM_LESSONS_SIM_SEED="4")
    assert "GEMM_LESSONS_SIM_SEED=4 replays this" in done.stderr


def test_stock_mode_leaves_numba_alone(script):
    done = python("-m", "gemm_lessons.sim", str(script("True")), GEMM_LESSONS_SIM="stock")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_install_does_nothing_with_a_gpu():
    code = "from gemm_lessons import sim; from numba import cuda; print(sim.install(), cuda.jit)"
    done = python("-c", code, NUMBA_ENABLE_CUDASIM="0")
    assert done.stdout.startswith("False <function jit"), done.stderr
    assert "gemm_lessons" not in done.stdout


def test_importing_the_package_imports_no_numba():
    code = (
        "import sys, gemm_lessons.sim, gemm_lessons.sim.registry, gemm_lessons.sim.report;"
        "print([m for m in sys.modules if m.split('.')[0] in ('numba', 'greenlet')])"
    )
    assert python("-c", code).stdout == "[]\n"


def test_fixture_in_pytest(tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["gemm_lessons.sim.pytest_plugin"]\n')
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from numba import cuda

            @cuda.jit
            def kernel(x):
                x[0] = cuda.grid(1)

            @cuda.jit
            def copy(x, y):
                y[cuda.grid(1)] = x[cuda.grid(1)]

            def test_right(cuda_sim):
                copy[1, 32](np.zeros(32, np.float32), np.zeros(32, np.float32))
                assert cuda_sim.report.line("x[cuda.grid(1)]").sectors_per_request == 4

            def test_findings(cuda_sim):
                found = cuda_sim.findings(lambda: kernel[2, 1](np.zeros(1)))
                assert [f.kind for f in found] == ["race"]

            def test_wrong(cuda_sim):
                kernel[2, 1](np.zeros(1))
            """
        )
    )
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path), cwd=tmp_path)
    assert "1 failed, 2 passed" in done.stdout
    assert "RaceError: data race on global array 'x'" in done.stdout


def test_cells_of_a_notebook_have_their_source():
    cell = "\\n".join(
        [
            "import numpy as np",
            "from numba import cuda",
            "@cuda.jit",
            "def kernel(x):",
            "    x[cuda.grid(1) - 1] = 0",
            "kernel[1, 4](np.zeros(4))",
        ]
    )
    code = (
        "from gemm_lessons import sim; sim.install();"
        "import linecache;"
        f"source = '{cell}';"
        "name = '<ipython-input-1-abc>';"
        "linecache.cache[name] = (len(source), None, source.splitlines(True), name);"
        "exec(compile(source, name, 'exec'), {'__name__': '__main__'})"
    )
    done = python("-c", code, NUMBA_ENABLE_CUDASIM="1")
    assert "index -1 is outside axis 0 (size 4)" in done.stderr
    assert "'x[cuda.grid(1) - 1]', line 5" in done.stderr


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("GEMM_LESSONS_SIM", "fast", "checked, plain or stock"),
        ("GEMM_LESSONS_SIM_SEED", "x", "GEMM_LESSONS_SIM_SEED='x' is not like 0"),
        ("GEMM_LESSONS_SIM_CC", "9", "is not like"),
        ("GEMM_LESSONS_SIM_SMS", "0", "sms must be at least 1"),
    ],
)
def test_settings_that_cannot_be(variable, text, message):
    with pytest.raises(ValueError, match=message):
        from_environment({variable: text})


# --- would it compile? -----------------------------------------------------------------------------

KERNELS = """
import numpy as np
from numba import cuda, float32

@cuda.jit(device=True)
def half(v):
    return v * 0.5

@cuda.jit
def doubles(x, y):
    i = cuda.grid(1)
    acc = 0.0
    acc += x[i]
    y[i] = half(x[i]) + acc

@cuda.jit
def run_time_shape(x, n):
    s = cuda.shared.array(n, float32)
    s[0] = x[0]

@cuda.jit
def unknown_name(x):
    x[0] = nowhere

@cuda.jit
def right(x):
    x[0] = x[1] * float32(2) + half_single(x[0])

@cuda.jit(device=True)
def half_single(v):
    return v * float32(0.5)

@cuda.jit
def not_launched(x):
    x[0] = x[1] * 2.5

x = cuda.to_device(np.zeros(4, np.float32))
for kernel, args in ((doubles, (x, x)), (run_time_shape, (x, 4)), (unknown_name, (x,)), (right, (x,))):
    kernel[1, 4](*args)
assert x.copy_to_host()[0] == 7, "results are made up here, and must not matter"
"""


@pytest.fixture(scope="module")
def linted(tmp_path_factory):
    file = tmp_path_factory.mktemp("lint") / "kernels.py"
    file.write_text(KERNELS)
    signatures = {"not_launched": ["void(float32[:])"]}
    return lint_file(file), lint_file(file, signatures)


def test_lint_names_the_line_that_numba_refuses(linted):
    refused = {f.kernel: f for f in linted[0] if f.kind == "typing"}
    assert set(refused) == {"run_time_shape", "unknown_name"}
    assert refused["run_time_shape"].place.text == "s = cuda.shared.array(n, float32)"
    assert "known when the kernel is compiled" in refused["run_time_shape"].message
    assert refused["unknown_name"].place.text == "x[0] = nowhere"


def test_lint_finds_accidental_float64_in_kernels_and_device_functions(linted):
    lines = [f.place.text for f in linted[0] if f.kind == "float64"]
    assert lines == ["return v * 0.5", "acc += x[i]", "y[i] = half(x[i]) + acc"]


def test_lint_compiles_what_has_a_signature(linted):
    assert [f.kernel for f in linted[0] if f.kind == "not compiled"] == ["not_launched"]
    assert not [f for f in linted[1] if f.kind == "not compiled"]
    assert "x[0] = x[1] * 2.5" in [f.place.text for f in linted[1] if f.kind == "float64"]


def test_lint_of_a_file_that_fails_by_itself(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("import numpy\nnumpy.nothing()\n")
    (finding,) = lint_file(file)
    assert finding.kind == "script"
    assert finding.place.line == 2


def test_lint_that_does_not_finish(tmp_path):
    file = tmp_path / "slow.py"
    file.write_text("while True: pass\n")
    with pytest.raises(LintError, match="took longer than 3 s"):
        lint_file(file, seconds=3)


def test_findings_are_data():
    from gemm_lessons.sim.report import Finding, error_from

    error = error_from([Finding("bounds", "a"), Finding("race", "b", seed=3)])
    assert isinstance(error, IndexError)
    assert json.dumps([f.kind for f in error.findings]) == '["bounds", "race"]'
