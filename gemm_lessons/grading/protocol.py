"""Messages between the grader and the process that runs a submission: JSON and raw arrays, never pickle.

    8 bytes   length of the header
    header    JSON: the value, with {"array": i} where the i-th array stands, and each array's dtype and shape
    arrays    their bytes, one after the other

What comes from a submission's process is data: nothing in it can run code here, and nothing in it is
larger than announced.  Only plain values are sent: a class with an `__eq__` of its own never arrives.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

PATIENCE = 4  # on the clock a job in the simulator may take so many times the time that it may compute
LENGTH = struct.Struct("<Q")
MOST_HEADER_BYTES = 16 << 20
MOST_ARRAY_BYTES = 512 << 20
MOST_INT_BITS = 256
KINDS = "biuf"  # NumPy kinds of the arrays that may travel


class ProtocolError(ValueError):
    """A message that breaks the rules above, or a value that cannot travel."""


class ClosedError(ConnectionError):
    """The other side has gone."""


def encode(value: Any, arrays: list[Array]) -> Any:
    """Turn a value into JSON, collecting its arrays.

    Raises:
        ProtocolError: the value holds something that is not plain data; the message names its type.
    """
    kind = type(value)  # why not isinstance: a subclass brings methods of its own
    if value is None or kind in (bool, str, float):
        return {"float": value.hex()} if kind is float else value
    if kind is int:
        if value.bit_length() > MOST_INT_BITS:
            raise ProtocolError(f"an integer of {value.bit_length()} bits")
        return value
    if kind in (list, tuple):
        return {kind.__name__: [encode(item, arrays) for item in value]}
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise ProtocolError("a dict whose keys are not strings")
        return {"dict": [[key, encode(item, arrays)] for key, item in value.items()]}
    if isinstance(value, np.generic) and kind.__module__ == "numpy":
        return {"scalar": encode(np.asarray(value), arrays)}
    if kind is np.ndarray:
        if value.dtype.kind not in KINDS:
            raise ProtocolError(f"an array of {value.dtype}")
        arrays.append(np.ascontiguousarray(value).reshape(value.shape))
        return {"array": len(arrays) - 1}
    raise ProtocolError(f"a value of type {kind.__name__!r}")


def decode(tree: Any, arrays: list[Array]) -> Any:
    """The value that `encode` was given.

    Raises:
        ProtocolError: the JSON is not of the form that `encode` makes.
    """
    if tree is None or type(tree) in (bool, str, int):
        return tree
    if type(tree) is not dict or len(tree) != 1:
        raise ProtocolError("a malformed value")
    ((kind, content),) = tree.items()
    try:
        if kind == "float":
            return float.fromhex(content)
        if kind in ("list", "tuple"):
            items = [decode(item, arrays) for item in content]
            return items if kind == "list" else tuple(items)
        if kind == "dict":
            return {str(key): decode(item, arrays) for key, item in content}
        if kind == "scalar":
            return decode(content, arrays)[()]
        if kind == "array":
            return arrays[content]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise ProtocolError(f"a malformed {kind}") from error
    raise ProtocolError(f"a value of unknown kind {kind!r}")


def send(connection: socket.socket, value: Any) -> None:
    """Send one message.

    Raises:
        ProtocolError: the value cannot travel; nothing was sent.
        ClosedError: the other side has gone.
    """
    arrays: list[Array] = []
    tree = encode(value, arrays)
    described = [{"dtype": array.dtype.str, "shape": array.shape} for array in arrays]
    header = json.dumps({"value": tree, "arrays": described}).encode()
    if len(header) > MOST_HEADER_BYTES or sum(array.nbytes for array in arrays) > MOST_ARRAY_BYTES:
        raise ProtocolError("a value that is too large")
    try:
        connection.sendall(LENGTH.pack(len(header)) + header)
        for array in arrays:
            connection.sendall(array.tobytes())
    except (BrokenPipeError, ConnectionResetError) as error:
        raise ClosedError("the other side has gone") from error


def receive(connection: socket.socket, deadline: float | None = None) -> Any:
    """Receive one message.

    Args:
        connection: where from.
        deadline: `time.monotonic()` at which to give up; None waits for ever.

    Raises:
        TimeoutError: the deadline has passed.
        ClosedError: the other side has gone.
        ProtocolError: what came is no message.
    """
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size, deadline))
    if length > MOST_HEADER_BYTES:
        raise ProtocolError("a header that is too large")
    try:
        header = json.loads(_exactly(connection, length, deadline))
        described = [(np.dtype(item["dtype"]), tuple(map(int, item["shape"]))) for item in header["arrays"]]
        tree = header["value"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ProtocolError("a malformed header") from error
    arrays = []
    left = MOST_ARRAY_BYTES
    for dtype, shape in described:
        if dtype.kind not in KINDS or any(extent < 0 for extent in shape):
            raise ProtocolError(f"an array of {dtype} {shape}")
        num_bytes = dtype.itemsize * int(np.prod([1, *shape], dtype=object))
        left -= num_bytes
        if left < 0:
            raise ProtocolError("arrays that are too large")
        raw = _exactly(connection, num_bytes, deadline)
        arrays.append(np.frombuffer(bytearray(raw), dtype).reshape(shape))
    return decode(tree, arrays)


def _exactly(connection: socket.socket, num_bytes: int, deadline: float | None) -> bytes:
    parts = []
    while num_bytes:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            connection.settimeout(left)
        try:
            part = connection.recv(min(num_bytes, 1 << 20))
        except ConnectionResetError as error:
            raise ClosedError("the other side has gone") from error
        if not part:
            raise ClosedError("the other side has gone")
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)
