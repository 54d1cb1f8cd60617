"""The grader: runs a student's functions and kernels elsewhere, judges what comes back, and explains it.

Importing this package imports neither Numba nor a submission.  `docs/grading.md` has the threat model.
"""
