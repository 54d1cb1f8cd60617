"""The checked simulator: runs Numba CUDA kernels without a GPU and says what is wrong with them."""
