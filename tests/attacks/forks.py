"""Leaves a child behind that outlives its job."""

import os

EXERCISE = "ex02_launches"
AIM = "test_one_expert"


if os.fork() == 0:
    while True:
        pass
