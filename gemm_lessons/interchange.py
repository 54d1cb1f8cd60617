"""Device arrays of other libraries, without a copy: DLPack and `__cuda_array_interface__`.

    torch.Tensor, cupy.ndarray    __dlpack__: knows bfloat16 and where the array lies
    numba DeviceNDArray           as it is
    anything else on a GPU        __cuda_array_interface__
    numpy.ndarray                 in the simulator only, where the host is the device

An array that is taken over stays the caller's; the view that is made of it keeps it alive.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.launch import to_device
from gemm_lessons.problem import DTYPES, ProblemError

device.choose()

from numba import cuda  # noqa: E402  why late: the device is chosen before Numba is imported


class _DLTensor(ctypes.Structure):
    """The head of a DLManagedTensor, as dlpack.h defines it."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("type_code", ctypes.c_uint8),
        ("type_bits", ctypes.c_uint8),
        ("type_lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


ON_CUDA = 2  # DLDeviceType
DLPACK_DTYPES: dict[tuple[int, int], np.dtype[Any]] = {
    (0, 32): np.dtype(np.int32),
    (0, 64): np.dtype(np.int64),
    (1, 8): np.dtype(np.uint8),
    (2, 32): DTYPES["float32"],
    (2, 16): DTYPES["float16"],
    (4, 16): DTYPES["bfloat16"],
}
NO_SYNCHRONISATION = -1  # why: everything happens on the caller's own stream


class _Exposed:
    """An address with a shape, and the array that owns it."""

    def __init__(self, owner: Any, address: int, shape: tuple[int, ...], itemsize: int) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": f"<u{itemsize}",
            "data": (address, False),
            "version": 3,
        }


def as_device_array(label: str, array: Any) -> Any:
    """See an array of any library as a contiguous Numba device array; float8_e4m3fn as its bits, uint8.

    Args:
        label: what it is called in messages.
        array: a device array; in the simulator, a NumPy array, which is copied.

    Raises:
        ProblemError: it is not on the first GPU, not contiguous, or of a dtype that nobody computes in.
    """
    if isinstance(array, np.ndarray) and device.choose().is_gpu:
        raise ProblemError(
            f"{label} is a NumPy array: move it to the GPU first, with cuda.to_device or torch"
        )
    torch = sys.modules.get("torch")
    if torch and isinstance(array, torch.Tensor):
        array = array.detach()  # why: torch exposes no array that takes part in autograd, as weights do
        if array.dtype == torch.float8_e4m3fn:
            array = array.view(torch.uint8)
    if isinstance(array, np.ndarray) or cuda.cudadrv.devicearray.is_cuda_ndarray(array):
        view = to_device(array)
        if view.dtype == DTYPES["float8_e4m3fn"]:
            view = view.view(np.uint8)
    elif hasattr(array, "__dlpack__"):
        view = _from_dlpack(label, array)
    elif hasattr(array, "__cuda_array_interface__"):
        view = cuda.as_cuda_array(array, sync=False)
    else:
        raise ProblemError(
            f"{label} is {type(array).__name__}, which has neither __dlpack__ nor __cuda_array_interface__"
        )
    if not view.is_c_contiguous():
        raise ProblemError(f"{label} is not contiguous: call .contiguous() or ascontiguousarray on it first")
    return view


def _from_dlpack(label: str, array: Any) -> Any:
    capsule = array.__dlpack__(stream=NO_SYNCHRONISATION)
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _DLTensor.from_address(get_pointer(capsule, b"dltensor"))
    if tensor.device_type != ON_CUDA:
        raise ProblemError(f"{label} is not on a CUDA device: move it there first")
    if tensor.device_id != 0:
        raise ProblemError(
            f"{label} is on GPU {tensor.device_id}, and all is computed on the first visible one: move it"
            f" there, or start Python with CUDA_VISIBLE_DEVICES={tensor.device_id}"
        )
    dtype = DLPACK_DTYPES.get((tensor.type_code, tensor.type_bits))
    if dtype is None or tensor.type_lanes != 1:
        raise ProblemError(f"{label} has a dtype that no step computes in: use {', '.join(DTYPES)}")
    shape = tuple(tensor.shape[: tensor.ndim])
    if tensor.strides:
        dense = np.cumprod((1, *shape[:0:-1]))[::-1] if shape else ()
        pairs = zip(shape, tensor.strides[: tensor.ndim], dense, strict=True)
        if any(extent > 1 and stride != wanted for extent, stride, wanted in pairs):
            raise ProblemError(f"{label} is not contiguous: call .contiguous() on it first")
    # why the capsule may go: it only borrows; the exposed view keeps the array itself.
    exposed = _Exposed(array, (tensor.data or 0) + tensor.byte_offset, shape, dtype.itemsize)
    return cuda.as_cuda_array(exposed, sync=False).view(dtype)


def caller_stream(stream: Any, *arrays: Any) -> Any:
    """The stream that a caller means, as a Numba stream; 0 is the default stream.

    Args:
        stream: None, a number, or a stream of Numba, torch (`cuda_stream`), CuPy (`ptr`) or any library
            that has `__cuda_stream__`.
        arrays: what the caller computes with: without a stream, the current one of its library counts.
    """
    if not device.choose().is_gpu:
        return 0
    if stream is None:
        stream = _current_stream(arrays)
    for name in ("cuda_stream", "ptr"):
        if isinstance(getattr(stream, name, None), int):
            stream = getattr(stream, name)
    if hasattr(stream, "__cuda_stream__") and not isinstance(stream, cuda.cudadrv.driver.Stream):
        stream = stream.__cuda_stream__()[1]
    if isinstance(stream, int):
        return cuda.external_stream(stream) if stream else 0
    return stream


def _current_stream(arrays: tuple[Any, ...]) -> int:
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    for array in arrays:
        if torch and isinstance(array, torch.Tensor):
            return int(torch.cuda.current_stream(array.device).cuda_stream)
        if cupy and isinstance(array, cupy.ndarray):
            return int(cupy.cuda.get_current_stream().ptr)
    return 0


def empty_like_family(array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """An uninitialised array of the same library as another one, with a dtype of its own.

    Raises:
        ProblemError: CuPy is to make an array of bfloat16, which it does not know.
    """
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    if torch and isinstance(array, torch.Tensor):
        return array.new_empty(shape, dtype=getattr(torch, dtype.name))
    if cupy and isinstance(array, cupy.ndarray):
        if dtype == DTYPES["bfloat16"]:
            raise ProblemError("CuPy knows no bfloat16: pass an array of another library as out")
        return cupy.empty(shape, dtype)
    if isinstance(array, np.ndarray):
        return np.empty(shape, dtype)
    return to_device(np.empty(shape, dtype))
