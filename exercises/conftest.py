"""Makes `pytest exercises` a grader."""

pytest_plugins = ("gemm_lessons.grading.plugin",)
