"""An integer of a million digits."""

EXERCISE = "ex01_padding"
AIM = "test_useful_flops"


def useful_flops(counts, N, K):
    return 10**1_000_000
