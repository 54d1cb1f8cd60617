"""Tensor maps: 128 bytes that tell the copy engine what a matrix looks like and how large a box to move.

    matrix [rows, columns], row-major          box [box_rows, box_columns], 128 bytes wide
    +---------------------------+              in shared memory its 16-byte pieces are swizzled:
    |        +------+           |              piece c of row r lies at piece c ^ (r % 8), so that
    |        | box  |           |              eight rows of one column touch all 32 banks
    |        +------+           |
    +---------------------------+

A map is made once, on the host.  On a GPU the driver encodes it; the simulator has its own encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gemm_lessons import device
from gemm_lessons.problem import LARGEST_EXTENT, ProblemError

device.choose()

from numba import cuda  # noqa: E402  why late: the device is chosen before Numba is imported

MAP_BYTES = 128
ROW_BYTES = 128  # of a box: what the 128-byte swizzle needs
MOST_BOX_ROWS = 256
ALIGNMENT = 16  # of the matrix's address and of its row length, in bytes


_FIELDS = np.dtype(
    [
        ("address", "u8"),
        ("rows", "u8"),
        ("columns", "u8"),
        ("box_rows", "u4"),
        ("row_bytes", "u4"),
        ("itemsize", "u4"),
        ("swizzled", "u4"),
    ]
)


@dataclass(frozen=True)
class SimulatedMap:
    """A tensor map as the simulator encodes it."""

    address: int
    rows: int
    columns: int
    box_rows: int
    row_bytes: int  # of the box
    itemsize: int
    swizzled: int

    @property
    def box_bytes(self) -> int:
        """Bytes of a whole box."""
        return self.box_rows * self.row_bytes

    def address_of(self, row: int, column: int) -> int:
        """Where an element lies."""
        return self.address + (row * self.columns + column) * self.itemsize

    def bytes_inside(self, column: int) -> int:
        """How many bytes of a box's row lie inside the matrix, from this column on."""
        return min(self.row_bytes, (self.columns - column) * self.itemsize)


def read_simulated(encoded: np.ndarray[Any, Any], offset: int) -> SimulatedMap:
    """Read a map that `encode` made for the simulator."""
    fields = np.frombuffer(encoded[offset : offset + _FIELDS.itemsize].tobytes(), _FIELDS)[0]
    return SimulatedMap(*(int(value) for value in fields))


def check_alignment(label: str, num_columns: int, itemsize: int) -> None:
    """Check TMA's rule: rows of a multiple of 16 bytes.

    Raises:
        ProblemError: naming the extent and the nearest one that would do.
    """
    step = ALIGNMENT // itemsize
    if num_columns % step:
        raise ProblemError(
            f"{label} is {num_columns}: TMA moves rows of a multiple of {ALIGNMENT} bytes,"
            f" so {label} must be a multiple of {step}; pad it to {-(-num_columns // step) * step}"
        )


def check_rows(num_rows: int) -> None:
    """Check that TMA's 32-bit coordinates reach every row.

    Raises:
        ProblemError: with the number of rows.
    """
    if num_rows > LARGEST_EXTENT:
        raise ProblemError(
            f"the weights have {num_rows} rows, N for each expert, and TMA counts to {LARGEST_EXTENT}:"
            " use fewer experts a call"
        )


@dataclass(frozen=True)
class Box:
    """What one request moves: some rows, 128 bytes wide and swizzled, or so many columns as they are."""

    rows: int
    columns: int = 0

    def row_bytes(self, itemsize: int) -> int:
        """Bytes of a row in shared memory."""
        return self.columns * itemsize or ROW_BYTES


def encode(matrices: list[tuple[Any, Box]]) -> Any:
    """Encode the maps of some matrices, one after the other.

    Args:
        matrices: device array [rows, columns] of bfloat16, float16, float32 or uint8, and the box, for each
            map.  A matrix may have no rows if no box of it is ever moved.

    Returns:
        uint8 device array [len(matrices), 128].

    Raises:
        ProblemError: TMA cannot describe the matrix or the box.
    """
    maps = np.zeros((len(matrices), MAP_BYTES), np.uint8)
    for row, (matrix, box) in zip(maps, matrices, strict=True):
        if not 1 <= box.rows <= MOST_BOX_ROWS or box.columns > MOST_BOX_ROWS:
            raise ProblemError(f"a TMA box has 1 to {MOST_BOX_ROWS} rows and columns, not {box}")
        check_alignment("the row length", matrix.shape[1], matrix.dtype.itemsize)
        if device.choose().is_gpu:
            row[:] = _encode_with_driver(matrix, box)
        else:
            row[: _FIELDS.itemsize] = _encode_for_simulator(matrix, box)
    return cuda.to_device(maps)


def _encode_with_driver(matrix: Any, box: Box) -> np.ndarray[Any, Any]:
    from cuda.bindings import driver

    rows, columns = matrix.shape
    itemsize = matrix.dtype.itemsize
    address = matrix.__cuda_array_interface__["data"][0]
    if address % ALIGNMENT:
        raise ProblemError(f"a matrix at address {address:#x} is not aligned to {ALIGNMENT} bytes")
    types, swizzles = driver.CUtensorMapDataType, driver.CUtensorMapSwizzle
    status, tensor_map = driver.cuTensorMapEncodeTiled(
        {
            "bfloat16": types.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            "float16": types.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            "float32": types.CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
            "uint8": types.CU_TENSOR_MAP_DATA_TYPE_UINT8,
        }[matrix.dtype.name],
        2,
        address,
        [driver.cuuint64_t(columns), driver.cuuint64_t(max(rows, 1))],
        [driver.cuuint64_t(columns * itemsize)],
        [driver.cuuint32_t(box.row_bytes(itemsize) // itemsize), driver.cuuint32_t(box.rows)],
        [driver.cuuint32_t(1), driver.cuuint32_t(1)],
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        swizzles.CU_TENSOR_MAP_SWIZZLE_NONE if box.columns else swizzles.CU_TENSOR_MAP_SWIZZLE_128B,
        driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    if int(status) != 0:
        raise ProblemError(f"the driver refused a tensor map for {rows} x {columns}: {status.name}")
    words = np.array([int(word) for word in tensor_map.opaque], np.uint64)
    encoded: np.ndarray[Any, Any] = words.view(np.uint8)
    return encoded


def _encode_for_simulator(matrix: Any, box: Box) -> np.ndarray[Any, Any]:
    from gemm_lessons.sim import address_of

    fields, itemsize = np.zeros(1, _FIELDS), matrix.dtype.itemsize
    size = box.rows, box.row_bytes(itemsize)
    fields[0] = (address_of(matrix), *matrix.shape, *size, itemsize, not box.columns)
    encoded: np.ndarray[Any, Any] = fields.view(np.uint8)
    return encoded
