"""`python -m gemm_lessons`: the command line, also where the package is not installed."""

from gemm_lessons.cli import main

main()
