"""Trains networks with a memory, in PyTorch and in JAX; a stopped run can be resumed."""
