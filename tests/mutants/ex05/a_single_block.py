"""One block does everything."""

MISCONCEPTION = "too-few-blocks"
CAUGHT_BY = "test_resident"


def launch_shape(num_tiles, num_resident):
    tickets = -(-num_tiles // TICKET)
    return 1, BM * BN
