"""Every notebook runs top to bottom without a GPU, and keeps to the form that the lessons promise."""

import ast
import json
import os
import re
import sys
from pathlib import Path

import pytest

from gemm_lessons.authoring import cells

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = cells.notebooks(ROOT)
MOST_LINES = 25  # of code, in a cell that is no kernel from the package
SECTIONS = (
    "What you will learn",
    "The picture",
    "The kernel",
    "It is right",
    "How fast, next to padded",
    "Break it",
    "Questions",
    "What it costs: the roofline",
    "Exercise",
    "What is next",
    "Further reading",
)
LONG = ("06", "09", "12", "15")  # half a minute and more in the simulator: `make test-all` runs them
BEFORE_THE_LADDER = "00"  # nothing to time yet, and no exercise

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path, cell_type):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == cell_type]


def text_of(path, cell_type):
    return "\n\n".join("".join(cell["source"]) for cell in cells_of(path, cell_type))


def test_the_core_notebooks_are_here():
    assert {"00", "01", "02", "03", "05"} <= {path.name[:2] for path in NOTEBOOKS}


def execute(notebook, where, folder, timeout=200):
    """Run all cells in a kernel of its own, and return everything that they show."""
    nbclient = pytest.importorskip("nbclient", reason="NOT RUN: needs nbclient (extra: dev)")
    search = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "GEMM_LESSONS_DEVICE": where, "PYTHONPATH": search}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)  # this process has set it for itself
    client = nbclient.NotebookClient(notebook, timeout=timeout, kernel_name="python3", allow_errors=False)
    client.execute(cwd=str(folder), env=environment)
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def read(path):
    """A notebook with the kernels of the package, also where a student has edited them."""
    nbformat = pytest.importorskip("nbformat", reason="NOT RUN: needs nbformat (extra: dev)")
    return nbformat.reads(cells.canonical(path.read_text(encoding="utf-8"), ROOT), as_version=4)


def is_constant(shape):
    """Whether Numba can tell an array's extents: it works no expression with names in it out."""
    if isinstance(shape, ast.Tuple):
        return all(map(is_constant, shape.elts))
    names = [node for node in ast.walk(shape) if isinstance(node, ast.Name | ast.Attribute)]
    return isinstance(shape, ast.Name | ast.Attribute) or not names


@each_notebook
def test_arrays_of_kernels_have_extents_that_numba_can_tell(path):
    for node in ast.walk(ast.parse(text_of(path, "code"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("cuda.shared.array", "cuda.local.array"):
            assert is_constant(node.args[0]), f"{ast.unparse(node)} does not compile: name the extent"


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if path.name[:2] in LONG else ()) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_runs_without_a_gpu(path, tmp_path):
    shown = execute(read(path), "sim", tmp_path)
    errors = [output.text for output in shown if output.get("name") == "stderr"]
    assert not errors, f"{path.name} writes to stderr: {errors[0]}"
    for output in shown:
        text = output.get("text", "") or "".join(output.get("data", {}).get("text/plain", ""))
        assert len(text.splitlines()) <= 40, f"{path.name} shows {len(text.splitlines())} lines at once"


@pytest.mark.gpu
@pytest.mark.timeout(1200)
@each_notebook
def test_runs_on_a_gpu(path, tmp_path):
    execute(read(path), "gpu", tmp_path, timeout=600)


def test_a_wrong_kernel_is_a_sentence_and_no_traceback(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="NOT RUN: needs nbformat (extra: dev)")
    source = """from gemm_lessons import lesson
from gemm_lessons.steps import naive
def make_kernel(config):
    return cuda.jit(lambda x, w, y: None)
from numba import cuda
lesson.check(naive, make_kernel)"""
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["raises-exception"]})
    shown = execute(nbformat.v4.new_notebook(cells=[cell]), "sim", tmp_path)
    (error,) = [output for output in shown if output["output_type"] == "error"]
    assert len(error["traceback"]) == 1
    assert "every output is unwritten" in error["traceback"][0]


SETUP = (ROOT / "notebooks" / "_setup.py").read_text(encoding="utf-8")


@pytest.fixture
def not_installed(monkeypatch, tmp_path):
    """A place where the workbook is not installed, and the commands that set-up runs there."""
    commands = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(list(map(str, command))))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return commands


def test_setup_says_what_to_do_where_nothing_is_installed(not_installed):
    with pytest.raises(SystemExit, match="use `make lab`"):
        exec(SETUP, {})
    assert not_installed == []


def test_setup_finds_the_checkout_that_the_notebook_lies_in(not_installed, monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")
    exec(SETUP, {})
    assert sys.path[0] == str(ROOT)
    assert not_installed == []


def test_setup_downloads_on_colab_alone(not_installed, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    exec(SETUP.replace('REPOSITORY = ""', 'REPOSITORY = "https://example.org/workbook"'), {})
    clone, install = not_installed
    assert clone[:2] == ["git", "clone"]
    assert clone[-2:] == ["https://example.org/workbook", str(tmp_path / "workbook")]
    assert install[-1] == f"{tmp_path / 'workbook'}[lab,cu12]"


@each_notebook
def test_cells_are_short(path):
    for cell in cells_of(path, "code"):
        lines = [line for line in "".join(cell["source"]).splitlines() if line.strip()]
        if not cells.is_generated(cell):
            assert len(lines) <= MOST_LINES, f"{len(lines)} lines of code: {lines[0]}"


@each_notebook
def test_has_the_form_of_a_lesson(path):
    prose = text_of(path, "markdown")
    headings = re.findall(r"^## (.+)$", prose, re.MULTILINE)
    if not path.name.startswith(BEFORE_THE_LADDER):
        assert [heading for heading in headings if heading in SECTIONS] == list(SECTIONS)
    assert prose.count("<details>") >= 5
    assert prose.count("<details>") == prose.count("</details>")
    assert "Misconception" in prose


@each_notebook
def test_whatever_is_launched_is_checked(path):
    """A cell that launches a kernel, or runs a step, also asserts something about the result."""
    for cell in cells_of(path, "code"):
        tree = ast.parse("".join(cell["source"]))
        launches = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)
        ]
        asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        checked = asserts or calls & {"np.testing.assert_allclose", "np.testing.assert_array_equal"}
        assert checked or not launches, f"launched and not checked: {ast.unparse(launches[0])}"


@each_notebook
def test_names_only_files_that_are_here(path):
    code = re.findall(r"`((?:gemm_lessons|notebooks|tests)/[\w/.]+)`", text_of(path, "markdown"))
    missing = [name for name in code if not (ROOT / name).exists()]
    assert not missing


def test_an_edited_kernel_cell_is_noticed(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "module.py").write_text(
        "import os\n\n\n@print\ndef f():\n    return 1\n\n\ndef g():\n    pass\n"
    )
    cell = {"cell_type": "code", "source": "# as in module.py: f\nedited", "outputs": ["something"]}
    path = tmp_path / "notebooks" / "01_x.ipynb"
    path.write_text(json.dumps({"cells": [cell]}))
    assert cells.stale(tmp_path) == ["notebooks/01_x.ipynb"]
    cells.renew(tmp_path, cells.stale(tmp_path))
    assert cells.stale(tmp_path) == []
    (written,) = json.loads(path.read_text())["cells"]
    assert "".join(written["source"]) == "# as in module.py: f\n@print\ndef f():\n    return 1"
    assert written["outputs"] == []


def test_a_cell_with_an_unknown_source_is_refused(tmp_path):
    (tmp_path / "module.py").write_text("def f():\n    pass\n")
    with pytest.raises(cells.CellError, match=r"names g of module.py, which defines f"):
        cells.source_text(tmp_path, "module.py: g")
    with pytest.raises(cells.CellError, match=r"nothing.py, and there is no such file"):
        cells.source_text(tmp_path, "nothing.py")


@pytest.mark.parametrize("without", ["", "ipywidgets"])
def test_a_picture_with_controls_needs_no_controls(without, monkeypatch, capsys):
    from matplotlib.figure import Figure

    from gemm_lessons import lesson

    if without:
        monkeypatch.setitem(sys.modules, without, None)
    else:
        pytest.importorskip("ipywidgets")
    drawn = []

    def draw(**values):
        drawn.append(values)
        return Figure(figsize=(1, 1))

    lesson.explore(draw, "a picture", counts="1, 2", blocks=(8, 1, 32), schedule=["a", "b"])
    assert drawn == [{"counts": "1, 2", "blocks": 8, "schedule": "a"}]
    assert "[picture: a picture]" in capsys.readouterr().out
