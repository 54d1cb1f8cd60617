"""What a submission may contain, read from its source before any of it runs.

The rules keep honest students on the path (no NumPy in place of a kernel, no import of the lesson) and take
away the handles by which Python code reaches into its own process.  They are an allow-list for modules
and a deny-list for names; `confine` stands behind them.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

MODULES = {"math", "numpy", "numba", "functools", "itertools", "collections", "typing", "dataclasses"}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SCALARS = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64"
NUMPY_FOR_KERNELS = _names(f"{_SCALARS} bool_ intp pi inf ndarray")
NUMPY_FORBIDDEN = _names(
    "load save savez savez_compressed loadtxt savetxt genfromtxt fromfile fromregex memmap ctypeslib"
    " f2py testing core lib random show_config frompyfunc vectorize info source lookfor DataSource"
)
NUMBA = _names(f"cuda {_SCALARS} boolean void types")
CUDA = _names(
    "jit grid gridsize threadIdx blockIdx blockDim gridDim laneid warpsize syncthreads"
    " syncthreads_and syncthreads_or syncthreads_count syncwarp shared local const atomic threadfence"
    " threadfence_block fma min max selp popc brev clz ffs shfl_sync shfl_up_sync shfl_down_sync"
    " shfl_xor_sync all_sync any_sync ballot_sync activemask lanemask_lt declare_device"
)
# From here an exercise may take the instructions that it names.
INSTRUCTIONS = frozenset(
    f"gemm_lessons.ptx.{name}" for name in ("matrix", "bits", "mbarrier", "tma", "shared", "global_memory")
)
FORBIDDEN_NAMES = _names(
    "eval exec compile open input breakpoint globals locals vars dir getattr setattr delattr"
    " memoryview exit quit object super type help copyright credits license classmethod staticmethod"
    " property"
)
FORBIDDEN_ATTRIBUTES = _names(
    "gi_frame gi_code cr_frame ag_frame f_back f_globals f_locals f_builtins tb_frame tb_next ctypes"
    " tofile dump dumps base setfield copy_to_host copy_to_device py_func overloads inspect_asm"
    " inspect_llvm simulator mro format_map meaning"
)


@dataclass(frozen=True)
class Breach:
    """One place where a submission breaks a rule."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}"


def breaches(source: str, *, numpy_allowed: bool, instructions: Collection[str] = ()) -> list[Breach]:
    """Every place where a source breaks a rule, in order.

    Args:
        source: the submission.
        numpy_allowed: NumPy may compute; else only its dtypes may be named.
        instructions: names that may be imported from modules of instructions, and nothing else of them.

    Raises:
        SyntaxError: the source is no Python.
    """
    visitor = _Visitor(numpy_allowed, frozenset(instructions))
    visitor.visit(ast.parse(source))
    return sorted(visitor.found, key=lambda breach: breach.line)


class _Visitor(ast.NodeVisitor):
    def __init__(self, numpy_allowed: bool, instructions: frozenset[str]) -> None:
        self.numpy_allowed = numpy_allowed
        self.instructions = instructions
        self.found: list[Breach] = []
        self.modules: dict[str, str] = {}  # local name -> module

    def _breach(self, node: ast.AST, text: str) -> None:
        self.found.append(Breach(getattr(node, "lineno", 0), text))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name not in MODULES and alias.name != "numba.cuda":
                self._breach(node, _not_needed(alias.name))
            elif alias.name == "numba.cuda" and alias.asname:
                self.modules[alias.asname] = "numba.cuda"
            else:
                self.modules[alias.asname or alias.name.split(".")[0]] = alias.name.split(".")[0]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if module == "__future__":
            return
        if module in INSTRUCTIONS and self.instructions and not node.level:
            for alias in node.names:
                if alias.name not in self.instructions:
                    known = ", ".join(sorted(self.instructions))
                    self._breach(node, f"imports {alias.name} from {module}: only {known} are needed")
            return
        if node.level or (module not in MODULES and module not in ("numba.cuda", "numba.types")):
            self._breach(node, _not_needed("." * node.level + module))
            return
        for alias in node.names:
            self._use(node, module, alias.name)
            if (module, alias.name) == ("numba", "cuda"):
                self.modules[alias.asname or "cuda"] = "numba.cuda"

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in FORBIDDEN_NAMES:
            self._breach(node, f"{node.id!r} is not needed here and not allowed")
        elif node.id.startswith("__") and node.id != "__name__":
            self._breach(node, f"names that begin with two underscores, such as {node.id!r}, are not allowed")
        elif node.id in self.modules:
            self._breach(node, f"use the module {node.id!r} as {node.id}.name, not as a value")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr.startswith("_"):
            self._breach(
                node, f"attributes that begin with an underscore, such as {node.attr!r}, are private"
            )
        elif node.attr in FORBIDDEN_ATTRIBUTES:
            self._breach(node, f"the attribute {node.attr!r} is not needed here and not allowed")
        if isinstance(node.value, ast.Name) and node.value.id in self.modules:
            if not isinstance(node.ctx, ast.Load):
                self._breach(node, f"{node.value.id}.{node.attr} cannot be replaced")
            self._use(node, self.modules[node.value.id], node.attr)
        elif isinstance(node.value, ast.Attribute) and self._is_cuda(node.value):
            self._use(node, "numba.cuda", node.attr)
        else:
            if not isinstance(node.ctx, ast.Load) and isinstance(node.value, ast.Attribute):
                self._breach(node, "attributes of a module's parts cannot be replaced")
            self.visit(node.value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name.startswith("__") and node.name not in ("__init__", "__post_init__"):
            self._breach(node, f"special methods, such as {node.name!r}, are not allowed")
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            if not (isinstance(base, ast.Name) and base.id == "NamedTuple"):
                self._breach(base, "classes with a base class are not needed here and not allowed")
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        names = {getattr(name, "id", "") for name in ast.walk(node.type)} if node.type else set()
        if node.type is None or "BaseException" in names:
            self._breach(
                node, "name the exception that you expect: this also swallows the grader's time limit"
            )
        self.generic_visit(node)

    def _is_cuda(self, node: ast.Attribute) -> bool:
        return (
            isinstance(node.value, ast.Name)
            and self.modules.get(node.value.id) == "numba"
            and node.attr == "cuda"
        )

    def _use(self, node: ast.AST, module: str, name: str) -> None:
        if module == "numpy":
            if not self.numpy_allowed and name not in NUMPY_FOR_KERNELS:
                self._breach(node, f"numpy.{name} computes on the host: this exercise is about kernels")
            elif name in NUMPY_FORBIDDEN or isinstance(getattr(np, name, None), type(np)):
                self._breach(node, f"numpy.{name} is not needed here and not allowed")
        elif module == "numba" and name not in NUMBA:
            self._breach(node, f"numba.{name} is not needed here and not allowed")
        elif module == "numba.cuda" and name not in CUDA:
            self._breach(
                node, f"cuda.{name} is not needed here: inputs and outputs are on the device already"
            )


def _not_needed(module: str) -> str:
    if module.startswith(("gemm_lessons", "solutions", "exercises", ".")):
        return f"imports {module}: the exercise is to write this yourself"
    return f"imports {module}: the exercises need {', '.join(sorted(MODULES))} at most"
