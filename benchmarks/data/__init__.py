"""Data sets: Omniglot, drawn characters, Multi30k; their downloads and distortions."""
