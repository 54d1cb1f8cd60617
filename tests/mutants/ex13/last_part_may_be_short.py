"""K over LEAST_K is rounded up."""

MISCONCEPTION = "short-parts"
CAUGHT_BY = "test_parts"


def num_parts(num_tiles, K, wanted_blocks):
    return max(1, min(wanted_blocks // num_tiles, -(-K // LEAST_K)))
