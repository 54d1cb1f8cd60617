"""What travels between grader and submission is plain data, and nothing else."""

import json
import socket
import struct
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemm_lessons.grading import protocol
from gemm_lessons.grading.protocol import ProtocolError

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.text(max_size=9),
    lambda children: (
        st.lists(children, max_size=4)
        | st.tuples(children, children)
        | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=9,
)


def there_and_back(value):
    one, other = socket.socketpair()
    with one, other:
        protocol.send(one, value)
        return protocol.receive(other, time.monotonic() + 5)


@given(plain)
def test_plain_values_travel(value):
    got = there_and_back(value)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
def test_arrays_travel(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    got = there_and_back({"y": array})["y"]
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    assert np.array_equal(got, array)


def test_poison_travels_bit_for_bit():
    array = np.array([0x7FC0DEAD], np.uint32).view(np.float32)
    assert there_and_back(array).view(np.uint32)[0] == 0x7FC0DEAD


class Sly(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, Sly(3), {1, 2}, np.array([object()]), 1 << 300, len, b"x"]
)
def test_anything_else_does_not(value):
    with pytest.raises(ProtocolError):
        protocol.encode(value, [])


@pytest.mark.parametrize(
    "header",
    [
        b"no json",
        json.dumps({"value": 1}).encode(),
        json.dumps({"value": {"array": 0}, "arrays": []}).encode(),
        json.dumps({"value": {"code": "x"}, "arrays": []}).encode(),
        json.dumps({"value": 1, "arrays": [{"dtype": "O", "shape": [1]}]}).encode(),
        json.dumps({"value": 1, "arrays": [{"dtype": "<f4", "shape": [-1]}]}).encode(),
        json.dumps({"value": 1, "arrays": [{"dtype": "<f4", "shape": [1 << 62]}]}).encode(),
        ("[" * 100_000).encode(),
    ],
)
def test_malformed_messages_are_refused(header):
    one, other = socket.socketpair()
    with one, other:
        one.sendall(struct.pack("<Q", len(header)) + header)
        with pytest.raises(ProtocolError):
            protocol.receive(other, time.monotonic() + 5)


def test_an_absurd_length_is_refused():
    one, other = socket.socketpair()
    with one, other:
        one.sendall(struct.pack("<Q", 1 << 60))
        with pytest.raises(ProtocolError, match="too large"):
            protocol.receive(other, time.monotonic() + 5)


def test_silence_ends_at_the_deadline():
    one, other = socket.socketpair()
    with one, other, pytest.raises(TimeoutError):
        protocol.receive(other, time.monotonic() + 0.1)
