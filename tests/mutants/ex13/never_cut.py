"""Tiles are never cut."""

MISCONCEPTION = "too-few-parts"
CAUGHT_BY = "test_parts"


def num_parts(num_tiles, K, wanted_blocks):
    return 1
