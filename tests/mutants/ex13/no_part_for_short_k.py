"""A K that is too short for one part gets none."""

MISCONCEPTION = "no-part"
CAUGHT_BY = "test_parts"


def num_parts(num_tiles, K, wanted_blocks):
    return min(max(1, wanted_blocks // num_tiles), K // LEAST_K)
