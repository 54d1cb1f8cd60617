"""Where there are more tiles than blocks are wanted, each gets no part."""

MISCONCEPTION = "no-part"
CAUGHT_BY = "test_parts"


def num_parts(num_tiles, K, wanted_blocks):
    return min(wanted_blocks // num_tiles, max(1, K // LEAST_K))
