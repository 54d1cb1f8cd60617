"""Starts another program to do the work."""

import subprocess

EXERCISE = "ex02_launches"
AIM = "test_one_expert"


subprocess.run(["python3", "-c", "print(1)"], check=True)
