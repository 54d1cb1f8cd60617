"""The Mixture-of-Experts layer around the grouped GEMM: router, permutation, layer, backward, training.

    x [T, D] -> project -> logits [T, E] -> router -> experts [T, k], weights [T, k]
             -> permute -> offsets [E + 1], rows [total, D] sorted by expert
             -> grouped GEMM, activation, grouped GEMM
             -> scatter -> y [T, D]

`routing` and `router` need NumPy only: they say what a routing is and how each router chooses.
"""
