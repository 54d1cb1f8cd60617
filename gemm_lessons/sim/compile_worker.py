"""The process behind :mod:`lint`: runs a script with compilations in place of launches."""

from __future__ import annotations

import contextlib
import importlib
import json
import linecache
import re
import sys
import types
from types import SimpleNamespace
from typing import Any

import numpy as np

from gemm_lessons.sim.refusal import explain_refusal


class _Launch:
    """``kernel[grid, block]``, which compiles when it is called."""

    def __init__(self, worker: Worker, dispatcher: Any) -> None:
        self._worker = worker
        self._dispatcher = dispatcher

    def __call__(self, *args: Any) -> None:
        self._worker.compile_call(self._dispatcher, args)


class Worker:
    """Compiles kernels and collects rows for the report."""

    def __init__(self, path: str, capability: tuple[int, int]) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._capability = capability
        self._compiled: set[tuple[int, Any]] = set()
        self._names: set[str] = set()
        self._results: list[Any] = []
        self._dispatcher_class: Any = None

    # --- preparation -----------------------------------------------------------------------------

    def patch(self) -> None:
        """Make ``numba.cuda`` compile without a device, and remember each compiled function."""
        from numba import cuda

        dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")
        compiler: Any = importlib.import_module("numba.cuda.compiler")
        device = SimpleNamespace(compute_capability=self._capability, MULTIPROCESSOR_COUNT=8, WARP_SIZE=32)
        original = compiler.compile_cuda

        def compile_cuda(*args: Any, **options: Any) -> Any:
            result = original(*args, **options)
            self._results.append(result)
            return result

        compiler.compile_cuda = dispatcher.compile_cuda = compile_cuda
        dispatcher.get_current_device = lambda: device
        self._dispatcher_class = dispatcher.CUDADispatcher
        dispatcher.CUDADispatcher.__getitem__ = lambda kernel, _: _Launch(self, kernel)
        dispatcher.CUDADispatcher.forall = lambda kernel, *_, **__: _Launch(self, kernel)
        _fake_host(cuda, device)

    def run(self, args: list[str]) -> dict[str, Any]:
        """Run the script.

        Returns:
            Its global names.
        """
        sys.argv = [self.path, *args]
        module = types.ModuleType("__main__")
        module.__file__ = self.path
        sys.modules["__main__"] = module
        with open(self.path, encoding="utf-8") as source:
            text = source.read()
        try:
            exec(compile(text, self.path, "exec"), module.__dict__)
        except SystemExit:
            pass
        except Exception as error:
            # why: results are made up, so a script's own check of them fails; that says nothing.
            if not self._compiled:
                line = _line_in(self.path, error.__traceback__)
                self.add("script", f"{type(error).__name__}: {error}", "", self.path, line)
        return module.__dict__

    # --- compiling -------------------------------------------------------------------------------

    def compile_call(self, dispatcher: Any, args: tuple[Any, ...]) -> None:
        """Compile a kernel for the types of some arguments."""
        typeof = importlib.import_module("numba.cuda.typing").typeof
        self.compile(dispatcher, tuple(typeof.typeof(arg, typeof.Purpose.argument) for arg in args))

    def compile_signature(self, dispatcher: Any, signature: str) -> None:
        """Compile a kernel for a signature as text."""
        sigutils = importlib.import_module("numba.cuda.core.sigutils")
        args, _ = sigutils.normalize_signature(signature)
        self.compile(dispatcher, tuple(args))

    def compile(self, dispatcher: Any, args: tuple[Any, ...]) -> None:
        """Compile a kernel, once for each tuple of types."""
        kernel = dispatcher.py_func
        self._names.add(kernel.__name__)
        if (id(kernel), args) in self._compiled:
            return
        self._compiled.add((id(kernel), args))
        compiler = importlib.import_module("numba.cuda.compiler")
        void = importlib.import_module("numba.cuda.types").void
        self._results.clear()
        try:
            compiler.compile_cuda(kernel, void, args, cc=self._capability)
        except Exception as error:
            self._refused(kernel, error)
            return
        if not any(_has_float64(each) for each in args):
            for result in self._results:
                self._find_float64(result, kernel.__name__)

    def _refused(self, kernel: Any, error: Exception) -> None:
        reason, line = explain_refusal(error, self.path)
        line = line or kernel.__code__.co_firstlineno
        self.add("typing", f"Numba refuses this: {reason}", kernel.__name__, self.path, line)

    def _find_float64(self, result: Any, kernel: str) -> None:
        """Report each line that computes in float64 in a kernel without any float64 argument."""
        annotation = result.type_annotation
        typemap = annotation.typemap
        seen = set()
        for block in annotation.blocks.values():
            for statement in block.body:
                value = getattr(statement, "value", None)
                if getattr(value, "op", "") not in ("binop", "inplace_binop", "call", "unary"):
                    continue
                if str(typemap.get(statement.target.name)) != "float64":
                    continue
                place = statement.loc.filename, statement.loc.line
                if place not in seen:
                    seen.add(place)
                    self.add("float64", _float64_message(place), kernel, *place)

    # --- the report --------------------------------------------------------------------------------

    def not_compiled(self, namespace: dict[str, Any]) -> None:
        """Mention kernels that nothing has compiled."""
        for name, value in namespace.items():
            if not isinstance(value, self._dispatcher_class) or value.targetoptions.get("device"):
                continue
            if value.py_func.__name__ not in self._names:
                line = value.py_func.__code__.co_firstlineno
                message = "is never launched here: give a signature to have it compiled"
                self.add("not compiled", f"kernel '{name}' {message}.", name, self.path, line)

    def add(self, kind: str, message: str, kernel: str, file: str, line: int) -> None:
        """Append a row."""
        text = linecache.getline(file, line).strip()
        row = {"kind": kind, "kernel": kernel, "file": file, "line": line, "text": text}
        where = f", line {line}: '{text}'" if text else ""
        row["message"] = f"kernel '{kernel}'{where}. {message}" if kernel else f"{message}{where}"
        if row not in self.rows:
            self.rows.append(row)


def _float64_message(place: tuple[str, int]) -> str:
    literal = re.search(r"(?<![\w.])\d+\.\d*(?![\w.])", linecache.getline(*place))
    advice = f"write float32({literal.group()})" if literal else "convert with float32(...)"
    return (
        "This is computed in float64, though no argument is: a literal such as 0.5 is float64, and "
        f"so is float32 with an int64; {advice}."
    )


def _has_float64(numba_type: Any) -> bool:
    return "float64" in str(numba_type) or "complex128" in str(numba_type)


def _line_in(path: str, trace: Any) -> int:
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


class _HostArray(np.ndarray):
    """A host array in the place of a device array."""

    def copy_to_host(self, ary: Any = None, stream: Any = 0) -> np.ndarray:
        """The array itself."""
        return np.asarray(self) if ary is None else ary

    def copy_to_device(self, ary: Any, stream: Any = 0) -> None:
        """Nothing."""


def _host_array(array: Any, *_: Any, **__: Any) -> Any:
    return np.array(array).view(_HostArray)


def _host_empty(shape: Any, dtype: Any = np.float64, **_: Any) -> Any:
    return np.zeros(shape, dtype).view(_HostArray)


class _Anything:
    """A stream, an event: whatever is asked of it does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self

    def __enter__(self) -> _Anything:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __float__(self) -> float:
        return float("nan")


def _fake_host(cuda: Any, device: Any) -> None:
    cuda.to_device = cuda.as_cuda_array = _host_array
    cuda.device_array = cuda.pinned_array = cuda.mapped_array = cuda.managed_array = _host_empty
    cuda.device_array_like = cuda.pinned_array_like = lambda a, *_, **__: _host_array(a)
    cuda.get_current_device = lambda: device
    cuda.synchronize = lambda: None
    cuda.stream = cuda.default_stream = cuda.event = lambda *_, **__: _Anything()
    cuda.is_available = lambda: True


def main() -> None:
    """Read a request, write the rows."""
    request = json.load(sys.stdin)
    worker = Worker(request["path"], tuple(request["compute_capability"]))
    worker.patch()
    with contextlib.redirect_stdout(sys.stderr):
        namespace = worker.run(request["args"])
    for name, signatures in request["signatures"].items():
        for signature in signatures:
            worker.compile_signature(namespace[name], signature)
    worker.not_compiled(namespace)
    worker.rows.sort(key=lambda row: (row["file"] != worker.path, row["file"], row["line"]))
    sys.stdout.write("\n" + json.dumps(worker.rows) + "\n")


if __name__ == "__main__":
    main()
