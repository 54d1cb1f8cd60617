"""As many blocks as tickets, resident or not."""

MISCONCEPTION = "not-resident"
CAUGHT_BY = "test_resident"


def launch_shape(num_tiles, num_resident):
    tickets = -(-num_tiles // TICKET)
    return tickets, BM * BN
