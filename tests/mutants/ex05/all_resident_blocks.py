"""All resident blocks, also where there are fewer tickets."""

MISCONCEPTION = "idle-blocks"
CAUGHT_BY = "test_resident"


def launch_shape(num_tiles, num_resident):
    tickets = -(-num_tiles // TICKET)
    return num_resident, BM * BN
