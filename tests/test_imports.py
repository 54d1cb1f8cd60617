"""Imports go one way, and importing the package costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "gemm_lessons"

# From the ground up: a module may import its own layer and those before it.
LAYERS = (
    ("problem", "device", "trace", "sim"),
    (
        "workloads",
        "reference",
        "compare",
        "quantize",
        "quantize_kernels",
        "small_floats",
        "schedule",
        "ptx",
        "launch",
        "compile_only",
        "cuda_tools",
        "tensor_map",
        "tile_queue",
    ),
    ("steps",),
    ("moe", "grouped_gemm", "interchange"),
    (
        "measure",
        "grading",
        "plots",
        "pictures",
        "memory_pictures",
        "balance_pictures",
        "scale_pictures",
        "fragment_pictures",
        "pipeline_pictures",
        "promotion_pictures",
        "decode_pictures",
        "layer_pictures",
        "training_pictures",
    ),
    ("authoring", "cli", "lesson", "cell_kernels", "__main__"),
)
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}
SIM_LEAVES = {"sim.registry", "sim.report"}  # what others may import of sim
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Modules of this package that a file imports, anywhere in it, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    inside = {module.removeprefix("gemm_lessons.") for module in found if module.startswith("gemm_lessons.")}
    return {module for module in inside if is_module(module)}


def is_module(module: str) -> bool:
    path = PACKAGE.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path):
    name = name_of(path)
    top = name.split(".")[0]
    assert top in LAYER, f"{name} has no place in LAYERS"
    for module in imports_of(path):
        assert LAYER[module.split(".")[0]] <= LAYER[top], f"{name} imports {module}, which stands on it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_simulator_stands_apart(path):
    name, imported = name_of(path), imports_of(path)
    if name.split(".")[0] == "sim":
        outside = {module for module in imported if module.split(".")[0] != "sim"}
        assert not outside, f"the simulator knows Numba only, but {name} imports {outside}"
    elif name != "device":  # device installs the simulator
        inside = {module for module in imported if module.startswith("sim.")} - SIM_LEAVES
        assert not inside, f"{name} imports {inside}: only sim.registry and sim.report are for others"


def test_the_rule_sees_a_wrong_arrow(tmp_path, monkeypatch):
    wrong = tmp_path / "problem.py"
    wrong.write_text("def f():\n    from gemm_lessons.measure import timing\n")
    assert imports_of(wrong) == {"measure", "measure.timing"}
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "measure").mkdir()
    with pytest.raises(AssertionError, match="problem imports measure"):
        test_imports_go_one_way(wrong)


HOST_ONLY = ("", ".device", ".problem", ".quantize", ".trace", ".workloads", ".cli", ".plots")


@pytest.mark.parametrize("module", HOST_ONLY)
def test_importing_chooses_no_device(module):
    code = f"import sys, gemm_lessons{module}; sys.exit(any(m.startswith('numba') for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "numba was imported"
