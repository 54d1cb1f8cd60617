"""Gives back what it got."""

EXERCISE = "ex01_padding"
AIM = "test_pack"


def pack(x, counts, tile):
    return x
