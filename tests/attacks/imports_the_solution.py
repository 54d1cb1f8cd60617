"""Imports the solution."""

import sys

EXERCISE = "ex03_concatenated"
AIM = "test_one_expert"


sys.path.insert(0, ".")
from solutions.ex03_concatenated import *
