"""Imports the lesson's step."""

from gemm_lessons.steps.concatenated import CONFIG, make_kernel

EXERCISE = "ex03_concatenated"
AIM = "test_one_expert"


two_rows_kernel = make_kernel(CONFIG)
