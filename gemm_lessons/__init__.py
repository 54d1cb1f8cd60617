"""Grouped GEMM for Mixture-of-Experts in Numba CUDA, one idea per step.

Importing this package imports no Numba and chooses no device: `gemm_lessons.device` does, on first use.
"""
