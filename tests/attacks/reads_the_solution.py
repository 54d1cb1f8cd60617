"""Reads the solution as a file and runs it."""

import pathlib

EXERCISE = "ex03_concatenated"
AIM = "test_one_expert"


for folder in (pathlib.Path.cwd(), *pathlib.Path.cwd().parents):
    for path in folder.glob("solutions/ex03_concatenated.py"):
        exec(path.read_text())
