"""num_tiles // TICKET blocks: none at all where there are few tiles."""

MISCONCEPTION = "blocks-rounded-down"
CAUGHT_BY = "test_first"


def launch_shape(num_tiles, num_resident):
    tickets = num_tiles // TICKET
    return min(tickets, num_resident), BM * BN
