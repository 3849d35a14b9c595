"""What trains a network with its memory, in PyTorch and in JAX, and goes on where it was stopped."""
