"""Tests of the PTX instructions: what is emitted, and what it means."""
