"""What the submission's process does with one job: load the source, call what is asked, collect evidence.

A job is a dict; its arguments may be

    {"host": value}                       passed as it is
    {"device": array}                     copied to the device
    {"output": array, "guard": rows}      copied to the device; the submission sees it without its guard rows

and its kind one of

    call      a host function                       -> its value
    launcher  a host function that gets `launch`    -> outputs
    kernel    a kernel, and a function that gives its launch shape, or a fixed one -> outputs; with "times",
              launched again with the same arguments and a poisoned output
    probe     a device function, called for each of `num_threads` indices -> outputs
    places    a device function of a lane and a word, called for all 32 lanes and `num_words` words, that
              gives a row and a column -> outputs, a line for each word of each lane
    walk      a device function of two numbers that gives the next two, called `num_steps` times from (0, 0)
              on -> outputs, a line for each call

Evidence is everything the grader learns beside values: launches, findings of the checked simulator and
its traffic counts, errors, prints.  Nothing here knows what the right answer is.
"""

from __future__ import annotations

import builtins
import linecache
import re
import sys
import time
import types
from collections.abc import Callable
from typing import Any

from gemm_lessons import sim
from gemm_lessons.grading.confine import Refused

MOST_PRINTED = 2000
_THREAD = re.compile(r"^(?:Tid|tid)=\[[^]]*\] ctaid=\[[^]]*\]: ")  # Numba's simulator puts it in front
MODULE = "submission"


class OutOfTime(BaseException):
    """Raised by the alarm inside the submission's code."""


class MisuseError(Exception):
    """The submission uses what the grader hands it wrongly; the message is for the student."""


class DeviceArray:
    """What a launcher gets in place of a device array: it can be sliced and passed on, not read."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = tuple(int(extent) for extent in array.shape)
        self.ndim = len(self.shape)
        self.dtype = array.dtype

    def __getitem__(self, index: Any) -> DeviceArray:
        parts = index if type(index) is tuple else (index,)
        for part in parts:
            if not isinstance(part, slice) and not hasattr(part, "__index__"):
                raise MisuseError(f"a device array was indexed with {part!r}: use integers and slices")
        if len(parts) >= self.ndim and not any(isinstance(part, slice) for part in parts):
            raise MisuseError(
                "a device array was read outside of launch(): only kernels can read one, and only those that"
                " are started with launch(kernel, grid, block, *arguments)"
            )
        for axis, part in enumerate(parts):
            size = self.shape[axis] if axis < self.ndim else 0
            if not isinstance(part, slice) and not 0 <= part < size:
                raise MisuseError(f"index {part} is outside axis {axis}, which has {size} entries")
        return DeviceArray(self._array[index])

    def __len__(self) -> int:
        return self.shape[0]


class Evidence:
    """What was seen while a job ran."""

    def __init__(self) -> None:
        self.launches: list[dict[str, Any]] = []
        self.findings: list[dict[str, Any]] = []
        self.traffic: list[dict[str, Any]] = []
        self.refusals: list[str] = []
        self.printed = ""

    def print(self, *values: Any, sep: str = " ", end: str = "\n", **_: Any) -> None:
        """Keep the first lines that the submission prints."""
        if len(self.printed) < MOST_PRINTED:
            self.printed = (self.printed + sep.join(map(str, values)) + end)[:MOST_PRINTED]

    def finding(self, finding: Any) -> None:
        """Keep one of the simulator's findings."""
        if len(self.findings) < 10:
            place = finding.place
            self.findings.append(
                {
                    "kind": finding.kind,
                    "message": finding.message,
                    "kernel": finding.kernel,
                    "file": place.file,
                    "line": int(place.line),
                    "text": place.text,
                }
            )

    def add_traffic(self, report: Any) -> None:
        """Add up the accesses to each array and the warps' instructions, over all launches."""
        for count in report.lines:
            self._add((count.space, count.array, count.kind), int(count.accesses))
        for name, executed in report.instructions.items():
            self._add(("instruction", name, "warp"), executed)

    def _add(self, key: tuple[str, str, str], number: int) -> None:
        known = next((t for t in self.traffic if t["key"] == key), None)
        if known is None:
            known = {"key": key, "accesses": 0}
            self.traffic.append(known)
        known["accesses"] += number

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready to be sent."""
        return dict(vars(self))


class Launcher:
    """Starts kernels for a submission, counts them, and keeps what the simulator found."""

    def __init__(self, evidence: Evidence, simulated: bool) -> None:
        self.evidence = evidence
        self.simulated = simulated

    def __call__(self, kernel: Any, grid: Any, block: Any, *arguments: Any) -> None:
        """Start one kernel: launch(kernel, grid, block, *arguments)."""
        name = getattr(getattr(kernel, "py_func", None), "__name__", None)
        if name is None:
            raise MisuseError(
                f"launch() got {type(kernel).__name__!r} as its kernel: pass what @cuda.jit made"
            )
        sizes = [_sizes("grid", grid), _sizes("block", block)]
        self.evidence.launches.append({"kernel": name, "grid": sizes[0], "block": sizes[1]})
        if min(sizes[0]) < 1:
            message = (
                f"{name} was launched with a grid of {tuple(sizes[0])}: a grid of no blocks is an error on a"
                " GPU. Launch nothing where there is nothing to do (an expert without tokens)."
            )
            self.evidence.findings.append(
                {"kind": "launch", "message": message, "kernel": name, "file": "", "line": 0, "text": ""}
            )
            raise MisuseError(message)
        real = [_real(argument) for argument in arguments]
        try:
            kernel[tuple(sizes[0]), tuple(sizes[1])](*real)
        except sim.SimulatorError as error:
            for finding in error.findings:
                self.evidence.finding(finding)
            raise
        if self.simulated:
            self.evidence.add_traffic(sim.last_report())


def _sizes(what: str, value: Any) -> list[int]:
    parts = value if isinstance(value, tuple | list) else (value,)
    if not 1 <= len(parts) <= 3 or not all(hasattr(part, "__index__") for part in parts):
        raise MisuseError(
            f"the {what} is {value!r}: use one to three integers (// keeps integers, / does not)"
        )
    return [int(part) for part in parts]


def _real(argument: Any) -> Any:
    if isinstance(argument, DeviceArray):
        return argument._array
    if type(argument) in (int, float, bool) or hasattr(argument, "__index__"):
        return argument
    raise MisuseError(
        f"a kernel got {type(argument).__name__!r}: pass the device arrays you were given, and numbers"
    )


def load(source: str, path: str, evidence: Evidence) -> types.ModuleType:
    """Run the submission's source as a module.

    Names of files are kept, so that messages point into the student's own file.
    """
    linecache.cache[path] = (len(source), None, source.splitlines(True), path)
    module = types.ModuleType(MODULE)
    module.__file__ = path
    sys.modules[MODULE] = module  # why: dataclasses look their module up
    vars(module)["__builtins__"] = {**vars(builtins), "print": evidence.print}
    exec(compile(source, path, "exec"), vars(module))
    return module


def find(module: types.ModuleType, name: str) -> Any:
    """A name that the submission must define.

    Raises:
        MisuseError: it does not.
    """
    if name not in vars(module):
        raise MisuseError(f"{name} is missing: keep the names that the exercise gives")
    return vars(module)[name]


def run(job: dict[str, Any], modules: dict[str, types.ModuleType], *, simulated: bool) -> dict[str, Any]:
    """Do one job.

    Args:
        job: as described above, with "source" and "path".
        modules: submissions loaded so far, by source: kernels are compiled once on a GPU.
        simulated: kernels run in the simulator.

    Returns:
        status, value or outputs, error, and the evidence, as plain data.
    """
    evidence = Evidence()
    launch = Launcher(evidence, simulated)
    outputs: list[Any] = []
    answer: dict[str, Any] = {"status": "ok", "value": None}
    began = time.monotonic()
    try:
        key = job["source"]
        if key not in modules:
            modules[key] = load(key, job["path"], evidence)
        if simulated:
            limits = {"slice_seconds": job["seconds"] / 3, "seconds": job["seconds"] * 0.8}
            with sim.configured(seed=job.get("seed", 0), mode="checked", **limits):
                answer["value"] = _KINDS[job["kind"]](job, modules[key], launch, outputs)
        else:
            answer["value"] = _KINDS[job["kind"]](job, modules[key], launch, outputs)
            if outputs:
                from numba import cuda

                cuda.synchronize()
    except BaseException as error:  # whatever a submission raises is an answer, SystemExit too
        answer |= _explain(error, job["path"])
    try:
        answer["outputs"] = [] if answer["status"] == "crashed" else [each.copy_to_host() for each in outputs]
    except Exception as error:  # a kernel that failed after its launch shows here
        answer |= _explain(error, job["path"]) | {"outputs": []}
    return answer | {"seconds": time.monotonic() - began} | evidence.as_dict()


def _arguments(job: dict[str, Any], outputs: list[Any]) -> list[Any]:
    from numba import cuda

    made = []
    for argument in job["arguments"]:
        if "host" in argument:
            made.append(argument["host"])
        elif "device" in argument:
            made.append(cuda.to_device(argument["device"]))
        else:
            whole = cuda.to_device(argument["output"])
            outputs.append(whole)
            guard = argument["guard"]
            made.append(whole[guard : whole.shape[0] - guard])
    return made


def _call(job: dict[str, Any], module: types.ModuleType, launch: Launcher, outputs: list[Any]) -> Any:
    return find(module, job["function"])(*_arguments(job, outputs))


def _launcher(job: dict[str, Any], module: types.ModuleType, launch: Launcher, outputs: list[Any]) -> None:
    arguments = [
        DeviceArray(argument) if hasattr(argument, "copy_to_host") else argument
        for argument in _arguments(job, outputs)
    ]
    find(module, job["function"])(lambda *given: launch(*given), *arguments)


def _kernel(job: dict[str, Any], module: types.ModuleType, launch: Launcher, outputs: list[Any]) -> None:
    arguments = _arguments(job, outputs)
    kernel = find(module, job["function"])
    if "shape_function" in job:
        name = job["shape_function"]
        shape = find(module, name)(*job["shape_arguments"])
        if not isinstance(shape, tuple | list) or len(shape) != 2:
            raise MisuseError(f"{name} must return (grid, block), but it returned {shape!r}")
        grid, block = shape
    else:
        grid, block = job["shape"]
    given = [DeviceArray(a) if hasattr(a, "copy_to_host") else a for a in arguments]
    launch(kernel, grid, block, *given)
    for _ in range(1, job.get("times", 1)):
        poison = [argument["output"] for argument in job["arguments"] if "output" in argument]
        for whole, fresh in zip(outputs, poison, strict=True):
            whole.copy_to_device(fresh)
        launch(kernel, grid, block, *given)


def _probe(job: dict[str, Any], module: types.ModuleType, launch: Launcher, outputs: list[Any]) -> None:
    from numba import cuda

    function = find(module, job["function"])
    num_threads = job["num_threads"]

    @cuda.jit
    def probe(ends, found):
        index = cuda.grid(1)
        if index < num_threads:
            found[index, 0] = function(ends, index)

    arguments = [DeviceArray(argument) for argument in _arguments(job, outputs)]
    launch(probe, -(-num_threads // 32), 32, *arguments)


def _places(job: dict[str, Any], module: types.ModuleType, launch: Launcher, outputs: list[Any]) -> None:
    from numba import cuda

    function = find(module, job["function"])
    num_words = job["num_words"]

    @cuda.jit
    def places(found):
        lane = cuda.threadIdx.x
        for word in range(num_words):
            row, column = function(lane, word)
            found[lane * num_words + word, 0] = row
            found[lane * num_words + word, 1] = column

    launch(places, 1, 32, *[DeviceArray(argument) for argument in _arguments(job, outputs)])


def _walk(job: dict[str, Any], module: types.ModuleType, launch: Launcher, outputs: list[Any]) -> None:
    from numba import cuda

    function = find(module, job["function"])
    num_steps = job["num_steps"]

    @cuda.jit
    def walk(found):
        first, second = 0, 0
        for step in range(num_steps):
            first, second = function(first, second)
            found[step, 0] = first
            found[step, 1] = second

    launch(walk, 1, 1, *[DeviceArray(argument) for argument in _arguments(job, outputs)])


_KINDS: dict[str, Callable[..., Any]] = {
    "call": _call,
    "launcher": _launcher,
    "kernel": _kernel,
    "probe": _probe,
    "places": _places,
    "walk": _walk,
}


def _explain(error: BaseException, path: str) -> dict[str, Any]:
    """An exception as status, type, message, and the last place in the student's own file."""
    line = int(getattr(error, "lineno", 0) or 0)  # of a SyntaxError
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == path:
            line = step.tb_lineno
        step = step.tb_next
    status, message = "raised", _THREAD.sub("", str(error))
    if isinstance(error, SystemExit | KeyboardInterrupt):
        status = "exit"
    elif isinstance(error, OutOfTime):
        status = "time"
    elif isinstance(error, MemoryError):
        status = "memory"
    elif isinstance(error, Refused):
        status = "refused"
    elif isinstance(error, sim.SimulatorError):
        status = "finding"
    elif type(error).__module__.startswith(("numba.cuda.cudadrv", "cuda.")):
        status = "crashed"
    elif type(error).__module__.startswith("numba."):
        status = "uncompiled"
        message, refused_line = sim.explain_refusal(error, path)
        line = refused_line or line
    return {
        "status": status,
        "error": {
            "type": type(error).__name__,
            "message": message[:4000],
            "line": line,
            "text": linecache.getline(path, line).strip() if line else "",
        },
    }
