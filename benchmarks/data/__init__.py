"""Data sets, drawn or read from files, and their distortions."""
