"""The number of parts is rounded up, so that there are more blocks than wanted."""

MISCONCEPTION = "too-many-blocks"
CAUGHT_BY = "test_parts"


def num_parts(num_tiles, K, wanted_blocks):
    return max(1, min(-(-wanted_blocks // num_tiles), K // LEAST_K))
