"""Asks for 64 GiB."""

EXERCISE = "ex01_padding"
AIM = "test_pack"


def pack(x, counts, tile):
    return bytearray(64 << 30)
