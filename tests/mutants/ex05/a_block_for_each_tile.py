"""As many blocks as tiles."""

MISCONCEPTION = "not-resident"
CAUGHT_BY = "test_resident"


def launch_shape(num_tiles, num_resident):
    tickets = -(-num_tiles // TICKET)
    return num_tiles, BM * BN
