"""32 threads for a tile of 64 outputs."""

MISCONCEPTION = "block-size"
CAUGHT_BY = "test_first"


def launch_shape(num_tiles, num_resident):
    tickets = -(-num_tiles // TICKET)
    return min(tickets, num_resident), BM * BN // 2
