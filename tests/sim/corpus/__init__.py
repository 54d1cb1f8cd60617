"""Kernels with a known verdict."""
