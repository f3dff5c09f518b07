"""Attention on a GPU: its correctness against float64, and its speed next to cuDNN, XLA and PyTorch's kernels."""
