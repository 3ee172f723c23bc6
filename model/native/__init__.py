"""Kernels of our own for CPUs with AVX2 or AVX-512: the fused encoder in C, which ctypes calls."""
